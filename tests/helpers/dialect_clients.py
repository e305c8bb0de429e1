"""A client of each dialect at the simulated provider, and one answer of it, plain or streamed."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx
from msgspec.structs import replace

from ultra.clients import HTTPClient, connect
from ultra.clients.catalog import Facts
from ultra.clients.dialects.openai_responses import OpenAIResponses
from ultra.errors import ModelError
from ultra.messages.results import Completion, ModelResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.faults.provider import Question, SimulatedProvider
    from ultra.messages.chat import ChatMessage
    from ultra.messages.request import ModelRequest

DIALECTS = ("openai", "openai_responses", "anthropic", "gemini", "ollama")


def dialect_client(provider: SimulatedProvider, dialect: str, *, model: str = "any") -> HTTPClient:
    """The client of a dialect; the Responses API is spoken directly: only some models need it."""
    url = provider.base_url(dialect)
    if dialect == "openai_responses":
        responses = OpenAIResponses(model, provider="openai", base_url=url)
        return HTTPClient(responses, api_key="k", info=Facts(output="schema"))
    client = connect(f"{dialect}:{model}", base_url=url, api_key="k", output="schema")
    assert isinstance(client, HTTPClient)
    return client


async def answer(client: HTTPClient, request: ModelRequest, *, stream: bool) -> Completion:
    """The answer to a request; the pieces of a stream must be its text."""
    if not stream:
        return await client.respond(request)
    pieces: list[str] = []
    async with client.stream_response(request) as answered:
        async for piece in answered:
            if isinstance(piece, Completion):
                assert "".join(pieces) == piece.content
                return piece
            pieces.append(piece)
    raise AssertionError("the stream had no completion")


async def posted_by(
    make: Callable[..., HTTPClient], request: ModelRequest, *, stream: bool, **settings: Any
) -> Any:
    """The JSON that a client posts for `request`."""
    posted: list[bytes] = []

    def refuse(received: httpx.Request) -> httpx.Response:
        posted.append(received.content)
        return httpx.Response(400)

    client = make(transport=httpx.MockTransport(refuse), **settings)
    with suppress(ModelError):
        if stream:
            await anext(client.stream_response(request))
        else:
            await client.respond(request)
    await client.aclose()
    (content,) = posted
    return json.loads(content)


def turn_of(completion: Completion) -> ChatMessage:
    """What a conversation goes on with after this answer."""
    response = ModelResponse(
        model_name="m",
        stage="initial",
        content=completion.content,
        tool_calls=completion.tool_calls,
        reasoning_parts=completion.reasoning_parts,
    )
    return response.message


def going_on(request: ModelRequest, *messages: ChatMessage) -> ModelRequest:
    """The request of the next turn."""
    return replace(request, messages=(*request.messages, *messages))


def last_question(provider: SimulatedProvider) -> Question:
    """What the provider read in the last request."""
    question = provider.requests[-1].question
    assert question is not None
    return question
