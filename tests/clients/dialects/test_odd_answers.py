"""Answers as gateways and half-compatible servers send them, in every dialect."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from helpers.byte_server import events
from ultra._support.cooperative import run_at_once
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.results import Completion

OPENAI, ANTHROPIC, GEMINI, OLLAMA = (OpenAIClient, AnthropicClient, GeminiClient, OllamaClient)
KINDS = [OPENAI, ANTHROPIC, GEMINI, OLLAMA]
TYPES = ["application/json", "text/event-stream", "text/plain", "", "application/x-ndjson"]


def of(kind: Callable[..., HTTPClient], content: bytes, *, stream: bool, media_type: str = "") -> Completion:
    """Read `content` as the answer to a plain or a streamed call; the streamed text must be the answer's."""
    dialect = kind("m", provider="p", base_url="http://127.0.0.1:1").dialect
    head = ResponseHead("p", 200, {"content-type": media_type})
    if not stream:
        return run_at_once(dialect.decode_whole(content, head))
    decoder = dialect.decoder(head)
    heard = [text for begin in range(0, len(content), 5) for text in decoder.feed(content[begin : begin + 5])]
    heard += decoder.flush()
    completion = decoder.completion()
    assert "".join(heard) == completion.content
    return completion


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def block(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


def candidate(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": finish}]}


STOP = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}

WHOLE: dict[type[HTTPClient], Any] = {
    OPENAI: {"choices": [{"message": {"content": "It is 4."}, "finish_reason": "stop"}]},
    ANTHROPIC: {"content": [{"type": "text", "text": "It is 4."}], "stop_reason": "end_turn"},
    GEMINI: candidate("It is 4.", "STOP"),
    OLLAMA: {"message": {"content": "It is 4."}, "done": True, "done_reason": "stop"},
}
PIECES: dict[type[HTTPClient], list[Any]] = {
    OPENAI: [delta(content="It is "), delta(content="4."), delta("stop")],
    ANTHROPIC: [block("It is "), block("4."), STOP],
    GEMINI: [candidate("It is "), candidate("4.", "STOP")],
    OLLAMA: [
        {"message": {"content": "It is "}},
        {"message": {"content": "4."}},
        {"done": True, "done_reason": "stop"},
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("media_type", TYPES)
@pytest.mark.parametrize("stream", [False, True])
def test_bytes_come_before_media_types(kind: type[HTTPClient], media_type: str, *, stream: bool) -> None:
    whole = json.dumps(WHOLE[kind]).encode()
    done = b"data: [DONE]\n\n"
    for content in (
        events(*PIECES[kind]),
        events(*PIECES[kind]) + done,
        b"\n\n: ping\n\n" + events(*PIECES[kind]),
        b"\xef\xbb\xbf" + events(*PIECES[kind]),
        whole,
        b"\n \n" + whole,
        *([] if kind is OLLAMA and not stream else [whole + b"\n\n" + done]),
    ):
        completion = of(kind, content, stream=stream, media_type=media_type)
        assert (completion.content, completion.finish_reason) == ("It is 4.", "stop"), content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
def test_done_ends_an_answer_and_a_cut_does_not(kind: type[HTTPClient], *, stream: bool) -> None:
    unfinished = [json.loads(json.dumps(piece).replace('"STOP"', "null")) for piece in PIECES[kind][:2]]

    assert of(kind, events(*unfinished, "[DONE]"), stream=stream).content == "It is 4."
    with pytest.raises(ModelError):
        of(kind, events(*unfinished), stream=stream)
    with pytest.raises(ModelError):
        of(kind, events("[DONE]"), stream=stream)


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        (OPENAI, [delta(content="It is "), delta(content="4."), delta("stop", content="It is 4.")]),
        (OPENAI, [delta(content="It is 4."), delta("stop"), WHOLE[OPENAI]]),
        (GEMINI, [candidate("It is "), candidate("4."), candidate("It is 4.", "STOP")]),
        (OLLAMA, [*PIECES[OLLAMA][:2], WHOLE[OLLAMA]]),
        (
            ANTHROPIC,
            [
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                block("It is "),
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "text", "text": "It is "},
                },
                block("4."),
                {"type": "message_start", "message": {"content": [{"type": "text", "text": "It is 4."}]}},
                STOP,
            ],
        ),
    ],
    ids=range(5),
)
def test_what_is_repeated_is_said_once(kind: type[HTTPClient], pieces: list[Any]) -> None:
    assert of(kind, events(*pieces), stream=True).content == "It is 4."


