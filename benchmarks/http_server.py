"""A loopback server that answers every request with one chat completion, as fast as asyncio can."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chat_server"]

_BODY: Final = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"bench","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"The capital of France is Paris."},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":14,"completion_tokens":8,"total_tokens":22}}'
)
_ANSWER: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-1\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_BODY), _BODY)
)


async def _serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length:\s*(\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(_ANSWER)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _serve() -> None:
    server = await asyncio.start_server(_serve_connection, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent holds our standard input open; when it ends, so do we.
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def chat_server() -> Iterator[str]:
    """Run the server in a process of its own, so that it shares no loop with what is measured."""
    with Popen(
        [sys.executable, "-m", "benchmarks.http_server"], stdin=PIPE, stdout=PIPE, text=True
    ) as process:
        try:
            if process.stdout is None or process.stdin is None:
                raise RuntimeError("the server has no pipes")
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(_serve())
