"""The connections of one client in one trio run, and which of them a call gets.

httpcore opens connections, with TLS and through proxies, and speaks HTTP on them; httpx's types go in and
come out, as of any other transport. What is left out is what stands around them in `httpx.AsyncClient`:
cookies, redirects and logins, which a call to a model has not, and a pool that goes through all of its
connections whenever a call begins or ends.
"""

from __future__ import annotations

import ssl
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import httpcore
import httpx
import trio

from ultra.clients.http.network import JoiningBackend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["ConnectionPool", "SentOnce"]

_IDLE_TIME: Final = 5.0
"""Seconds that an unused connection is kept: many servers close it after as many."""


class ConnectionPool(httpx.AsyncBaseTransport):
    """A transport whose connections wait for the next call, the one that was used last first.

    Any number of calls can be under way; a limit is for others to set.

    Args:
        ssl_context: for the server, and for a proxy that is spoken to over TLS.
        proxy: the address of a proxy that all calls go through.

    Raises:
        ValueError: the proxy is of a kind that is not known.
        httpx.InvalidURL: its address makes no sense.
        ImportError: its library is missing.
    """

    def __init__(self, ssl_context: ssl.SSLContext, proxy: str | None = None) -> None:
        self._opener = _opener(ssl_context, proxy)
        self._idle: deque[tuple[httpcore.AsyncConnectionInterface, float]] = deque()  # oldest first
        self._busy: set[httpcore.AsyncConnectionInterface] = set()
        self._closed = False
        self._address: tuple[httpx.URL, httpcore.URL] | None = None  # of the last call

    @property
    def connections(self) -> tuple[httpcore.AsyncConnectionInterface, ...]:
        """All connections that are open or being opened."""
        return (*self._busy, *(connection for connection, _ in self._idle))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and read the head of the answer. Cancelled, or failed, it leaves no connection open.

        Raises:
            httpx.TransportError: the network failed.
        """
        if self._address is None or self._address[0] is not request.url:
            self._address = request.url, _core_url(request.url)
        url = self._address[1]
        if url.scheme not in {b"http", b"https"}:
            raise httpx.UnsupportedProtocol(
                f"the address begins with {request.url.scheme!r}, not with http(s)"
            )
        connection = await self._take(url.origin)
        try:
            response = await connection.handle_async_request(
                httpcore.Request(
                    request.method,
                    url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException as error:
            await self._close(connection)
            if failure := _failure_of_httpx(error):
                raise failure from error
            raise
        return httpx.Response(
            response.status,
            headers=response.headers,
            stream=_Body(response, connection, self),
            extensions=response.extensions,
        )

    async def give_back(self, connection: httpcore.AsyncConnectionInterface) -> None:
        """Keep `connection`, whose call has ended, for the next one, if it can be used again.

        To be called in a shielded scope.
        """
        self._busy.discard(connection)
        if self._closed or not connection.is_idle() or _has_unread(connection):
            await connection.aclose()
            return
        now = trio.current_time()
        self._idle.append((connection, now))
        # Those that were used last are used first, so the others are idle for longer and longer.
        while self._idle[0][1] + _IDLE_TIME < now:
            await self._idle.popleft()[0].aclose()

    async def aclose(self) -> None:
        """Close all connections, even if cancelled; calls in flight fail."""
        self._closed = True
        connections = self.connections
        self._idle.clear()
        with trio.CancelScope(shield=True):
            for connection in connections:
                await connection.aclose()

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """Return a connection to `origin` that no other call uses."""
        oldest = trio.current_time() - _IDLE_TIME
        found = None
        while found is None and self._idle:
            connection, since = self._idle.pop()
            # httpcore says of one that the server has closed that it has expired.
            if since < oldest or not connection.can_handle_request(origin) or connection.has_expired():
                await self._close(connection)
            else:
                found = connection
        found = found or self._opener.create_connection(origin)
        self._busy.add(found)
        return found

    async def _close(self, connection: httpcore.AsyncConnectionInterface) -> None:
        self._busy.discard(connection)
        with trio.CancelScope(shield=True):
            await connection.aclose()


class SentOnce(httpx.AsyncByteStream):
    """The body of a request, let go once it is sent: httpcore keeps the request until the answer ends."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content, self._content = self._content, b""
        yield content


class _Body(httpx.AsyncByteStream):
    """The body of one answer, as it was sent. To close it gives the connection back."""

    def __init__(
        self,
        response: httpcore.Response,
        connection: httpcore.AsyncConnectionInterface,
        pool: ConnectionPool,
    ) -> None:
        self._stream: Any = response.stream
        self._connection = connection
        self._pool = pool
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._stream:
                yield piece
        except Exception as error:
            if failure := _failure_of_httpx(error):
                raise failure from error
            raise

    async def aclose(self) -> None:
        """Give the connection back: to be used again if the body was read to its end.

        To be called in a shielded scope.
        """
        if not self._ended:
            self._ended = True
            await self._stream.aclose()
            await self._pool.give_back(self._connection)


def _opener(ssl_context: ssl.SSLContext, proxy: str | None) -> httpcore.AsyncConnectionPool:
    """Return what opens connections: of a pool of httpcore's that holds none itself."""
    network = JoiningBackend()
    if proxy is None:
        return httpcore.AsyncConnectionPool(ssl_context=ssl_context, network_backend=network)
    found = httpx.Proxy(proxy)
    address = _core_url(found.url)
    if found.url.scheme.startswith("socks"):
        import socksio  # type: ignore[import-not-found] # noqa: F401, PLC0415 - httpcore would raise RuntimeError

        return httpcore.AsyncSOCKSProxy(address, found.raw_auth, ssl_context, network_backend=network)
    return httpcore.AsyncHTTPProxy(
        address, found.raw_auth, found.headers.raw, ssl_context, network_backend=network
    )


def _has_unread(connection: Any) -> bool:  # noqa: ANN401 - what is looked at is no part of httpcore's interface
    """Return whether bytes behind the answer have been read from the network already.

    They would be taken for the answer to the next request. What is still in the socket is seen when the
    connection is taken.
    """
    while connection is not None and not hasattr(connection, "_h11_state"):
        connection = getattr(connection, "_connection", None)  # one that goes through a proxy
    if connection is None:
        return True  # httpcore hides them elsewhere: rather no second use than a wrong answer
    if any(connection._h11_state.trailing_data):  # noqa: SLF001 - see above
        return True
    tls = connection._network_stream.get_extra_info("ssl_object")  # noqa: SLF001 - see above
    if tls is None:
        return False
    try:
        tls.read(1)  # it reads from memory, and never waits
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        pass  # the server has ended the connection
    return True


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _failure_of_httpx(error: BaseException) -> httpx.TransportError | None:
    """Return the error of httpx with the name of `error`; None if that is none of httpcore's."""
    for kind in type(error).__mro__:
        if kind.__module__.startswith("httpcore"):
            return cast("type[httpx.TransportError]", getattr(httpx, kind.__name__, httpx.TransportError))(
                str(error)
            )
    return None
