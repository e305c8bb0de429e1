"""Calls as odd servers send them: without an index, whole, as objects, twice, cut, and by the thousand."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.byte_server import events
from ultra.clients.dialects.anthropic import AnthropicMessages
from ultra.clients.dialects.gemini import GeminiGenerate
from ultra.clients.dialects.ollama import OllamaChat
from ultra.clients.dialects.openai_chat import OpenAIChat
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError

if TYPE_CHECKING:
    from ultra.clients.dialects.base import Dialect
    from ultra.messages.chat import ToolCall
    from ultra.messages.results import Completion

CHAT: Dialect = OpenAIChat("m", provider="p", base_url="http://127.0.0.1:1/v1")
DIALECTS: dict[str, Dialect] = {
    "openai": CHAT,
    "openai_responses": OpenAIResponses("m", provider="p", base_url="http://127.0.0.1:1/v1"),
    "anthropic": AnthropicMessages("m", provider="p", base_url="http://127.0.0.1:1"),
    "gemini": GeminiGenerate("m", provider="p", base_url="http://127.0.0.1:1"),
    "ollama": OllamaChat("m", provider="p", base_url="http://127.0.0.1:1"),
}


def streamed(content: bytes, dialect: Dialect = CHAT, size: int = 50) -> Completion:
    decoder = dialect.decoder(ResponseHead("p", 200, {"content-type": "text/event-stream"}))
    for begin in range(0, len(content), size):
        for _ in decoder.feed(content[begin : begin + size]):
            pass
    for _ in decoder.flush():
        pass
    return decoder.completion()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def plain(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
arguments = st.dictionaries(words, words | st.integers(0, 9) | st.booleans(), max_size=3)
some_calls = st.lists(st.tuples(st.sampled_from(["f", "g", "weather.of"]), arguments), min_size=1, max_size=4)


@st.composite
def odd_streams(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], list[dict[str, Any]]]:
    """Some calls, and the chunks in which a server of one or another habit sends them."""
    calls = draw(some_calls)
    index = draw(st.sampled_from(["right", "none", "zero"]))
    id_in = draw(st.sampled_from(["first", "every"]))
    form = draw(st.sampled_from(["pieces", "whole", "object"]))
    chunks = []
    whole = []
    for number, (name, given_arguments) in enumerate(calls):
        at = {"right": {"index": number}, "zero": {"index": 0}, "none": {}}[index]
        about = {"id": f"c{number}", "type": "function"}
        text = json.dumps(given_arguments, ensure_ascii=draw(st.booleans()))
        pieces: list[Any] = [text]
        if form == "object":
            pieces = [given_arguments]
        elif form == "pieces":
            cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
            pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        for place, piece in enumerate(pieces):
            known = about if not place or id_in == "every" else {}
            function = {"arguments": piece} | ({"name": name} if known else {})
            chunks.append(delta(tool_calls=[{**at, **known, "function": function}]))
        whole.append({**at, **about, "function": {"name": name, "arguments": text}})
    last: dict[str, Any] = delta("tool_calls")
    match draw(st.sampled_from(["nothing", "delta", "message"])):
        case "delta":
            last = delta("tool_calls", tool_calls=whole)
        case "message":
            message = {"content": None, "tool_calls": whole}
            last = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    return calls, [*chunks, last]


@given(odd_streams(), st.integers(1, 60))
def test_calls_are_the_same_whatever_the_habits_of_a_server(
    said: tuple[list[tuple[str, Any]], list[dict[str, Any]]], size: int
) -> None:
    calls, chunks = said
    completion = streamed(events(*chunks), size=size)

    assert plain(completion.tool_calls) == calls
    assert completion.finish_reason == "tool_calls"
    assert [call.id for call in completion.tool_calls] == [f"c{number}" for number in range(len(calls))]


@given(odd_streams(), st.data())
def test_a_stream_that_is_cut_gives_whole_calls_or_an_error(
    said: tuple[list[tuple[str, Any]], list[dict[str, Any]]], data: st.DataObject
) -> None:
    calls, chunks = said
    content = events(*chunks)
    try:
        completion = streamed(content[: data.draw(st.integers(0, len(content)))])
    except ModelError:
        return
    assert plain(completion.tool_calls) == calls


def test_the_older_form_is_one_call() -> None:
    chunks = [
        delta(function_call={"name": "f", "arguments": '{"x"'}),
        delta(function_call={"arguments": ": 1}"}),
        delta("function_call"),
    ]
    completion = streamed(events(*chunks))
    assert (plain(completion.tool_calls), completion.finish_reason) == ([("f", {"x": 1})], "tool_calls")

    both: dict[str, Any] = {"tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]}
    both |= {"function_call": {"name": "f", "arguments": "{}"}}
    body = {"choices": [{"index": 0, "message": {"content": None, **both}, "finish_reason": "tool_calls"}]}
    whole = CHAT.decode(json.dumps(body).encode(), ResponseHead("p", 200, {}))
    assert plain(whole.tool_calls) == [("f", {})]


def test_an_answer_whose_calls_do_not_come_is_not_whole() -> None:
    completion = streamed(events(delta(content="Hi"), delta("tool_calls")))
    assert (completion.content, completion.tool_calls, completion.finish_reason) == ("Hi", (), "other")


@pytest.mark.parametrize("text", ["{x: 1}", "no JSON", '{"x": 1', "[1]", "\\ud83d"])
def test_arguments_that_are_no_json_stay_as_the_model_wrote_them(text: str) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": text}}
    (found,) = streamed(events(delta(tool_calls=[call]), delta("tool_calls"))).tool_calls
    assert found.arguments == text.replace("\\ud83d", "\\ufffd")


def test_half_characters_in_two_pieces_of_arguments_are_one() -> None:
    first = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"x": "FIRST'}}
    second = {"index": 0, "function": {"arguments": 'SECOND"}'}}
    chunks = [delta(tool_calls=[first]), delta(tool_calls=[second]), delta("tool_calls")]
    body = bytes(events(*chunks)).replace(b"FIRST", rb"\ud83d").replace(b"SECOND", rb"\ude00")
    assert plain(streamed(body).tool_calls) == [("f", {"x": "\U0001f600"})]


def many(dialect: str, count: int) -> bytes:
    """A stream of so many calls."""
    given = [(f"c{number}", {"x": number}) for number in range(count)]
    chunks: list[Any] = []
    match dialect:
        case "openai":
            for number, (name, x) in enumerate(given):
                call = {"index": number, "id": name, "function": {"name": "f", "arguments": json.dumps(x)}}
                chunks.append(delta(tool_calls=[call]))
            chunks.append(delta("tool_calls"))
        case "openai_responses":
            for name, x in given:
                item = {"type": "function_call", "call_id": name, "name": "f", "arguments": json.dumps(x)}
                chunks.append({"type": "response.output_item.done", "item": item})
            chunks.append({"type": "response.completed", "response": {"status": "completed"}})
        case "anthropic":
            for number, (name, x) in enumerate(given):
                block = {"type": "tool_use", "id": name, "name": "f", "input": {}}
                chunks.append({"type": "content_block_start", "index": number, "content_block": block})
                piece = {"type": "input_json_delta", "partial_json": json.dumps(x)}
                chunks.append({"type": "content_block_delta", "index": number, "delta": piece})
            chunks.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}})
        case "gemini":
            for name, x in given:
                parts = [{"functionCall": {"name": "f", "id": name, "args": x}}]
                chunks.append({"candidates": [{"content": {"parts": parts}}]})
            chunks.append({"candidates": [{"finishReason": "STOP"}]})
        case _:
            for name, x in given:
                call = {"id": name, "function": {"name": "f", "arguments": x}}
                chunks.append({"message": {"tool_calls": [call]}})
            chunks.append({"done": True, "done_reason": "stop"})
    return events(*chunks)


def steps(dialect: str, count: int) -> int:
    """How many functions are called to read so many calls."""
    content = many(dialect, count)
    called = 0

    def count_call(_frame: object, _event: str, _argument: object) -> None:
        nonlocal called
        called += 1

    sys.setprofile(count_call)
    try:
        completion = streamed(content, DIALECTS[dialect], 65_536)
    finally:
        sys.setprofile(None)
    assert plain(completion.tool_calls) == [("f", {"x": number}) for number in range(count)]
    return called


@pytest.mark.parametrize("dialect", DIALECTS)
def test_thousands_of_calls_take_steps_in_proportion(dialect: str) -> None:
    assert steps(dialect, 4000) < 2.2 * steps(dialect, 2000)