def test_a_word_that_the_model_says_twice_stays() -> None:
    assert of(OPENAI, events(delta(content="ha"), delta("stop", content="ha")), stream=True).content == "haha"


def message(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": fields, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (OPENAI, {"choices": [{"index": "0", "message": {"content": "4"}, "finish_reason": "stop"}]}),
        (OPENAI, {"choices": [{"index": {}, "message": {"content": "4"}, "finish_reason": 13}]}),
        (OPENAI, message(content="4", refusal=False)),
        (OPENAI, message(content="4", reasoning=7, reasoning_content=[])),
        (OPENAI, message(content=["4"])),
        (OPENAI, message(content=[{"type": "output_text", "text": "4"}, 5, None])),
        (OPENAI, message(content={"type": "text", "text": "4"})),
        (OPENAI, message(content="4") | {"id": 3, "model": False, "x_groq": "?", "usage": "none"}),
        (ANTHROPIC, {"content": "4", "stop_reason": "end_turn"}),
        (ANTHROPIC, {"content": ["4"], "stop_reason": [], "stop_details": 5, "model": 1}),
        (ANTHROPIC, {"content": [{"type": "text", "text": "4"}, 7], "usage": []}),
        (GEMINI, {"candidates": [{"index": "0", "content": {"parts": ["4"]}, "finishReason": 1}]}),
        (GEMINI, {"candidates": [{"content": {"parts": [{"text": "4", "thought": 0}]}}], "modelVersion": 2}),
        (
            OLLAMA,
            {"message": {"content": "4", "thinking": False}, "done": "yes", "eval_count": {}},
        ),
    ],
    ids=range(14),
)
def test_one_odd_type_does_not_cost_the_answer(kind: type[HTTPClient], answer: Any) -> None:
    assert of(kind, json.dumps(answer).encode(), stream=False).content == "4"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "event",
    [
        b'{"detail": "insufficient balance"}',
        b'{"code": 1008, "msg": "insufficient balance"}',
        b'{"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}',
        b"Error: insufficient balance",
        b'{"error": "insufficient balance"}',
    ],
)
def test_an_error_in_an_answer_keeps_its_words(kind: type[HTTPClient], event: bytes, *, stream: bool) -> None:
    for content in (b"data: " + event + b"\n\n", events(PIECES[kind][0]) + b"data: " + event + b"\n\n"):
        with pytest.raises(ModelError, match="insufficient balance") as caught:
            of(kind, content, stream=stream)
        assert caught.value.kind == "quota"


@pytest.mark.parametrize("kind", KINDS)
def test_half_characters_are_repaired_and_joined_over_two_pieces(kind: type[HTTPClient]) -> None:
    def with_text(pieces: list[Any], first: str, second: str) -> bytes:
        return bytes(events(*pieces)).replace(b"It is ", first.encode()).replace(b"4.", second.encode())

    pieces = PIECES[kind]
    assert of(kind, with_text(pieces, r"a\ud83d", r"\ude00b"), stream=True).content == "a\U0001f600b"
    assert (
        of(kind, with_text(pieces, r"a\ude00", r"\\ud83d\u0000"), stream=True).content
        == "a\ufffd\\ud83d\ufffd"
    )
    whole = json.dumps(WHOLE[kind]).replace("It is 4.", r"four \ud83d").encode()
    assert of(kind, whole, stream=False).content == "four \ufffd" or kind is OLLAMA
    broken = json.dumps(WHOLE[kind]).encode().replace(b"It is 4.", b"four \xff")
    assert of(kind, broken, stream=False).content == "four \ufffd"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("field", "item"),
    [
        *(("usage", "[]"), ("usage", "1.5"), ("error", "{}"), ("content", "{}")),
        *(("choices", "{}"), ("candidates", "{}"), ("message", "1.5")),
    ],
)
def test_no_answer_takes_many_times_its_size(kind: type[HTTPClient], field: str, item: str) -> None:
    size = 4_000_000
    content = f'{{"{field}":[{",".join([item] * (size // (len(item) + 1)))}]}}'.encode()
    tracemalloc.start()
    try:
        with pytest.raises(ModelError) as caught:
            of(kind, content, stream=False)
        assert len(str(caught.value)) < 4_000
        assert tracemalloc.get_traced_memory()[1] < 12 * size
    finally:
        tracemalloc.stop()
