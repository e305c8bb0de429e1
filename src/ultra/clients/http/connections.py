"""The connections of one client: requests go out here, on trio, and what httpx raises becomes a `ModelError`.

httpx is imported at the first call, so that importing Ultra does not pay for it.
"""

from __future__ import annotations

import ssl
from base64 import b64decode
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio

from ultra._support.outgoing import outgoing_headers
from ultra.clients.http.body import ResponseBody
from ultra.clients.http.decompression import ACCEPTED
from ultra.clients.http.proxies import proxy_for
from ultra.clients.wire.rate_limits import RateLimits, rate_limits
from ultra.clients.wire.redaction import redact_secrets
from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import httpx

    from ultra.clients.http.limits import HTTPLimits

__all__ = ["Connections", "HTTPRequest", "Hidden"]

T = TypeVar("T")


class Hidden:
    """A value that must not be shown; its repr is three stars."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:  # noqa: ANN401 - any value can be hidden
        self.value = value

    def __repr__(self) -> str:
        return "***"


# Shorter ones are placeholders such as "ollama" or "EMPTY", and words of ordinary messages.
_SHORTEST_SECRET: Final = 8

# The value of any other header may be a key: gateways have their own names for it.
_PUBLIC_HEADERS: Final = frozenset(
    {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-type",
        "http-referer",
        "user-agent",
        "x-title",
    }
)


class HTTPRequest(msgspec.Struct, frozen=True):
    """One request; `headers` hides a mapping of names in lower case, since a key is in it."""

    url: str
    headers: Hidden
    content: bytes
    method: str = "POST"

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values that must appear in no error, though the server repeats them."""
        values: list[str] = []
        for name, value in self.headers.value.items():
            if name not in _PUBLIC_HEADERS:
                values += [value, *_parts_of(value)]
        return tuple(value for value in values if len(value) >= _SHORTEST_SECRET)


def _parts_of(value: str) -> list[str]:
    """Return the key behind ``Bearer``, or the password behind ``Basic``."""
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return [credentials]
    with suppress(ValueError):
        return [credentials, b64decode(credentials).decode().partition(":")[2]]
    return [credentials]


@cache
def _certificates(trust_env: bool) -> ssl.SSLContext:  # noqa: FBT001 - the key of a cache
    """Load the certificates once: every client would otherwise spend tens of milliseconds on it."""
    import httpx  # noqa: PLC0415 - imported at the first call

    return httpx.create_ssl_context(trust_env=trust_env)


_loaded: Final[set[tuple[bool, bool]]] = set()


def _load(encrypted: bool, trust_env: bool) -> None:  # noqa: FBT001 - called by trio, which passes no keywords
    import ultra.clients.http.pools  # noqa: F401, PLC0415 - imports httpx and httpcore

    if encrypted:
        # A file of certificates that cannot be read is reported by the call itself.
        with suppress(OSError):
            _certificates(trust_env)
    _loaded.add((encrypted, trust_env))


