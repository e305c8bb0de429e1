"""The service as the command serves it, and connections that carry whatever a test sends."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ultra.service.server import listen, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.service.core import Service

PATIENCE = 20.0
"""Seconds after which a test gives up: far more than anything takes."""


@asynccontextmanager
async def really_serving(service: Service) -> AsyncIterator[str]:
    """Serve it as the command does, with its times and sizes; yields the address."""
    send, receive = trio.open_memory_channel[int](1)
    urls: list[str] = []
    announced = trio.Event()

    def announce(url: str) -> None:
        urls.append(url)
        announced.set()

    async def run() -> None:
        await serve(service, listen("127.0.0.1", 0), announce=announce, signals=aiter(receive))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await announced.wait()
        yield urls[0]
        await send.send(15)


async def connected(url: str) -> trio.SocketStream:
    """A connection to this address, for bytes that no client would send."""
    host, _, port = url.removeprefix("http://").partition(":")
    return await trio.open_tcp_stream(host, int(port))


async def all_of(stream: trio.SocketStream) -> bytes:
    """What comes until the connection is closed."""
    data = b""
    with trio.fail_after(PATIENCE):
        try:
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass
    return data
