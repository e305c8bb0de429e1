"""Tool calls out of pieces, as servers send them."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import ToolCall
from ultra.clients.dialects.tool_calls import OWN_IDS, ToolCalls, arguments_text, finish_with

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
        [  # one id for all
            {"id": "c1", "name": "f", "arguments": '{"x": 1}'},
            {"index": 1, "id": "c2", "name": "g", "arguments": "{}"},
            {"id": "c1", "name": "f", "arguments": '{"x":1}'},  # repeated at the end
        ],
        [  # a whole call in one piece, and all of them again in the last
            {"index": 0, "id": "c1", "name": "f", "arguments": '{"x": 1}'},
            {"index": 1, "id": "c2", "name": "g", "arguments": "{}"},
            {"index": 0, "id": "c1", "name": "f", "arguments": '{"x": 1}'},
            {"index": 1, "id": "c2", "name": "g", "arguments": "{}"},
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


def put_together(*pieces: dict[str, Any], cut: bool = False) -> list[tuple[str, str]]:
    calls = ToolCalls()
    for piece in pieces:
        calls.add(**piece)
    whole = calls.whole(cut=cut)
    assert len({call.id for call in whole}) == len(whole)
    return [(call.name, call.arguments) for call in whole]


@pytest.mark.parametrize("about", [{"index": 0}, {"id": "same"}, {"index": 0, "id": "same"}])
def test_whole_calls_under_one_name_are_several(about: dict[str, Any]) -> None:
    said = [("f", '{"x": 1}'), ("f", '{"x": 2}'), ("g", "{}"), ("f", '{"x": 3}')]
    pieces = [{**about, "name": name, "arguments": arguments} for name, arguments in said]
    assert put_together(*pieces) == said


def test_of_an_answer_that_was_cut_only_whole_calls_stay() -> None:
    whole, half = {"index": 0, "name": "f", "arguments": '{"x": 1}'}, {"index": 1, "name": "g"}
    assert put_together(whole, {**half, "arguments": '{"y": '}, cut=True) == [("f", '{"x": 1}')]
    assert put_together(whole, half, cut=True) == [("f", '{"x": 1}')]
    assert put_together(half, whole, cut=True) == [("g", "{}"), ("f", '{"x": 1}')]
    # A model that stopped by itself wrote its arguments so.
    assert put_together({**half, "arguments": "{oops"}) == [("g", "{oops")]


def test_half_characters_in_arguments_are_joined_or_replaced() -> None:
    call = {"index": 0, "name": "f"}
    assert put_together({**call, "arguments": '{"x": "\ud83d'}, {"index": 0, "arguments": '\ude00"}'}) == [
        ("f", '{"x": "\U0001f600"}')
    ]
    assert put_together({**call, "arguments": '{"x": "\ud83d"}'}) == [("f", '{"x": "\ufffd"}')]
    assert put_together({**call, "arguments": r'{"x": "\ud83d"}'}) == [("f", r'{"x": "\ufffd"}')]
    assert put_together({**call, "arguments": r'{"x": "\\ud83d"}'}) == [("f", r'{"x": "\\ud83d"}')]


@pytest.mark.parametrize(
    ("calls", "finish", "said"),
    [
        (TWO, "stop", "tool_calls"),
        (TWO, None, "tool_calls"),
        (TWO, "length", "length"),
        ((), "tool_calls", "other"),
        ((), "stop", "stop"),
    ],
)
def test_the_calls_decide_whether_the_model_stopped_for_them(calls: Any, finish: Any, said: Any) -> None:
    assert finish_with(calls, finish) == said
