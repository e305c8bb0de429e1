"""Whatever a server sends while its model is at work keeps a streamed call alive, in every dialect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ultra import MultiLLMOrchestrator, Timeouts
from ultra.clients import (
    AnthropicClient,
    GeminiClient,
    HTTPClient,
    OllamaClient,
    OpenAIClient,
)
from ultra.clients.dialects.openai_responses import OpenAIResponses

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock


def responses_client(model: str, *, provider: str, base_url: str, **settings: Any) -> HTTPClient:
    return HTTPClient(OpenAIResponses(model, provider=provider, base_url=base_url), **settings)


def events(*payloads: Any) -> list[bytes]:
    return [b"data: %s\n\n" % json.dumps(each).encode() for each in payloads]


def lines(*payloads: Any) -> list[bytes]:
    return [b"%s\n" % json.dumps(each).encode() for each in payloads]


def _delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def _block(**delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": delta}


_DONE = {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": "stop"}]}

_RESPONSE = events(
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "4"},
    {
        "type": "response.completed",
        "response": {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "4"}]}],
        },
    },
)

# What a server sends in place of text, and how it ends with the text "4".
SIGNS: dict[str, tuple[Callable[..., HTTPClient], list[bytes], list[bytes]]] = {
    "reasoning": (OpenAIClient, events(_delta(reasoning_content="hm")), events(_DONE)),
    "arguments of a tool call": (
        OpenAIClient,
        events(_delta(tool_calls=[{"index": 0, "function": {"arguments": "{"}}])),
        events(_DONE),
    ),
    "a comment": (OpenAIClient, [b": PROCESSING\n\n"], events(_DONE)),
    "thinking": (
        AnthropicClient,
        events(_block(type="thinking_delta", thinking="hm")),
        events(
            _block(type="text_delta", text="4"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    ),
    "a ping": (
        AnthropicClient,
        events({"type": "ping"}),
        events(
            _block(type="text_delta", text="4"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    ),
    "a thought": (
        GeminiClient,
        events({"candidates": [{"content": {"parts": [{"text": "hm", "thought": True}]}}]}),
        events({"candidates": [{"content": {"parts": [{"text": "4"}]}, "finishReason": "STOP"}]}),
    ),
    "arguments of Anthropic": (
        AnthropicClient,
        events(_block(type="input_json_delta", partial_json="{")),
        events(
            _block(type="text_delta", text="4"),
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ),
    ),
    "reasoning of the Responses API": (
        responses_client,
        events({"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"}),
        _RESPONSE,
    ),
    "arguments of the Responses API": (
        responses_client,
        events({"type": "response.function_call_arguments.delta", "output_index": 0, "delta": "{"}),
        _RESPONSE,
    ),
    "a queue of the Responses API": (
        responses_client,
        events({"type": "response.queued", "response": {"id": "r", "status": "queued"}}),
        _RESPONSE,
    ),
    "thinking of Ollama": (
        OllamaClient,
        lines({"message": {"content": "", "thinking": "hm"}}),
        lines({"message": {"content": "4"}, "done": True, "done_reason": "stop"}),
    ),
}


class Slow(httpx.AsyncBaseTransport):
    """Sends one sign a second, twenty times, then the answer."""

    def __init__(self, signs: list[bytes], answer: list[bytes]) -> None:
        self.signs, self.answer = signs, answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=_Pieces(self))


class _Pieces(httpx.AsyncByteStream):
    def __init__(self, slow: Slow) -> None:
        self.slow = slow

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(20):
            await trio.sleep(1)
            for sign in self.slow.signs:
                yield sign
        for piece in self.slow.answer:
            yield piece


@pytest.mark.parametrize("name", list(SIGNS))
async def test_signs_of_life_move_the_clocks_of_a_stream(name: str, autojump_clock: MockClock) -> None:
    kind, signs, answer = SIGNS[name]
    client = kind("m", provider="p", base_url="http://127.0.0.1:1", transport=Slow(signs, answer))
    orchestrator = MultiLLMOrchestrator(
        max_retries=0, timeouts=Timeouts(first_token=3, idle=3, attempt=100), cache_enabled=False
    )
    orchestrator.register_model("m", client)

    async with orchestrator, orchestrator.stream_responses("Q?", stages=["initial"]) as run:
        async for _ in run:
            pass
        result = await run.result()

    answered = result.initial_responses["m"]
    assert str(answered) == "4"
    assert answered.time_to_first_token == pytest.approx(20), "a sign of life is no text"


async def test_a_stream_of_generate_hands_out_text_alone(autojump_clock: MockClock) -> None:
    kind, signs, answer = SIGNS["thinking"]
    client = kind("m", provider="p", base_url="http://127.0.0.1:1", transport=Slow(signs, answer))

    async with client.stream("Q?") as stream:
        assert [piece async for piece in stream if isinstance(piece, str)] == ["4"]
