"""Serving on trio, by Hypercorn, with an end in order: no request is dropped that can be answered in time."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from ultra.errors import BadCall, MissingExtra
from ultra.service.access import is_loopback
from ultra.service.app import make_app
from ultra.service.connection import guard_connections

try:
    from hypercorn.config import Config, Sockets
    from hypercorn.trio import serve as hypercorn_serve
except ImportError:
    raise MissingExtra("the service", "serve") from None

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ultra.service.access import Authenticator
    from ultra.service.core import Service

__all__ = ["check_address", "listen", "prepare_process", "serve"]

_HEAD_BYTES: Final = 2**17
"""Of which the application allows less: up to here it can say so itself, and beyond it Hypercorn does."""

_RELOAD: Final = getattr(signal, "SIGHUP", None)
_STALLED: Final = 60_000
"""Milliseconds after which a client is given up that takes nothing of what is sent to it."""

_AFTER_DRAIN: Final = 1.0
"""Seconds for what was not answered in time to end, once it is cancelled."""

_THRESHOLDS: Final = (50_000, 50, 100)
"""Of the garbage collector: with Python's own, it takes more than half of the time of many runs at once."""


def check_address(access: Authenticator, host: str) -> None:
    """Raise `BadCall` if only this machine may ask, and `host` is no loopback address."""
    if access.needs_loopback and not is_loopback(host):
        raise BadCall(
            f"--host is {host!r}, and there are no keys: everybody who reaches the service could spend your "
            "money. Without keys it listens on 127.0.0.1, ::1 or localhost; ultra serve key new makes one"
        )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; 0 takes a free port. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=1024)
    with suppress(AttributeError, OSError):  # not every system has it; connections inherit it
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _STALLED)
    return listening


def prepare_process() -> None:
    """Let the garbage collector look at what a service makes, and not at all that was imported.

    For a process that does nothing but serve.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


async def serve(
    service: Service,
    listening: socket.socket,
    *,
    announce: Callable[[str], None],
    signals: AsyncIterator[int],
    app: object | None = None,
    reload: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Serve until a signal comes; then drain, and end. SIGHUP calls `reload` instead, meanwhile.

    New requests are refused with status 503 from then on, and those under way are answered, as long as
    `drain_grace` of the settings allows; a second signal ends the waiting.

    Args:
        service: what answers; its actors live as long as this.
        listening: the socket; it is closed at the end.
        announce: is called with the address once requests are answered.
        app: an ASGI application that answers by the service in its own way; None: `make_app`'s.
        signals: yields the signals that end it, and SIGHUP.
        reload: lets another configuration hold; it raises nothing.
    """
    ended = trio.Event()
    config = _Config(listening)
    config.keep_alive_timeout = service.settings.idle_timeout

    async def reloaded() -> None:
        if reload is not None:
            await reload()
        config.keep_alive_timeout = service.settings.idle_timeout

    served = cast(
        "Any", app or make_app(service)
    )  # Hypercorn and Starlette have each their own types for ASGI
    guard_connections()
    async with trio.open_nursery() as nursery:
        run = partial(hypercorn_serve, served, config, shutdown_trigger=ended.wait, mode="asgi")
        urls: list[str] = await nursery.start(run)
        announce(urls[0])
        await _end(signals, reloaded)
        async with trio.open_nursery() as draining:
            draining.start_soon(_cancel_at_end, signals, draining.cancel_scope)
            await service.drain(service.settings.drain_grace)
            draining.cancel_scope.cancel()
        ended.set()


async def _end(signals: AsyncIterator[int], reload: Callable[[], Awaitable[None]] | None = None) -> None:
    """Wait for a signal that ends the service; it breaks off a reload that is under way.

    Signals that come during a reload are one more reload.
    """
    send, receive = trio.open_memory_channel[None](1)
    async with trio.open_nursery() as nursery:
        if reload is not None:
            nursery.start_soon(_reload_each_time, receive, reload)
        async for number in signals:
            if number != _RELOAD:
                break
            with suppress(trio.WouldBlock):
                send.send_nowait(None)
        nursery.cancel_scope.cancel()


async def _reload_each_time(asked: AsyncIterator[None], reload: Callable[[], Awaitable[None]]) -> None:
    async for _ in asked:
        await reload()


async def _cancel_at_end(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await _end(signals)
    scope.cancel()


class _Config(Config):
    """Serves one given socket."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__()
        self.errorlog = logging.getLogger("ultra.service.server")
        self.include_server_header = False
        self.keep_alive_max_requests = 1_000_000
        self.h11_max_incomplete_size = _HEAD_BYTES
        self.h2_max_header_list_size = _HEAD_BYTES
        self.graceful_timeout = _AFTER_DRAIN
        self._listening = listening

    def create_sockets(self) -> Sockets:
        """Return the socket."""
        return Sockets(secure_sockets=[], insecure_sockets=[self._listening], quic_sockets=[])
