"""The network below httpcore's connections: trio's, with the head and the body of a request in one write.

httpcore writes the two one after the other. Together they take one system call, one record of TLS and, if
they are short, one packet, and the server wakes up once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import httpcore

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

__all__ = ["JoiningBackend"]

_LONGEST_JOINED: Final = 64 * 1024  # bytes; what is longer is not copied once more


class JoiningBackend(httpcore.AsyncNetworkBackend):
    """Opens TCP connections as httpcore does on trio; their streams join what is written."""

    def __init__(self) -> None:
        # For type checkers it may be a class that only says that trio is missing.
        self._network: Any = httpcore.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection. Raises httpcore's errors."""
        return _JoiningStream(
            await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        )


class _JoiningStream(httpcore.AsyncNetworkStream):
    """Keeps what is written until nothing is written, which is how httpcore ends a request, or is read."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._kept = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._kept:
            await self._flush(timeout)
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if buffer and len(buffer) <= _LONGEST_JOINED:
            self._kept += buffer
            if len(self._kept) <= _LONGEST_JOINED:
                return
            buffer = b""
        if self._kept:
            await self._flush(timeout)
        if buffer:
            await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _JoiningStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's interface
        return self._stream.get_extra_info(info)

    async def _flush(self, timeout: float | None) -> None:
        kept, self._kept = self._kept, b""
        await self._stream.write(kept, timeout)
