"""Tool calls out of pieces, as servers send them."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import ToolCall
from ultra.clients.dialects.tool_calls import OWN_IDS, ToolCalls, arguments_text

TWO = (ToolCall("c1", "f", '{"x": 1}'), ToolCall("c2", "g", "{}"))


@pytest.mark.parametrize(
    "pieces",
    [
        [  # OpenAI
            {"index": 0, "id": "c1", "name": "f", "arguments": ""},
            {"index": 0, "arguments": '{"x"'},
            {"index": 0, "arguments": ": 1}"},
            {"index": 1, "id": "c2", "name": "g", "arguments": "{}"},
        ],
        [  # mixed
            {"index": 0, "id": "c1", "name": "f"},
            {"index": 1, "id": "c2", "name": "g"},
            {"index": 0, "arguments": '{"x": 1}'},
            {"index": 1, "arguments": "{}"},
        ],
        [  # without an index
            {"id": "c1", "name": "f", "arguments": '{"x"'},
            {"arguments": ": 1}"},
            {"id": "c2", "name": "g"},
        ],
        [  # one index for all
            {"index": 0, "id": "c1", "name": "f", "arguments": '{"x": 1}'},
            {"index": 0, "id": "c2", "name": "g", "arguments": "{}"},
        ],
        [  # id and name in every piece
            {"index": 0, "id": "c1", "name": "f", "arguments": '{"x"'},
            {"index": 0, "id": "c1", "name": "f", "arguments": ": 1}"},
            {"index": 1, "id": "c2", "name": "g"},
        ],
    ],
)
def test_pieces_are_put_together_as_servers_differ(pieces: list[dict[str, Any]]) -> None:
    calls = ToolCalls()
    for piece in pieces:
        calls.add(**piece)
    assert calls.whole() == TWO


def test_a_call_without_an_id_gets_one_and_one_without_a_name_is_none() -> None:
    calls = ToolCalls()
    calls.add(name="f", arguments='{"a": 1}', signature="s")
    calls.add(index=7, id="c9")
    (call,) = calls.whole()
    assert call == ToolCall(call.id, "f", '{"a": 1}', "s")
    assert call.id.startswith(OWN_IDS)


def test_arguments_may_come_as_an_object() -> None:
    assert [arguments_text(each) for each in (None, "{}", {"x": 1})] == ["", "{}", '{"x":1}']
