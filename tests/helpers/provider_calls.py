"""Asking a simulated provider with Ultra's own clients."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ultra.clients import HTTPClient, connect
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.errors import ModelError
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from ultra.faults.provider import SimulatedProvider

PROTOCOLS = ("openai", "openai_responses", "anthropic", "gemini", "ollama")

KEY = "sk-a-key-that-must-not-be-seen"


def client_of(
    provider: SimulatedProvider, protocol: str, *, model: str = "any", key: str | None = KEY, **options: Any
) -> HTTPClient:
    url = provider.base_url(protocol)
    if protocol == "openai_responses":  # only some models of OpenAI are asked so
        return HTTPClient(OpenAIResponses(model, provider=protocol, base_url=url), api_key=key, **options)
    client = connect(f"{protocol}:{model}", base_url=url, api_key=key, **options)
    assert isinstance(client, HTTPClient)
    return client


async def ask(
    provider: SimulatedProvider,
    protocol: str,
    prompt: str = "Why?",
    *,
    stream: bool = False,
    **options: Any,
) -> Completion:
    """One answer, from a client of its own."""
    pieces: list[str] = []
    last = await listen(provider, protocol, prompt, pieces, stream=stream, **options)
    assert not stream or "".join(pieces) == last.content
    return last


async def fail(
    provider: SimulatedProvider, protocol: str, *, stream: bool = False, **options: Any
) -> tuple[ModelError, str]:
    """The error of one call, and the text that came before it."""
    pieces: list[str] = []
    try:
        await listen(provider, protocol, "Why?", pieces, stream=stream, **options)
    except ModelError as error:
        return error, "".join(pieces)
    raise AssertionError("the call succeeded")


async def listen(
    provider: SimulatedProvider,
    protocol: str,
    prompt: str,
    pieces: list[str],
    *,
    stream: bool,
    model: str = "any",
    key: str | None = KEY,
    **options: Any,
) -> Completion:
    """One answer; the text of a stream is added to `pieces` as it comes."""
    async with aclosing(client_of(provider, protocol, model=model, key=key)) as client:
        if not stream:
            return await client.generate(prompt, **options)
        async with aclosing(client.stream(prompt, **options)) as answer:
            async for piece in answer:
                if isinstance(piece, Completion):
                    return piece
                pieces.append(piece)
    raise AssertionError("the stream had no completion")
