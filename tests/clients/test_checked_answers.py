"""Calls of tools as clients of one's own write them."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import Completion, ModelRequest, ToolCall
from ultra.clients.checked_answers import checked
from ultra.errors import ModelError

REQUEST = ModelRequest.of("Q")


@pytest.mark.parametrize("calls", [list, tuple])
def test_calls_may_be_a_list_their_arguments_a_dict_and_the_content_none(calls: Any) -> None:
    content: Any = None
    arguments: Any = {"x": 1}
    answer = Completion(content, tool_calls=calls([ToolCall("1", "f", arguments), ToolCall("2", "g", "{}")]))

    found = checked(answer, REQUEST)

    assert found.content == ""
    assert found.tool_calls == (ToolCall("1", "f", '{"x":1}'), ToolCall("2", "g", "{}"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ((None, "f", "{}"), "a part that is not allowed: .*'id'"),
        (("1", 7, "{}"), "a part that is not allowed: .*'name'"),
        (("1", "f", {"x": object()}), "a part that is not allowed: .*object is unsupported"),
    ],
)
def test_a_call_that_cannot_be_used_is_told_and_not_taken_for_an_empty_answer(
    call: tuple[Any, Any, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        checked(Completion("", tool_calls=(ToolCall(*call),)), REQUEST)
    assert (caught.value.kind, caught.value.retryable) == ("protocol", False)


def test_no_content_and_no_calls_is_no_answer() -> None:
    nothing: Any = None
    with pytest.raises(ModelError, match="the client gave NoneType; allowed is str as the content"):
        checked(Completion(nothing), REQUEST)
