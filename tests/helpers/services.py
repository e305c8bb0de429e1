"""Services of scripted models: asked through the core, or over a real socket."""

from __future__ import annotations

import json
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from ultra import MultiLLMOrchestrator, RetryPolicy
from ultra.config.serving import ServeConfig
from ultra.service.access import Caller
from ultra.service.app import make_app
from ultra.service.core import Service
from ultra.service.http import Request
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from ultra.service.access import Authenticator
    from ultra.stores.journal_contract import RunJournal

PATIENCE = 30.0
"""Seconds after which a test gives up: far more than anything takes."""

CHAT = "/v1/chat/completions"


class TwoKeys:
    """Lets in who has one of two keys."""

    needs_loopback = False

    async def authenticate(self, request: Request) -> Caller:
        name = {"Bearer one": "ann", "Bearer two": "bob"}.get(request.headers.get("authorization", ""))
        if name is None:
            raise Problem(401, "authentication_error", "invalid_api_key", "the key is not known")
        return Caller(name)


def service_of(
    models: Mapping[str, object],
    *,
    settings: ServeConfig | None = None,
    access: Authenticator | None = None,
    ensemble: Mapping[str, Any] | None = None,
    cache: bool = False,
    journal: RunJournal | str | None = None,
) -> Service:
    """A service of these models, the first with the highest weight, and an ensemble ``council`` of them all.

    With a `journal`, it keeps runs. Nothing is retried, so that each call is one that was asked for.
    """
    orchestrator = MultiLLMOrchestrator(
        cache_enabled=cache, retry=RetryPolicy(max_retries=0), journal=journal
    )
    for number, (name, model) in enumerate(models.items()):
        orchestrator.register_model(name, model, float(len(models) - number))
    orchestrator.add_ensemble("council", **{"stages": ["initial", "synthesis"], **(ensemble or {})})
    return Service(orchestrator, settings or ServeConfig(), access=access)


def chat(model: str = "council", text: str = "Which city?", **more: Any) -> dict[str, Any]:
    """The body of a request for a chat completion."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


class Answer(NamedTuple):
    """What was answered; `pieces` are the parts of the body, each with the second of its arrival."""

    status: int
    headers: Mapping[str, str]
    pieces: list[tuple[float, bytes]]

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(piece for _, piece in self.pieces)

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """What the body tells of an error."""
        error: dict[str, Any] = self.json["error"]
        return error

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The objects of an event stream, without its end."""
        return [json.loads(line) for line in data_of(self.body) if line != b"[DONE]"]

    @property
    def text(self) -> str:
        """The text that a stream of chat completions adds up to."""
        return text_of(self.chunks)


def data_of(body: bytes) -> list[bytes]:
    """The data of the events of a stream."""
    return [line.removeprefix(b"data: ") for line in body.split(b"\n") if line.startswith(b"data: ")]


def text_of(chunks: list[dict[str, Any]]) -> str:
    """The text of chunks of a chat completion."""
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def ask(
    service: Service,
    body: object,
    path: str = CHAT,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    peer: str | None = "127.0.0.1",
) -> Answer:
    """Ask the core of a running service, on any loop. `path` may have a query."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    place, _, query = path.partition("?")
    request = Request(method=method, path=place, headers=headers or {}, body=data, peer=peer, query=query)
    began = anyio.current_time()
    async with service.answering(request) as reply:
        if isinstance(reply.body, bytes):
            pieces = [(anyio.current_time() - began, reply.body)]
        else:
            pieces = [(anyio.current_time() - began, piece) async for piece in reply.body]
        return Answer(reply.status, reply.headers, pieces)


async def get(service: Service, path: str, **more: Any) -> Answer:
    """Ask the core of a running service for an address."""
    return await ask(service, b"", path, method="GET", **more)


async def partial_events(service: Service, path: str, count: int) -> Answer:
    """The first pieces of the stream at this address, which goes on."""
    place, _, query = path.partition("?")
    pieces: list[tuple[float, bytes]] = []
    async with service.answering(Request(method="GET", path=place, query=query, peer="127.0.0.1")) as reply:
        body: Any = reply.body
        async with aclosing(body):
            while len(pieces) < count:
                pieces.append((0.0, await anext(body)))
        return Answer(reply.status, reply.headers, pieces)


class _BrokenOff(Exception):
    """A service ends here."""


@asynccontextmanager
async def broken_off(service: Service) -> AsyncIterator[None]:
    """Run a service for the block, and end it without any grace for its runs."""
    try:
        async with service.running():
            yield
            raise _BrokenOff  # noqa: TRY301 - it goes through the service
    except* _BrokenOff:
        pass


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds: for what another thread, or a task of a server, does and tells nobody."""
    with anyio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - there is no event
            await anyio.sleep(0.01)


@asynccontextmanager
async def serving(service: Service, app: object | None = None, *, grace: float = 0.05) -> AsyncIterator[str]:
    """Serve it by Hypercorn, or this application of it, on a socket of this machine; yields the address.

    `grace`: seconds for which connections that clients keep open are waited for at the end.
    """
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = grace
    ended = trio.Event()
    async with trio.open_nursery() as nursery:
        served = cast("Any", app or make_app(service))
        run = partial(serve, served, config, shutdown_trigger=ended.wait, mode="asgi")
        urls: list[str] = await nursery.start(run)
        yield urls[0]
        ended.set()


@asynccontextmanager
async def client_of(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on a real socket."""
    async with (
        serving(service) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client,
    ):
        yield client
