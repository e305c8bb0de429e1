"""The way of one request from the adapter to the dialect: short, and without a change of the request."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import httpx
import pytest

import ultra
from ultra.clients import AnthropicClient, HTTPClient, OpenAIClient, RequestClient
from ultra.clients.adapter import ClientAdapter
from ultra.clients.dialects.openai_chat import OpenAIChat
from ultra.messages.request import ModelRequest, SamplingOptions

if TYPE_CHECKING:
    from ultra.clients import CallOptions
    from ultra.messages.results import Completion

SOURCE = str(Path(ultra.__file__).parent)
REQUEST = ModelRequest.of("Hi", "Be kind.", SamplingOptions(seed=7))
ANSWER = b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


class WatchedDialect(OpenAIChat):
    """Notes what it has to encode, and by whom it was called."""

    def __init__(self) -> None:
        super().__init__("m", provider="p", base_url="http://in.memory/v1")
        self.requests: list[ModelRequest] = []
        self.frames: list[str] = []

    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        self.requests.append(request)
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            code = frame.f_code
            if code.co_filename.startswith(SOURCE) or frame is sys._getframe():
                self.frames.append(code.co_qualname)
            frame = frame.f_back
        return super().encode(request, options, stream=stream)


def answering(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "application/json"}, content=ANSWER)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_reaches_the_dialect_unchanged_and_in_at_most_four_frames(*, streamed: bool) -> None:
    dialect = WatchedDialect()
    adapter = ClientAdapter(HTTPClient(dialect, transport=httpx.MockTransport(answering)), owned=True)
    pieces: list[str] = []

    completion = await adapter.call(REQUEST, on_text=pieces.append if streamed else None)
    await adapter.aclose()

    assert completion.content == "Hello"
    assert list(filter(None, pieces)) == (["Hello"] if streamed else [])
    assert [request is REQUEST for request in dialect.requests] == [True]
    assert len(dialect.frames) <= 4, dialect.frames


async def test_a_subclass_of_a_client_that_overrides_generate_is_asked_by_it() -> None:
    prompts: list[tuple[str, object]] = []

    class Logged(OpenAIClient):
        async def generate(self, prompt: str, **options: Any) -> Completion:
            prompts.append((prompt, options))
            return await super().generate(prompt, **options)

    client = Logged(
        "m", provider="p", base_url="http://in.memory/v1", transport=httpx.MockTransport(answering)
    )

    assert (await ClientAdapter(client).call(REQUEST)).content == "Hello"
    await client.aclose()
    assert prompts == [("Hi", {"system": "Be kind.", "seed": 7})]


def test_ultras_own_clients_take_requests_and_say_so() -> None:
    client: RequestClient = AnthropicClient("m", provider="anthropic", base_url="http://in.memory")

    assert isinstance(client, RequestClient)
    assert ClientAdapter(client).streams
    assert ClientAdapter(client).takes_system
