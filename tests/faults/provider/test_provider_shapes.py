"""What the simulated provider sends has the shape of what real providers were recorded to send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from helpers.paths import NO_RECORDINGS, WIRE
from ultra.faults.provider import Failure, Reply, SimulatedProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not WIRE.exists(), reason=NO_RECORDINGS)

DIALECTS = {
    "openai-chat": "openai",
    "anthropic-messages": "anthropic",
    "gemini-generate": "gemini",
    "ollama-chat": "ollama",
}

KINDS = ("text", "stream", "error")

DOCUMENTED = {
    "gemini": {"candidates[].content.parts[].thought: boolean"},
    "ollama": {"message.thinking: string"},
    "anthropic": {  # recorded in a plain answer alone
        "message.usage.output_tokens_details: object",
        "message.usage.output_tokens_details.thinking_tokens: number",
        "usage.output_tokens_details: object",
        "usage.output_tokens_details.thinking_tokens: number",
    },
}
"""What the providers' documentation has, and no recording happens to have."""

every_kind = pytest.mark.parametrize(
    ("protocol", "kind"), [(protocol, kind) for protocol in DIALECTS.values() for kind in KINDS]
)


@every_kind
async def test_nothing_is_sent_that_no_real_provider_sends(
    provider: SimulatedProvider, protocol: str, kind: str
) -> None:
    recorded = set().union(*_recorded(protocol, kind))
    if protocol == "gemini" and kind != "error":  # its chunks have the form of whole answers
        recorded |= set().union(*_recorded(protocol, "text"), *_recorded(protocol, "stream"))

    assert recorded
    assert await _sent(provider, protocol, kind) - recorded - DOCUMENTED.get(protocol, set()) == set()


@every_kind
async def test_what_every_recording_has_is_sent(
    provider: SimulatedProvider, protocol: str, kind: str
) -> None:
    sent = _names(await _sent(provider, protocol, kind))

    always = set.intersection(*map(_names, _recorded(protocol, kind)))
    assert always - sent == set()


async def _sent(provider: SimulatedProvider, protocol: str, kind: str) -> set[str]:
    """The shape of what the provider sends for answers of many sorts."""
    replies: list[Reply | Failure] = [
        Reply("It is 4."),
        Reply("It is 4.", reasoning="Let me count.", cached=2),
        Reply("one two three four five six"),
    ]
    if kind == "error":
        replies = [Failure("auth"), Failure("rate_limit", retry_after=48.0), Failure("not_found")]
    provider.script(*replies)
    shapes: set[str] = set()
    async with httpx.AsyncClient(headers=KEYS[protocol]) as client:
        for _ in replies:
            path, body = _request(protocol, stream=kind == "stream")
            response = await client.post(provider.url + path, json=body)
            for document in _documents(response.text):
                shapes |= set(_paths(document))
    return shapes


KEYS = {
    "openai": {"authorization": "Bearer k"},
    "anthropic": {"x-api-key": "k", "anthropic-version": "2023-06-01"},
    "gemini": {"x-goog-api-key": "k"},
    "ollama": {},
}


def _request(protocol: str, *, stream: bool) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": "Why?"}]
    if protocol == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        body = {
            "contents": [{"parts": [{"text": "Why?"}]}],
            "generationConfig": {"maxOutputTokens": 9},
        }
        return f"/v1beta/models/any:{method}", body
    path = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}[protocol]
    limit = {"options": {"num_predict": 9}} if protocol == "ollama" else {"max_tokens": 9}
    usage = {"stream_options": {"include_usage": True}} if protocol == "openai" and stream else {}
    return path, {"model": "any", "messages": messages, "stream": stream, **limit, **usage}


def _recorded(protocol: str, kind: str) -> list[set[str]]:
    """The shapes of the recordings of one protocol and kind."""
    shapes = []
    for path in sorted(WIRE.glob("re*/*.json")):
        exchange = json.loads(path.read_text())
        if "response" not in exchange or DIALECTS[exchange["dialect"]] != protocol:
            continue
        response = exchange["response"]
        found = "error" if response["status"] >= 400 else "stream" if "stream" in exchange["id"] else "text"
        if found == kind:
            documents = _documents(response["body"])
            shapes.append({shown for document in documents for shown in _paths(document)})
    return shapes


def _names(shape: set[str]) -> set[str]:
    """The paths in a shape, without their types."""
    return {path.partition(":")[0] for path in shape}


def _documents(body: str) -> Iterator[Any]:
    """Every JSON document in a body: the whole of it, its events, or its lines."""
    try:
        yield json.loads(body)
    except ValueError:
        for line in body.split("\n"):
            text = line.removeprefix("data:").strip()
            if text.startswith("{"):
                yield json.loads(text)


def _paths(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all fields, with the type of what they hold."""
    if isinstance(value, dict):
        if path:
            yield f"{path}: object"
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        yield f"{path}: array"
        for inner in value:
            yield from _paths(inner, f"{path}[]")
    else:
        names = {str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
        yield f"{path}: {names[type(value)]}"