class Connections:
    """The connections of one client: opened when they are needed; can be closed and used again.

    Connections belong to the trio run that opened them. In another run, others are opened.

    Args:
        provider: named in errors.
        limits: of every call.
        trust_env: honour the proxy and TLS variables of the environment.
        transport: in place of the network.
    """

    def __init__(
        self,
        provider: str,
        limits: HTTPLimits,
        *,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.provider = provider
        self.limits = limits
        self._trust_env = trust_env
        self._transport = transport
        self._transports: dict[trio.lowlevel.TrioToken, httpx.AsyncBaseTransport] = {}
        self._timeouts: Final = {
            "connect": limits.connect_timeout,
            "read": limits.read_timeout,
            "write": limits.read_timeout,
            "pool": None,  # the model actor limits how many calls run at once
        }
        self._address: tuple[str, httpx.URL] | None = None
        self._last_headers: Mapping[str, str] = {}

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the last answer said about the provider's limits; None if it said nothing."""
        return rate_limits(self._last_headers)

    async def open(self, request: HTTPRequest) -> ResponseBody:
        """Send `request`, read the head of the answer, and return its body, which must be closed.

        Cancelled, this closes the connection.

        Raises:
            ModelError: the network failed, or the answer reports an error.
        """
        needed = request.url.startswith("https:"), self._trust_env
        if self._transport is None and needed not in _loaded:
            # Hundreds of milliseconds that no event loop should stand still for.
            await trio.to_thread.run_sync(_load, *needed, abandon_on_cancel=True)
        response = await self.guard(self._send(request), request)
        headers = dict(response.headers.items())
        self._last_headers = headers
        head = ResponseHead(self.provider, response.status_code, headers, request.secrets)
        body = ResponseBody(response, head, self)
        if response.is_success:
            return body
        failure = await _error_in(body)
        raise failure

    async def guard(self, call: Awaitable[T], request: HTTPRequest | None = None) -> T:
        """Await `call`, and raise what httpx raises in it as `ModelError`, without secrets of `request`."""
        import httpx  # noqa: PLC0415 - imported at the first call

        try:
            return await call
        except (
            *(httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError),
            *(ValueError, ImportError),  # a proxy of an unknown kind, or one whose library is missing
        ) as error:
            failure = self._failure(error, request.secrets if request else ())
        # Raised out here, the error does not drag along httpx's, whose request holds the key.
        raise failure

    async def aclose(self) -> None:
        """Close the connections of this trio run, even if cancelled; calls in flight fail."""
        transport = self._transports.pop(trio.lowlevel.current_trio_token(), None)
        if transport is not None:
            with trio.CancelScope(shield=True):
                await transport.aclose()
        await trio.lowlevel.checkpoint()

    def timed_out(self) -> ModelError:
        """Make the error for a call that took longer than the whole `timeout`."""
        message = f"no complete answer within timeout ({self.limits.timeout:g} s)"
        return ModelError(message, provider=self.provider, kind="timeout")

    def _failure(self, error: Exception, secrets: tuple[str, ...]) -> ModelError:
        import httpx  # noqa: PLC0415 - loaded already: it has raised

        detail = redact_secrets(str(error) or type(error).__name__, secrets)
        limits = self.limits
        match error:
            case httpx.ConnectTimeout():
                message = f"no connection within connect_timeout ({limits.connect_timeout:g} s)"
                return ModelError(message, provider=self.provider, kind="timeout")
            case httpx.TimeoutException():
                message = f"the server was silent for read_timeout ({limits.read_timeout:g} s)"
                return ModelError(message, provider=self.provider, kind="timeout")
            case httpx.ConnectError() | httpx.ProxyError():
                message = f"cannot connect: {detail}"
                # A certificate that does not verify will not verify the next time either.
                retryable = "CERTIFICATE_VERIFY_FAILED" not in detail
                return ModelError(message, provider=self.provider, kind="connection", retryable=retryable)
            case (
                httpx.UnsupportedProtocol()
                | httpx.LocalProtocolError()
                | httpx.InvalidURL()
                | ValueError()
                | ImportError()
            ):
                message = f"the request cannot be sent: {detail}"
                return ModelError(message, provider=self.provider, kind="bad_request")
            case _:
                message = f"the connection broke: {detail}"
                return ModelError(message, provider=self.provider, kind="connection")

    async def _send(self, request: HTTPRequest) -> httpx.Response:
        transport = self._transport_here(request.url)
        # No variable for the headers: tracebacks may be shown with the variables of each frame.
        response = await transport.handle_async_request(self._built(request))
        if transport not in self._transports.values():
            # To close a connection that was still being opened did nothing: nobody else would close it.
            with trio.CancelScope(shield=True):
                await response.aclose()
            import httpx  # noqa: PLC0415 - loaded already: there is a response

            raise httpx.NetworkError("the client was closed")
        return response

    def _built(self, request: HTTPRequest) -> httpx.Request:
        import httpx  # noqa: PLC0415 - imported at the first call

        if self._address is None or self._address[0] != request.url:
            self._address = request.url, httpx.URL(request.url)
        url = self._address[1]
        length = {} if request.method == "GET" else {"content-length": str(len(request.content))}
        built = httpx.Request(
            request.method,
            url,
            headers={
                "host": url.netloc.decode(),
                "accept": "*/*",
                "accept-encoding": ACCEPTED,
                "connection": "keep-alive",
                **length,
                **(outgoing_headers.get() or {}),
                **request.headers.value,
            },
            stream=self._stream_of(request.content),
            extensions={"timeout": self._timeouts},
        )
        built.url = url  # httpx has made a copy; by the object, the pool knows the address of all calls again
        if self._transport is not None:
            built.read()  # a transport for tests may look at the content
        return built

    def _stream_of(self, content: bytes) -> httpx.AsyncByteStream:
        if self._transport is not None:  # it may send a request twice
            import httpx  # noqa: PLC0415 - loaded already

            return httpx.ByteStream(content)
        from ultra.clients.http.pools import SentOnce  # noqa: PLC0415 - imported at the first call

        return SentOnce(content)

    def _transport_here(self, url: str) -> httpx.AsyncBaseTransport:
        """Return the transport of this trio run; all of a client's calls go to the host of `url`."""
        token = trio.lowlevel.current_trio_token()
        found = self._transports.get(token)
        if found is None:
            self._forget_ended_runs()
            found = self._transports[token] = self._transport or self._new_pool(url)
        return found

    def _new_pool(self, url: str) -> httpx.AsyncBaseTransport:
        from ultra.clients.http.pools import ConnectionPool  # noqa: PLC0415 - imported at the first call

        # The context of a plain connection is never used; an empty one trusts nobody.
        encrypted = url.startswith("https:")
        context = self._context() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        return ConnectionPool(context, proxy_for(url) if self._trust_env else None)

    def _context(self) -> ssl.SSLContext:
        try:
            return _certificates(self._trust_env)
        except OSError as error:
            failure = ModelError(
                f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read: {error}",
                provider=self.provider,
                kind="bad_request",
            )
        raise failure

    def _forget_ended_runs(self) -> None:
        for token in list(self._transports):
            try:
                token.run_sync_soon(lambda: None)
            except trio.RunFinishedError:
                self._transports.pop(token, None)  # another thread's run may have been first


async def _error_in(body: ResponseBody) -> ModelError:
    """Make the error that an answer with an error status means, and close its body."""
    try:
        content = await body.read_what_comes()
    finally:
        await body.aclose()
    return body.head.failure(content)
