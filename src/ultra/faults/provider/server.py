"""Serve a simulated provider over HTTP, on a real socket."""

from __future__ import annotations

import logging
import socket
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.config import Config, Sockets
from hypercorn.trio import serve

from ultra.errors import BadCall
from ultra.faults.http_faults import ConnectFails
from ultra.faults.provider.app import make_app
from ultra.faults.provider.provider import SimulatedProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from ultra.faults.http_faults import HttpFaults
    from ultra.faults.provider.neutral import Respond
    from ultra.faults.rules import Seconds

__all__ = ["simulated_provider"]


@asynccontextmanager
async def simulated_provider(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    seed: int = 0,
    latency: Seconds = 0.0,
    tokens_per_second: float = inf,
    faults: HttpFaults | None = None,
    respond: Respond | None = None,
    models: Sequence[str] | None = None,
    api_key: str | None = None,
    requests_per_minute: int = 10_000,
    tokens_per_minute: int = 10_000_000,
    keep_requests: int = 1000,
) -> AsyncIterator[SimulatedProvider]:
    """Serve a provider that speaks OpenAI's two protocols, Anthropic's, Gemini's and Ollama's.

        async with simulated_provider() as provider:
            provider.script("Paris.", Failure(status=429, retry_after=2.0))
            client = connect("openai:any", base_url=provider.base_url("openai"), api_key="any")

    The server listens when the block is entered. When the block is left, all connections are closed at
    once, also in the middle of an answer. Answers are generated from `seed` and the question, unless a
    reply was scripted (`SimulatedProvider.script`) or `respond` is given.

    Args:
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        seed: decides the generated answers, the ids, and latencies out of a range.
        latency: seconds from a request to the beginning of its answer, or a range that each draws from.
        tokens_per_second: the speed of answers.
        faults: a plan whose HTTP rules are applied here, to URLs that begin with the provider's own.
        respond: decides the answers that are not scripted. An exception from it is logged, and answered
            with status 500.
        models: the only models that there are; None accepts every name.
        api_key: the only valid key; None accepts any. Only Ollama's protocol then works without one.
        requests_per_minute: the rate limit; requests beyond it fail with status 429.
        tokens_per_minute: the same for tokens, of prompts and answers together.
        keep_requests: how many `SimulatedProvider.requests` are kept.

    Raises:
        BadCall: an argument is not allowed, or the plan has ``http_connect_error``, which a server cannot do.
        OSError: the server cannot listen on the address.
        MissingExtra: the extra ``serve`` is not installed; raised by importing the package.
    """
    for rule in faults.rules if faults is not None else ():
        if isinstance(rule.fault, ConnectFails):
            raise BadCall(
                f"the rule {str(rule)!r} cannot be applied by a server: a client that sends it a request "
                "has connected already; use http_disconnect, or a FaultyTransport in the client"
            )
    provider = SimulatedProvider(
        seed=seed,
        latency=latency,
        tokens_per_second=tokens_per_second,
        faults=faults,
        respond=respond,
        models=models,
        api_key=api_key,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        keep_requests=keep_requests,
    )
    if faults is not None:
        faults.begin()
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            provider.url = await nursery.start(partial(_serve, provider, host, port))
            yield provider
        except Exception as error:  # noqa: BLE001 - raised below, without the nursery's group around it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(
    provider: SimulatedProvider, host: str, port: int, *, task_status: trio.TaskStatus[str]
) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        app = cast("Any", make_app(provider))  # Hypercorn and Starlette have each their own types for ASGI
        await serve(app, _Config(listening), task_status=_FirstOf(task_status), mode="asgi")


class _Config(Config):
    """Serves one given socket: Hypercorn leaves sockets of its own open when it fails."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__()
        self.errorlog = logging.getLogger("ultra.faults.provider.server")
        self.include_server_header = False
        self._listening = listening

    def create_sockets(self) -> Sockets:
        """Return the socket."""
        return Sockets(secure_sockets=[], insecure_sockets=[self._listening], quic_sockets=[])


class _FirstOf(trio.TaskStatus[list[str]]):
    """Passes on the first of the addresses that Hypercorn reports."""

    def __init__(self, task_status: trio.TaskStatus[str]) -> None:
        self._task_status = task_status

    def started(self, value: list[str] | None = None) -> None:
        """Pass on the address: the server listens."""
        self._task_status.started((value or [""])[0])
