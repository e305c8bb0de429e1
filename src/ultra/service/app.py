"""The service as an ASGI application: it hands requests to the core, and sends what that returns."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ultra._support.async_library import library, open_tasks
from ultra.errors import MissingExtra
from ultra.service.http import Request
from ultra.service.problems import Problem

try:
    from starlette.applications import Starlette
    from starlette.middleware.cors import CORSMiddleware
except ImportError:
    raise MissingExtra("the service", "serve") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Mapping

    from starlette.types import ASGIApp, Lifespan, Message, Receive, Scope, Send

    from ultra._support.async_library import AsyncScope
    from ultra.config.serving import ServeConfig
    from ultra.service.core import Service
    from ultra.service.http import Reply

__all__ = ["HungUp", "headers_of", "make_app", "read_body"]

_MOST_HEADERS: Final = 2**16
"""Bytes of all headers of a request; servers have limits of their own."""

_LAST_PIECE_TIMEOUT: Final = 10.0
"""Seconds that a server has for a refusal, and for the last piece of an answer whose client may be gone."""


def make_app(service: Service) -> Starlette:
    """Return the application of a service; its lifespan is that of the models' actors."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = _Application(_CrossOrigin(service, _Door(service)), lifespan)
    app.state.service = service
    return app


class _Application(Starlette):
    """Starlette's lifespan, its middleware if any is added, and the door to the core, which knows addresses.

    Without its own layers that answer for errors: the core answers, whatever goes wrong. They would see each
    piece of each stream, and keep objects for it.
    """

    def __init__(self, door: ASGIApp, lifespan: Lifespan[Starlette]) -> None:
        super().__init__(lifespan=lifespan)
        self._door = door

    def build_middleware_stack(self) -> ASGIApp:
        """Return what answers requests, behind the middleware that was added."""

        def app(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            answers = self.router if scope["type"] == "lifespan" else self._door
            return answers(scope, receive, send)

        for layer, args, kwargs in reversed(self.user_middleware):
            app = layer(app, *args, **kwargs)
        return app


class _CrossOrigin:
    """Lets pages of other origins ask, those that the settings name; by default none."""

    def __init__(self, service: Service, app: ASGIApp) -> None:
        self._service = service
        self._app = app
        self._origins: tuple[str, ...] = ()
        self._allowing = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        origins = self._service.settings.cors_origins
        if origins != self._origins:
            self._origins = origins
            self._allowing = self._app
            if origins:
                self._allowing = CORSMiddleware(
                    self._app,
                    allow_origins=origins,
                    allow_methods=("GET", "POST", "DELETE"),
                    allow_headers=("*",),
                    expose_headers=("*",),
                )
        return self._allowing(scope, receive, send)


class HungUp(Exception):
    """The client is gone before it had sent its request."""


class _Door:
    """Reads a request, and sends the reply; a client that hangs up cancels it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        try:
            request = await self._read(scope, receive)
        except HungUp:
            return
        except Problem as problem:
            # What the client still sends is not read, so the connection cannot be used again.
            reply = self._service.refusal(problem, _path(scope), headers_of(scope))
            here = library()
            with here.CancelScope(deadline=here.current_time() + _LAST_PIECE_TIMEOUT):  # it may be gone
                await _send(reply, send, closes=True, with_body=scope["method"] != "HEAD")
            return
        async with open_tasks() as tasks:
            client = _Client(receive, tasks.cancel_scope)
            tasks.start_soon(client.watch)
            async with self._service.answering(request) as reply:
                del request  # its body may be long, and so may the stream go on
                # Its next request would be refused here; a client that connects again finds another replica.
                closes, with_body = self._service.is_draining, scope["method"] != "HEAD"
                await _send(reply, send, client, closes=closes, with_body=with_body)
            if not client.has_left:
                tasks.cancel_scope.cancel()

    async def _read(self, scope: Scope, receive: Receive) -> Request:
        if sum(len(name) + len(value) for name, value in scope["headers"]) > _MOST_HEADERS:
            text = f"the headers of a request may have {_MOST_HEADERS} bytes"
            raise Problem(431, "invalid_request_error", "headers_too_large", text)
        headers = headers_of(scope)
        client = scope.get("client")
        request = Request(
            method=scope["method"],
            path=_path(scope),
            headers=headers,
            peer=client[0] if client else None,
            query=scope.get("query_string", b"").decode("latin-1"),
        )
        request = await self._service.known(request)  # nobody else can make it keep a body
        return replace(request, body=await read_body(self._service.settings, headers, receive))


async def read_body(settings: ServeConfig, headers: Mapping[str, str], receive: Receive) -> bytes:
    """Return the whole body of a request.

    Raises:
        Problem: it is packed, or larger than it may be, or did not arrive in time.
        HungUp: the client is gone.
    """
    packed = headers.get("content-encoding", "").strip().lower()
    if packed not in {"", "identity"}:
        text = f"the content-encoding is {packed[:80]!r}; send the body as it is, without one"
        plain = {"accept-encoding": "identity"}
        raise Problem(415, "invalid_request_error", "unsupported_media_type", text, headers=plain)
    length = headers.get("content-length", "0")
    if length.isdigit() and int(length) > settings.max_body:
        raise _too_large(settings.max_body)
    pieces: list[bytes] = []
    size = 0
    here = library()
    with here.CancelScope(deadline=here.current_time() + settings.body_timeout):
        while True:
            message: Message = await receive()
            if message["type"] == "http.disconnect":
                raise HungUp
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > settings.max_body:
                raise _too_large(settings.max_body)
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)
    text = f"the body did not arrive within {settings.body_timeout:g} s"
    raise Problem(408, "invalid_request_error", "request_timeout", text)


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers by names in lower case; what is there several times is joined."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _path(scope: Scope) -> str:
    # An application around this one leaves the whole path in `path`, and its part of it in `root_path`.
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _too_large(most: int) -> Problem:
    return Problem(413, "invalid_request_error", "request_too_large", f"a body may have {most:,} bytes")


@lru_cache(64)  # they are few, and a stream keeps its headers
def _name(name: str) -> bytes:
    return name.encode("latin-1")


class _Client:
    """The client of one request: its hanging up cancels `scope`.

    Attributes:
        is_answered: whether the last piece of the answer was handed to the server. From then on it tells that
            the request is over, in the words of a hang-up; what is left then has some seconds. It may also
            have been a hang-up, and some servers wait for ever until such a client takes the piece.
        has_left: whether it has hung up, or the request is over.
    """

    def __init__(self, receive: Receive, scope: AsyncScope) -> None:
        self.is_answered = False
        self.has_left = False
        self._receive = receive
        self._scope = scope

    async def watch(self) -> None:
        """Wait until it leaves."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        if self.is_answered:
            self._scope.deadline = library().current_time() + _LAST_PIECE_TIMEOUT
        else:
            self._scope.cancel()


async def _send(
    reply: Reply, send: Send, client: _Client | None = None, *, closes: bool = False, with_body: bool = True
) -> None:
    body: Any = reply.body
    raw = [(_name(name), value.encode("latin-1", "replace")) for name, value in reply.headers.items()]
    if isinstance(body, bytes):
        raw.append((b"content-length", b"%d" % len(body)))
    if closes:
        raw.append((b"connection", b"close"))
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": raw})
        if isinstance(body, bytes):
            last = body if with_body else b""
        else:
            async with aclosing(body):
                async for piece in body:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            last = b""
        if client is not None:
            client.is_answered = True
        await send({"type": "http.response.body", "body": last})
    except OSError:
        return  # the client is gone; servers tell it so, or by a message
