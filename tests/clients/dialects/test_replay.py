from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.byte_server import fixed, serve
from helpers.recording_checks import FRAMINGS, KEY, check
from helpers.recordings import Recording, recordings
from ultra.clients import AnthropicClient, GeminiClient, OllamaClient, OpenAIClient

if TYPE_CHECKING:
    import trio

CLIENTS = {
    "openai-chat": (OpenAIClient, "/v1", "/v1/chat/completions"),
    "anthropic-messages": (AnthropicClient, "", "/v1/messages"),
    "gemini-generate": (GeminiClient, "", "/v1beta/models/m:"),
    "ollama-chat": (OllamaClient, "", "/api/chat"),
}


@pytest.mark.parametrize(("piece", "chunked"), FRAMINGS)
@pytest.mark.parametrize("recording", recordings())
async def test_an_exchange_gives_what_is_expected_of_it(
    nursery: trio.Nursery, recording: Recording, *, piece: int | None, chunked: bool
) -> None:
    answer = fixed(recording.status, recording.headers, recording.body, piece=piece, chunked=chunked)
    server = await serve(nursery, answer)
    kind, root, path = CLIENTS[recording.dialect]
    client = kind("m", provider=recording.provider, base_url=f"{server.url}{root}", api_key=KEY)
    await check(client, recording)
    await client.aclose()
    assert len(server.requests) == 1
    assert server.requests[0].target.startswith(path)
