"""The provider's endpoints: an ASGI application that speaks all protocols at one address.

Starlette finds the endpoint and reads the headers of a request. It leaves the bytes of the response to us,
and faults change these bytes. A larger framework would be in the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.routing import Route

from ultra.faults.provider.anthropic import ANTHROPIC
from ultra.faults.provider.endpoint import Endpoint, Exchange
from ultra.faults.provider.gemini import GEMINI
from ultra.faults.provider.generation import count_tokens
from ultra.faults.provider.neutral import Failure
from ultra.faults.provider.ollama import OLLAMA
from ultra.faults.provider.openai import OPENAI, OPENROUTER
from ultra.faults.provider.openai_responses import OPENAI_RESPONSES
from ultra.faults.provider.protocol import Refused, decode
from ultra.faults.provider.provider import EXAMPLE_MODELS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from ultra.faults.provider.protocol import Protocol
    from ultra.faults.provider.provider import SimulatedProvider

__all__ = ["make_app"]


def make_app(provider: SimulatedProvider) -> Starlette:
    """Return the application that answers for `provider`."""

    def route(
        method: str,
        path: str,
        protocol: Protocol | None,
        serve: Callable[[Exchange], Awaitable[None]] | None = None,
    ) -> Route:
        choose = _choose if protocol is None else lambda _: protocol
        return Route(path, Endpoint(provider, choose, serve), methods=[method])

    return Starlette(
        routes=[
            route("POST", "/v1/chat/completions", OPENAI),
            route("POST", "/openai/deployments/{model:path}/chat/completions", OPENAI),
            route("POST", "/v1/responses", OPENAI_RESPONSES),
            route("POST", "/api/v1/chat/completions", OPENROUTER),
            route("GET", "/api/v1/models", OPENROUTER, _list_models),
            route("POST", "/v1/messages", ANTHROPIC),
            route("POST", "/v1/messages/count_tokens", ANTHROPIC, _count_anthropic),
            route("POST", "/{version}/models/{model:path}:generateContent", GEMINI),
            route("POST", "/{version}/models/{model:path}:streamGenerateContent", GEMINI),
            route("POST", "/{version}/models/{model:path}:countTokens", GEMINI, _count_gemini),
            route("POST", "/api/chat", OLLAMA),
            route("GET", "/api/tags", OLLAMA, _list_models),
            route("POST", "/api/show", OLLAMA, _show_ollama),
            route("GET", "/api/version", OLLAMA, _tell_version),
            route("GET", "/{version}/models", None, _list_models),
            route("GET", "/{version}/models/{model:path}", None, _show_model),
            *(route(method, "/{path:path}", None, _not_found) for method in ("GET", "POST")),
        ]
    )


def _choose(request: Request) -> Protocol:
    """Return the protocol of a request whose path belongs to several, by its headers and its key."""
    if "anthropic-version" in request.headers:
        return ANTHROPIC
    if request.url.path.startswith("/v1beta") or GEMINI.key(request):
        return GEMINI
    return OPENAI


async def _list_models(exchange: Exchange) -> None:
    names = exchange.provider.models
    query = exchange.request.query_params
    try:
        models = exchange.protocol.models(EXAMPLE_MODELS if names is None else names, query)
    except Refused as refused:
        await exchange.send_failure(refused.failure)
    else:
        await exchange.send_json(models)


async def _show_model(exchange: Exchange) -> None:
    name = exchange.request.path_params["model"]
    failure = exchange.provider.find_model(name)
    if failure is not None:
        await exchange.send_failure(failure)
    else:
        await exchange.send_json(exchange.protocol.model(name))


async def _count_anthropic(exchange: Exchange) -> None:
    await _count(exchange, "input_tokens")


async def _count_gemini(exchange: Exchange) -> None:
    await _count(exchange, "totalTokens")


async def _count(exchange: Exchange, name: str) -> None:
    try:
        question = exchange.protocol.read(exchange.request, exchange.body)
    except Refused as refused:
        await exchange.send_failure(refused.failure)
    else:
        await exchange.send_json({name: count_tokens(question)})


class _ShowRequest(Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]


_show_decoder: Final = msgspec.json.Decoder(_ShowRequest)


async def _show_ollama(exchange: Exchange) -> None:
    try:
        name = decode(_show_decoder, exchange.body).model
    except Refused as refused:
        await exchange.send_failure(refused.failure)
        return
    failure = exchange.provider.find_model(name)
    if failure is not None:
        await exchange.send_failure(failure)
        return
    about = exchange.protocol.model(name)
    more = {"modelfile": "", "template": "", "model_info": {}, "capabilities": ["completion"]}
    await exchange.send_json(about | more)


async def _tell_version(exchange: Exchange) -> None:
    await exchange.send_json({"version": "0.0.0-simulated"})


async def _not_found(exchange: Exchange) -> None:
    request = exchange.request
    await exchange.send_failure(
        Failure("not_found", message=f"Invalid URL ({request.method} {request.url.path})")
    )
