"""A loopback server that answers every request with one chat completion, at once or piece by piece."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import contextmanager
from functools import partial
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PIECES", "chat_server"]

PIECES: Final = 10
"""Pieces of a streamed answer, where no other number is asked for."""

_BODY: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"The capital of France is Paris."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":14,"completion_tokens":8,"total_tokens":22}}'
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-1\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _event(data: bytes) -> bytes:
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


_PIECE: Final = _event(b'{"id":"1","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}')
_LAST: Final = (
    _event(b'{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    + _event(b"[DONE]")
    + b"0\r\n\r\n"
)


async def _stream(writer: asyncio.StreamWriter, pause: float, pieces: int) -> None:
    writer.write(_STREAM_HEAD)
    for _ in range(pieces):
        writer.write(_PIECE)
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write(_LAST)
    await writer.drain()


async def _serve_connection(
    pause: float, pieces: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length:\s*(\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if b'"stream":true' in body.replace(b" ", b""):
                await _stream(writer, pause, pieces)
            else:
                writer.write(_ANSWER)
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _serve(pause: float, pieces: int) -> None:
    connection = partial(_serve_connection, pause, pieces)
    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds our standard input open; when it ends, so do we.
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def chat_server(pause: float = 0.2, pieces: int = PIECES) -> Iterator[str]:
    """Run the server in a process of its own, so that it shares no loop with what is measured.

    `pause`: seconds after each of the `pieces` of a streamed answer.
    """
    with Popen(
        [sys.executable, "-m", "benchmarks.http_server", str(pause), str(pieces)],
        stdin=PIPE,
        stdout=PIPE,
        text=True,
    ) as process:
        try:
            if process.stdout is None or process.stdin is None:
                raise RuntimeError("the server has no pipes")
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]), int(sys.argv[2])))
