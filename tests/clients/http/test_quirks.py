"""What single providers and gateways do that their protocol does not say, over a real socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.byte_server import events, fixed, serve
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient
from ultra.errors import ModelError
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

CLIENTS: dict[str, Callable[..., HTTPClient]] = {
    "openai": OpenAIClient,
    "anthropic": AnthropicClient,
    "gemini": GeminiClient,
    "ollama": OllamaClient,
}
STREAM = "text/event-stream"


async def answer(
    nursery: trio.Nursery, dialect: str, body: bytes, content_type: str, *, stream: bool
) -> tuple[str, Completion | ModelError]:
    """The text that was handed out, and the end of it."""
    server = await serve(nursery, fixed(200, [("content-type", content_type)], body, piece=7, chunked=True))
    client = CLIENTS[dialect]("m", provider=dialect, base_url=server.url)
    texts: list[str] = []
    try:
        if not stream:
            completion = await client.generate("Hello")
            return completion.content, completion
        last = None
        async for piece in client.stream("Hello"):
            if isinstance(piece, Completion):
                last = piece
            else:
                texts.append(piece)
    except ModelError as error:
        return "".join(texts), error
    finally:
        await client.aclose()
    assert last is not None
    return "".join(texts), last


def chunk(finish: str | None = None, usage: Any = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], "usage": usage}


def lines(*objects: Any) -> bytes:
    return "".join(f"{json.dumps(each)}\n" for each in objects).encode()


COUNTS = {"prompt_tokens": 5, "completion_tokens": 3}
GEMINI_COUNTS = {
    "promptTokenCount": 5,
    "toolUsePromptTokenCount": 20,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 2,
    "totalTokenCount": 32,
}
HI = chunk(content="Hi")
STOP = chunk("stop", COUNTS)
TEXT_DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}
STREAMED: dict[str, tuple[str, bytes, dict[str, Any]]] = {
    "a comment before the first event and CRLF": (
        "openai",
        b": OPENROUTER PROCESSING\r\n\r\n" + events(HI, STOP, "[DONE]").replace(b"\n", b"\r\n"),
        {"usage": Usage(input=5, output=3), "request_id": "c1"},
    ),
    "a byte order mark": ("openai", b"\xef\xbb\xbf" + events(HI, STOP), {}),
    "Azure's chunk of filters without a choice": (
        "openai",
        events({"choices": [], "prompt_filter_results": [{}], "model": ""}, HI, STOP, "[DONE]"),
        {},
    ),
    "Moonshot's usage in the choice": (
        "openai",
        events(
            HI,
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {},
                        "finish_reason": "stop",
                        "usage": {**COUNTS, "cached_tokens": 2},
                    }
                ]
            },
            "[DONE]",
        ),
        {"usage": Usage(input=5, output=3, cached=2)},
    ),
    "DeepSeek's counts of its cache": (
        "openai",
        events(HI, chunk("stop", {**COUNTS, "prompt_cache_hit_tokens": 2, "prompt_cache_miss_tokens": 3})),
        {"usage": Usage(input=5, output=3, cached=2)},
    ),
    "reasoning under two names at once": (
        "openai",
        events(chunk(reasoning="hm", reasoning_content="hm", content=None), HI, STOP),
        {"reasoning": "hm"},
    ),
    "an empty name before the one that is used": (
        "openai",
        events(chunk(reasoning_content="", reasoning="hm"), HI, STOP),
        {"reasoning": "hm"},
    ),
    "Perplexity's whole message beside each delta": (
        "openai",
        events(
            {"choices": [{"delta": {"content": "H"}, "message": {"content": "H"}}]},
            {"choices": [{"delta": {"content": "i"}, "message": {"content": "Hi"}, "finish_reason": "stop"}]},
        ),
        {},
    ),
    "no usage but a total": ("openai", events(HI, chunk("stop", {"total_tokens": 8})), {"usage": None}),
    "an error that is none": ("openai", events({**HI, "error": None}, {**STOP, "error": {}}), {}),
    "a call of nothing behind the text": (
        "openai",
        events(HI, chunk("tool_calls", COUNTS, content=None, tool_calls=[{"index": 0}])),
        {"finish_reason": "other"},
    ),
    "pings, a signature and hidden thoughts": (
        "anthropic",
        events(
            {"type": "message_start", "message": {"usage": {"input_tokens": 5, "output_tokens": 1}}},
            {"type": "ping"},
            {"type": "content_block_start", "content_block": {"type": "redacted_thinking", "data": "x"}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
            {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": "s"}},
            TEXT_DELTA,
            {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {}}},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "pause_turn"},
                "usage": {
                    "input_tokens": 5,
                    "cache_creation_input_tokens": 7,
                    "cache_read_input_tokens": 2,
                    "output_tokens": 3,
                },
            },
            {"type": "message_stop"},
        ),
        {
            "reasoning": "hm",
            "usage": Usage(input=14, output=3, cached=2, written=7),
            "finish_reason": "length",
        },
    ),
    "events that only their name tells apart": (
        "anthropic",
        (
            b'event: content_block_delta\ndata: {"delta": {"type": "text_delta", "text": "Hi"}}\n\n'
            b'event: message_delta\ndata: {"delta": {"stop_reason": "end_turn"}}\n\n'
            b"event: message_stop\ndata: {}\n\ndata: [DONE]\n\n"
        ),
        {"finish_reason": "stop"},
    ),
    "thoughts, several parts and candidates": (
        "gemini",
        events(
            {
                "candidates": [
                    {"content": {"parts": [{"text": "hm", "thought": True}, {"text": "H"}, {"text": "i"}]}},
                    {"index": 1, "content": {"parts": [{"text": "no"}]}, "finishReason": "SAFETY"},
                ]
            },
            {"candidates": [{"index": None, "finishReason": "STOP"}], "usageMetadata": GEMINI_COUNTS},
        ),
        {"reasoning": "hm", "usage": Usage(input=25, output=7, cached=2, reasoning=4)},
    ),
    "an end for a reason of its own": (
        "gemini",
        events({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "RECITATION"}]}),
        {"finish_reason": "content_filter"},
    ),
    "no count of the prompt": (
        "ollama",
        lines({"message": {"content": "Hi"}}, {"done": True, "done_reason": "length", "eval_count": 3}),
        {"finish_reason": "length", "usage": Usage(output=3)},
    ),
    "an error that Ollama leaves empty": (
        "ollama",
        lines({"message": {"content": "Hi"}, "error": ""}, {"done": True, "done_reason": "stop"}),
        {},
    ),
}


@pytest.mark.parametrize("name", STREAMED)
async def test_a_stream_with_a_quirk_is_an_answer(nursery: trio.Nursery, name: str) -> None:
    dialect, body, expected = STREAMED[name]
    text, completion = await answer(nursery, dialect, body, STREAM, stream=True)
    assert isinstance(completion, Completion), completion
    assert (text, completion.content) == ("Hi", "Hi")
    assert {field: getattr(completion, field) for field in expected} == expected


async def test_a_stream_that_nobody_asked_for_is_an_answer(nursery: trio.Nursery) -> None:
    text, completion = await answer(nursery, "openai", events(HI, STOP, "[DONE]"), STREAM, stream=False)
    assert isinstance(completion, Completion), completion
    assert (text, completion.usage) == ("Hi", Usage(input=5, output=3))


FAILED: dict[str, tuple[str, bytes, str, str]] = {
    "OpenRouter in a choice": (
        "openai",
        events(
            HI,
            {"choices": [{"index": 0, "finish_reason": "error", "error": {"code": 429, "message": "slow"}}]},
        ),
        "rate_limit",
        "slow",
    ),
    "OpenRouter beside a choice": (
        "openai",
        events(HI, {**chunk("error", content=""), "error": {"code": 502, "message": "gone"}}),
        "server",
        "gone",
    ),
    "older vLLM": (
        "openai",
        events(HI, {"object": "error", "message": "too long", "type": "BadRequestError", "code": 400}),
        "bad_request",
        "too long",
    ),
    "Groq": ("openai", events(HI, {"choices": [], "x_groq": {"error": "over capacity"}}), "server", "over"),
    "vLLM that aborts": ("openai", events(HI, chunk("abort")), "server", "broke off: abort"),
    "Anthropic": (
        "anthropic",
        events(TEXT_DELTA, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        "overloaded",
        "Overloaded",
    ),
    "a gateway in the middle of Anthropic": (
        "anthropic",
        events(TEXT_DELTA) + b"event: error\ndata: upstream lost\n\n",
        "server",
        "upstream lost",
    ),
    "Gemini between events": (
        "gemini",
        events({"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]})
        + json.dumps({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}}, indent=2).encode(),
        "overloaded",
        "busy",
    ),
    "Gemini as an event": (
        "gemini",
        events(
            {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]},
            {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED"}},
        ),
        "rate_limit",
        "slow",
    ),
    "a gateway's page": (
        "openai",
        events(HI) + b"<html><head><title>504 Gateway Time-out</title></head></html>",
        "server",
        "504 Gateway Time-out",
    ),
    "Ollama": (
        "ollama",
        lines({"message": {"content": "Hi"}}, {"error": "model runner has unexpectedly stopped"}),
        "server",
        "model runner",
    ),
}


@pytest.mark.parametrize("name", FAILED)
async def test_an_error_in_a_stream_is_told_after_the_text(nursery: trio.Nursery, name: str) -> None:
    dialect, body, kind, message = FAILED[name]
    text, error = await answer(nursery, dialect, body, STREAM, stream=True)
    assert isinstance(error, ModelError), error
    assert (text, error.kind) == ("Hi", kind)
    assert message in error.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("dialect", "body", "kind", "message"),
    [
        ("openai", b"", "protocol", "empty"),
        ("openai", b"   \n ", "protocol", "empty"),
        ("anthropic", b'{"error": {"type": "rate_limit_error", "message": "m"}}', "rate_limit", "m"),
        ("gemini", b'[{"error": {"code": 503, "message": "busy"}}]', "overloaded", "busy"),
        ("openai", b'{"errors": [{"message": "no such account"}]}', "server", "no such account"),
        (
            "openai",
            b'{"choices": [{"error": {"code": 502, "message": "gone"}, "message": {"content": "H"}}]}',
            "server",
            "gone",
        ),
    ],
)
async def test_a_success_that_is_no_answer_says_what_came(
    nursery: trio.Nursery, dialect: str, body: bytes, kind: str, message: str, *, stream: bool
) -> None:
    text, error = await answer(nursery, dialect, body, "application/json", stream=stream)
    assert isinstance(error, ModelError), error
    assert (text, error.kind) == ("", kind)
    assert message in error.message


@pytest.mark.parametrize("dialect", CLIENTS)
async def test_json_may_start_with_a_byte_order_mark(nursery: trio.Nursery, dialect: str) -> None:
    bodies: dict[str, Any] = {
        "openai": {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
        "anthropic": {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"},
        "gemini": {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]},
        "ollama": {"message": {"content": "Hi"}, "done": True},
    }
    body = b"\xef\xbb\xbf" + json.dumps(bodies[dialect]).encode()
    text, completion = await answer(nursery, dialect, body, "application/json", stream=False)
    assert (text, completion) == ("Hi", completion)
    assert isinstance(completion, Completion)
    assert completion.finish_reason == "stop"
