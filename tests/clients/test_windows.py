"""Context windows: known by the catalog, told by the caller, and asked for at Ollama."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from ultra.clients import HTTPClient, connect
from ultra.errors import BadCall, ModelError

KEY = "test-key-0123456789"


class Ollama(httpx.AsyncBaseTransport):
    """Reads at most `window` tokens of a prompt, four characters each."""

    def __init__(self, window: int = 10**9) -> None:
        self.window = window
        self.options: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        payload = json.loads(request.content)
        self.options.append(payload.get("options") or {})
        tokens = sum(len(message["content"]) for message in payload["messages"]) // 4
        done = {"done": True, "done_reason": "stop", "prompt_eval_count": min(tokens, self.window)}
        return httpx.Response(200, json={"message": {"content": "4"}, **done})


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("openai:gpt-4o-mini", 128_000),
        ("openai:gpt-4", 8_192),
        ("openai:gpt-4-0613", 8_192),
        ("openai:gpt-4.1-nano", 1_047_576),
        ("openai:o3-mini", 200_000),
        ("anthropic:claude-sonnet-4-5", 200_000),
        ("gemini:models/gemini-2.5-flash", 1_048_576),
        ("openrouter:anthropic/claude-sonnet-4", 200_000),
        ("openrouter:google/gemini-2.5-pro", 1_048_576),
        ("ollama:llama3.2", 32_768),
        ("openai:something-new", None),
        ("vllm:Qwen/Qwen3-8B", None),
    ],
)
def test_the_catalog_knows_the_windows_of_hosted_models(name: str, window: int | None) -> None:
    assert connect(name, api_key=KEY).context_window == window
    assert connect(name, api_key=KEY, context_window=5_000).context_window == 5_000


@pytest.mark.parametrize("window", [0, -1, "8k", 1.5, True])
def test_a_window_is_a_number_of_tokens(window: object) -> None:
    with pytest.raises(BadCall, match="context_window"):
        connect("vllm:m", context_window=window)


@pytest.mark.parametrize(
    ("words", "told", "asked"),
    [
        (10, None, None),
        (4_000, None, 8_192),
        (9_000, None, 16_384),
        (40_000, None, 32_768),
        (10, 2_000, 2_000),
    ],
)
async def test_ollama_is_asked_for_a_window_that_holds_the_prompt(
    words: int, told: int | None, asked: int | None
) -> None:
    server = Ollama()
    await connect("ollama:m", transport=server, context_window=told).generate("word " * words)
    assert server.options[0].get("num_ctx") == asked


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_a_prompt_that_the_server_cut_is_told(*, stream: bool) -> None:
    client = connect("ollama:m", transport=Ollama(window=2_050))
    ask = _read if stream else type(client).generate
    with pytest.raises(ModelError, match=r"cut the prompt: it read 2050 tokens of about \d+") as caught:
        await ask(client, "word " * 20_000)
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)
    assert (await client.generate("word " * 1_000)).content == "4"


async def _read(client: HTTPClient, prompt: str) -> None:
    async with client.stream(prompt) as pieces:
        async for _ in pieces:
            pass
