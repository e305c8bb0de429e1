"""The server on stdin and stdout: nothing but the protocol is written to stdout, whoever prints."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast

import trio

from ultra.errors import MissingExtra

try:
    from mcp.server.stdio import stdio_server
except ImportError:
    raise MissingExtra("the MCP server", "mcp") from None

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mcp.server import Server

__all__ = ["serve_stdio"]

_PIECE: Final = 2**16
_LONGEST: Final = 64 * 2**20
"""Bytes of one message; one that is longer ends the connection."""


async def serve_stdio(server: Server[Any]) -> None:
    """Serve the one client at the other end of stdin and stdout, until it closes stdin.

    Cancelling this ends at once, although a thread may go on waiting for stdin; let the process end then.

    Raises:
        OSError: stdout is closed.
    """
    with _private_streams() as (incoming, outgoing):
        # The streams of the SDK would wait for the next line of stdin before they can be cancelled.
        stdin, stdout = cast("Any", _Lines(incoming)), cast("Any", _Output(outgoing))
        async with stdio_server(stdin, stdout) as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())


@contextmanager
def _private_streams() -> Iterator[tuple[int, int]]:
    """Yield descriptors of stdin and stdout; in their place are nothing, and stderr."""
    sys.stdout.flush()
    incoming, outgoing = os.dup(0), os.dup(1)
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        yield incoming, outgoing
    finally:
        sys.stdout.flush()
        os.dup2(incoming, 0)
        os.dup2(outgoing, 1)
        # They stay open: an abandoned thread may still use them, and must meet no other file.


class _Lines:
    """The lines of a descriptor, as text."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._data = bytearray()
        self._searched = 0
        self._ended = False

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> str:
        while True:
            end = self._data.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._data[:end])
                del self._data[: end + 1]
                self._searched = 0
                return line.decode("utf-8", "replace")
            self._searched = len(self._data)
            if self._ended or self._searched > _LONGEST:
                raise StopAsyncIteration
            piece = await trio.to_thread.run_sync(os.read, self._descriptor, _PIECE, abandon_on_cancel=True)
            self._data += piece
            self._ended = not piece


class _Output:
    """Writes text to a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, text: str) -> None:
        """Write all of it. Cancelling this may leave a part of it written."""
        await trio.to_thread.run_sync(self._write, text.encode(), abandon_on_cancel=True)

    async def flush(self) -> None:
        """Do nothing: nothing is kept back."""

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
