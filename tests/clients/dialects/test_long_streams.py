"""Streams of very many small pieces, whatever they say: each piece costs the same."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from ultra._support.cooperative import run_at_once
from ultra.clients.dialects.anthropic import AnthropicMessages
from ultra.clients.dialects.gemini import GeminiGenerate
from ultra.clients.dialects.ollama import OllamaChat
from ultra.clients.dialects.openai_chat import OpenAIChat
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.wire.event_streams import EventSplitter
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.clients.dialects.base import Dialect

SIZE: Final = 40_000

MOST: Final = 4.0
"""Seconds of the processor. Where each piece costs as much as all before it, these are more than five."""

Given = dict[str, Any]


def _delta(delta: Given, **more: object) -> Given:
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def _call(arguments: str, **more: object) -> Given:
    return _delta({"tool_calls": [{"function": {"name": "f", "arguments": arguments}, **more}]})


def _said(text: str, **more: object) -> Given:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, **more}]}


def _block(kind: str, **more: object) -> Given:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **more}}


PIECES: Final[dict[str, tuple[type[Dialect], list[Given], Callable[[int], Given]]]] = {
    "text behind the finish reason": (
        OpenAIChat,
        [_delta({"content": "so much"}), _delta({"content": " for that"}, finish_reason="stop")],
        lambda _: _delta({"content": "x" * 20}),
    ),
    "many choices behind it": (
        OpenAIChat,
        [_delta({"content": "so much"}, finish_reason="stop")],
        lambda _: {"choices": [{"index": 0, "delta": {"content": "x"}}] * 3},
    ),
    "thoughts behind it": (
        OpenAIChat,
        [_delta({"content": "so much"}, finish_reason="stop")],
        lambda _: _delta({"content": [{"type": "thinking", "thinking": "x" * 20}]}),
    ),
    "a long call that is repeated": (
        OpenAIChat,
        [_call("{" + " " * 200_000 + "}", index=0, id="c")],
        lambda _: _call("{}", index=0, id="c"),
    ),
    "a long call that is repeated under other indexes": (
        OpenAIChat,
        [_call("{" + " " * 200_000 + "}", index=0, id="c")],
        lambda number: _call("{}", index=number, id="c"),
    ),
    "absurd indexes": (OpenAIChat, [], lambda number: _call("{}", index=number - 10**18)),
    "Gemini's text behind the finish reason": (
        GeminiGenerate,
        [_said("so much"), _said(" for that", finishReason="STOP")],
        lambda _: _said("x" * 20),
    ),
    "counts under new names": (
        AnthropicMessages,
        [],
        lambda number: {"type": "message_delta", "delta": {}, "usage": {f"n{number}": 1, "output_tokens": 2}},
    ),
    "starts of blocks": (
        AnthropicMessages,
        [],
        lambda n: {
            "type": "content_block_start",
            "index": n,
            "content_block": {"type": "tool_use", "id": f"t{n}", "name": "f", "input": {}},
        },
    ),
    "pieces of arguments": (AnthropicMessages, [], lambda _: _block("input_json_delta", partial_json="x")),
    "items": (
        OpenAIResponses,
        [],
        lambda n: {
            "type": "response.output_item.done",
            "item": {"type": "function_call", "call_id": f"c{n % 2}", "name": "f", "arguments": "{}"},
        },
    ),
    "answers that are in progress": (
        OpenAIResponses,
        [],
        lambda _: {"type": "response.completed", "response": {"status": "in_progress", "output": []}},
    ),
    "lines": (OllamaChat, [], lambda _: {"message": {"content": "x" * 20, "thinking": "y" * 20}}),
}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_costs_the_same_however_many_came_before(name: str) -> None:
    kind, first, make = PIECES[name]
    written = [msgspec.json.encode(each) for each in (*first, *map(make, range(SIZE)))]
    if kind is OllamaChat:
        body = b"".join(each + b"\n" for each in written)
    else:
        body = b"".join(b"data: " + each + b"\n\n" for each in written)
    decoder = kind("m", provider="p", base_url="https://api.example.org/v1").decoder(
        ResponseHead("p", 200, {})
    )
    began = time.process_time()
    for at in range(0, len(body), 65_536):
        for _ in decoder.feed(body[at : at + 65_536]):
            pass
    try:
        for _ in decoder.flush():
            pass
        decoder.completion()
    except ModelError:
        pass  # most of these streams never end as one should
    assert time.process_time() - began < MOST


def test_a_message_that_is_repeated_at_the_end_is_left_out_and_one_that_begins_alike_is_not() -> None:
    def told(*chunks: Given) -> str:
        decoder = OpenAIChat("m", provider="p", base_url="https://api.example.org").decoder(
            ResponseHead("p", 200, {})
        )
        body = b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in chunks)
        return "".join(decoder.feed(body + b"data: [DONE]\n\n"))

    begun = _delta({"content": "seven "}), _delta({"content": "words"})
    assert told(*begun, _delta({"content": "seven words"}, finish_reason="stop")) == "seven words"
    assert told(*begun, _delta({"content": "seven words!"}, finish_reason="stop")) == "seven words!"
    assert told(*begun, _delta({"content": "seven w"}, finish_reason="stop")) == "seven wordsseven w"
    assert told(*begun, _delta({"content": "seven"}, finish_reason="stop")) == "seven wordsseven"


@pytest.mark.parametrize("kind", [OpenAIChat, AnthropicMessages, GeminiGenerate, OllamaChat, OpenAIResponses])
def test_content_of_many_levels_with_one_odd_type_is_refused_or_read_at_once(kind: type[Dialect]) -> None:
    levels = 150
    part = b'{"type":"thinking","thinking":[' * levels + b'{"text":5,"thinking":"%s"}' % (b"x" * 2_000_000)
    content = part + b"]}" * levels
    body = b'{"choices":[{"message":{"content":[%s]}}],"content":[%s],"message":{"content":[%s]}}' % (
        (content,) * 3
    )
    dialect = kind("m", provider="p", base_url="https://api.example.org/v1")
    began = time.process_time()
    with suppress(ModelError):
        run_at_once(dialect.decode_whole(body, ResponseHead("p", 200, {})))
    assert time.process_time() - began < MOST


@pytest.mark.parametrize("line", [b"data: ab", b"data:", b"error: ab", b"data: \xff"])
def test_an_event_of_many_lines_is_as_it_was_sent(line: bytes) -> None:
    splitter = EventSplitter()
    field, _, value = line.partition(b":")
    (event,) = splitter.feed((line + b"\n") * 3 + b"\n")
    assert event.data == b"\n".join([value.strip()] * 3)
    assert event.name == ("error" if field == b"error" else "message")
    assert splitter.feed(b"\n\n") == []
