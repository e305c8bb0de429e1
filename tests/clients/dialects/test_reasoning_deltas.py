"""Reasoning in recorded streams: it comes while it is written, before the text, and is that of the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from helpers.paths import NO_RECORDINGS
from helpers.recordings import Recording, load
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.clients.wire.response_head import ResponseHead
from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import ReasoningDelta, joined_reasoning
from ultra.messages.results import Completion

CLIENTS: dict[str, Callable[..., HTTPClient]] = {
    "openai-chat": OpenAIClient,
    "anthropic-messages": AnthropicClient,
    "gemini-generate": GeminiClient,
    "ollama-chat": OllamaClient,
}


def streams_with_reasoning() -> list[Any]:
    found = [
        pytest.param(each, id=each.name)
        for each in load()
        if each.streamed and each.status == 200 and each.expect.get("reasoning_text")
    ]
    absent = pytest.mark.skip(reason=NO_RECORDINGS)
    return found or [pytest.param(None, id="absent", marks=absent)]


def client_of(recording: Recording) -> HTTPClient:
    return CLIENTS[recording.dialect]("m", provider=recording.provider, base_url="http://127.0.0.1:1/v1")


def read(client: HTTPClient, body: bytes, head: ResponseHead, size: int) -> tuple[list[str], Completion]:
    """The pieces of a stream that comes in slices of so many bytes, and the whole answer."""
    decoder = client.dialect.decoder(head)
    pieces: list[str] = []
    for begin in range(0, len(body), size):
        pieces += decoder.feed(body[begin : begin + size])
    pieces += decoder.flush()
    return pieces, decoder.completion()


@pytest.mark.parametrize("size", [7, 100_000])
@pytest.mark.parametrize("recording", streams_with_reasoning())
def test_recorded_reasoning_comes_before_the_text(recording: Recording, size: int) -> None:
    head = ResponseHead(recording.provider, recording.status, dict(recording.headers))
    pieces, completion = read(client_of(recording), recording.body, head, size)

    told = [piece for piece in pieces if piece or isinstance(piece, ReasoningDelta)]
    kinds = ["text" if piece else "reasoning" for piece in told]
    assert kinds == sorted(kinds), "reasoning behind the text"
    thoughts = joined_reasoning(piece.part for piece in told if isinstance(piece, ReasoningDelta))
    assert "".join(part.text for part in thoughts) == completion.reasoning
    sealed = [part for part in completion.reasoning_parts if part.text or part.encrypted]
    assert [part for part in thoughts if part.signature or part.encrypted] == sealed


def stream(*events: str) -> bytes:
    return "".join(f"data: {event}\n\n" for event in events).encode()


def deltas(pieces: list[str]) -> list[ReasoningPart]:
    return [piece.part for piece in pieces if isinstance(piece, ReasoningDelta)]


def head() -> ResponseHead:
    return ResponseHead("openai", 200, {"content-type": "text/event-stream"})


def test_anthropics_redacted_thinking_is_a_block_of_its_own() -> None:
    client = AnthropicClient("m", provider="anthropic", base_url="http://127.0.0.1:1")
    body = stream(
        '{"type":"message_start","message":{"content":[]}}',
        '{"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"x1"}}',
        '{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":""}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"One "}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"thinking_delta","thinking":"and one."}}',
        '{"type":"content_block_delta","index":1,"delta":{"type":"signature_delta","signature":"s1"}}',
        '{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"2"}}',
        '{"type":"message_delta","delta":{"stop_reason":"end_turn"}}',
        '{"type":"message_stop"}',
    )
    pieces, completion = read(client, body, head(), 50)
    assert joined_reasoning(deltas(pieces)) == [
        ReasoningPart("", "anthropic", encrypted="x1"),
        ReasoningPart("One and one.", "anthropic", signature="s1"),
    ]
    assert tuple(joined_reasoning(deltas(pieces))) == completion.reasoning_parts


def test_summaries_of_the_responses_api_end_with_the_encrypted_form() -> None:
    client = HTTPClient(OpenAIResponses("m", provider="openai", base_url="http://127.0.0.1:1/v1"))
    reasoning = (
        '{"type":"reasoning","id":"rs_1","encrypted_content":"e1","summary":'
        '[{"type":"summary_text","text":"One."},{"type":"summary_text","text":"Two."}]}'
    )
    body = stream(
        '{"type":"response.reasoning_summary_part.added","item_id":"rs_1","summary_index":0}',
        '{"type":"response.reasoning_summary_text.delta","item_id":"rs_1","summary_index":0,"delta":"One."}',
        '{"type":"response.reasoning_summary_part.added","item_id":"rs_1","summary_index":1}',
        '{"type":"response.reasoning_summary_text.delta","item_id":"rs_1","summary_index":1,"delta":"Two."}',
        f'{{"type":"response.output_item.done","item":{reasoning}}}',
        '{"type":"response.output_text.delta","delta":"2"}',
        f'{{"type":"response.completed","response":{{"status":"completed","output":[{reasoning}]}}}}',
    )
    pieces, completion = read(client, body, head(), 50)
    assert joined_reasoning(deltas(pieces)) == [
        ReasoningPart("One.\n\nTwo.", "openai", encrypted="e1", id="rs_1")
    ]
    assert tuple(joined_reasoning(deltas(pieces))) == completion.reasoning_parts


def test_raw_reasoning_of_the_responses_api_is_told_too() -> None:
    client = HTTPClient(OpenAIResponses("m", provider="openai", base_url="http://127.0.0.1:1/v1"))
    body = stream(
        '{"type":"response.reasoning_text.delta","item_id":"rs_1","content_index":0,"delta":"Hm."}',
        '{"type":"response.output_text.delta","delta":"2"}',
        '{"type":"response.completed","response":{"status":"completed","output":[]}}',
    )
    pieces, _ = read(client, body, head(), 50)
    assert deltas(pieces) == [ReasoningPart("Hm.", "openai")]


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_whole_answer_in_place_of_a_stream_tells_its_reasoning_first(name: str) -> None:
    client = OpenAIClient("m", provider="openai", base_url="http://127.0.0.1:1/v1")
    body = (
        f'{{"choices":[{{"index":0,"finish_reason":"stop","message":{{"content":"2","{name}":"Hm."}}}}]}}'
    ).encode()
    pieces, _ = read(client, body, ResponseHead("openai", 200, {"content-type": "application/json"}), 50)
    assert [piece.part.text if isinstance(piece, ReasoningDelta) else piece for piece in pieces] == [
        "Hm.",
        "2",
    ]
