"""The connections of one client, and the bodies that come through it, on trio.

httpx is imported at the first call, so that importing Ultra does not pay for it.
"""

from __future__ import annotations

import ssl
from base64 import b64decode
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import trio

from ultra.clients.http.decompression import ACCEPTED, Unpacker
from ultra.clients.http.failures import Reply, redact
from ultra.clients.http.pools import CALLS_A_SHARD, Shard, Shards
from ultra.clients.http.rate_limits import RateLimits, rate_limits
from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import httpx

__all__ = ["Body", "Hidden", "Limits", "Pool", "Request"]

T = TypeVar("T")


class Hidden:
    """A value that must not be shown; its repr is three stars."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:  # noqa: ANN401 - any value can be hidden
        self.value = value

    def __repr__(self) -> str:
        return "***"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long one call may take and how much may come back.

    Args:
        timeout: the whole call [s]; of a stream, from its first piece being asked for to its last.
        connect_timeout: opening a connection, TLS included [s].
        read_timeout: the longest silence of the server while an answer is awaited or read [s].
        max_response_bytes: of one answer, unpacked [bytes].
    """

    timeout: float = 600.0
    connect_timeout: float = 5.0
    read_timeout: float = 300.0
    max_response_bytes: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise BadCall(f"{name} must be greater than 0, not {getattr(self, name)!r}")


# Shorter ones are placeholders such as "ollama" or "EMPTY", and words of ordinary messages.
_SHORTEST_SECRET: Final = 8

# Whatever else is sent may be a key, by whatever name a gateway wants it.
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


class Request(msgspec.Struct, frozen=True):
    """One POST of JSON; `headers` hides a mapping of names in lower case, since a key is in it."""

    url: str
    headers: Hidden
    content: bytes

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must appear in no error, whoever repeats it."""
        values: list[str] = []
        for name, value in self.headers.value.items():
            if name not in _PUBLIC_HEADERS:
                values += [value, *_parts_of(value)]
        return tuple(value for value in values if len(value) >= _SHORTEST_SECRET)


def _parts_of(value: str) -> list[str]:
    """The key behind ``Bearer``, or the password behind ``Basic``."""
    scheme, _, credentials = value.partition(" ")
    if scheme.lower() != "basic":
        return [credentials]
    with suppress(ValueError):
        return [credentials, b64decode(credentials).decode().partition(":")[2]]
    return [credentials]


@cache
def _certificates() -> ssl.SSLContext:
    """Load the certificates once: every client would otherwise spend tens of milliseconds on it."""
    import httpx  # noqa: PLC0415 - imported at the first call

    return httpx.create_ssl_context()


_loaded: Final[set[bool]] = set()


def _load(encrypted: bool) -> None:  # noqa: FBT001 - called by trio, which passes no keywords
    import httpcore  # noqa: F401, PLC0415 - httpx imports it as late as it can
    import httpx  # noqa: F401, PLC0415 - imported at the first call

    if encrypted:
        # A file of certificates that cannot be read is reported by the call itself.
        with suppress(OSError):
            _certificates()
    _loaded.add(encrypted)


class Pool:
    """`httpx.AsyncClient`s that are made when they are needed, and can be closed and used again.

    Connections belong to the trio run that opened them; in another run clients of its own are made.

    Args:
        provider: named in errors.
        limits: of every call.
        trust_env: honour the proxy and TLS variables of the environment.
        transport: in place of the network.
    """

    def __init__(
        self,
        provider: str,
        limits: Limits,
        *,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.provider = provider
        self.limits = limits
        self._trust_env = trust_env
        self._transport = transport
        self._shards: dict[trio.lowlevel.TrioToken, Shards] = {}
        self._last_headers: Mapping[str, str] = {}

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the last answer told of the provider's limits; None if it told nothing."""
        return rate_limits(self._last_headers)

    async def open(self, request: Request) -> Body:
        """Send `request` and read the head of the answer; its body must be closed.

        Raises:
            ModelError: the network failed, or the answer reports an error.
        """
        encrypted = request.url.startswith("https:")
        if self._transport is None and encrypted not in _loaded:
            # Hundreds of milliseconds that no event loop should stand still for.
            await trio.to_thread.run_sync(_load, encrypted, abandon_on_cancel=True)
        shards = self._shards_here(encrypted=encrypted)
        response, shard = await self.guard(self._send(request, shards), request)
        self._last_headers = response.headers
        reply = Reply(self.provider, response.status_code, response.headers, request.secrets)
        body = Body(response, reply, self, partial(shards.give_back, shard))
        if response.is_success:
            return body
        failure = await _error_in(body)
        raise failure

    async def guard(self, call: Awaitable[T], request: Request | None = None) -> T:
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
        shards = self._shards.pop(trio.lowlevel.current_trio_token(), None)
        if shards is not None:
            with trio.CancelScope(shield=True):
                await shards.aclose()
        await trio.lowlevel.checkpoint()

    def timed_out(self) -> ModelError:
        """Make the error for a call that took longer than the whole `timeout`."""
        message = f"no complete answer within timeout ({self.limits.timeout:g} s)"
        return ModelError(message, provider=self.provider, kind="timeout")

    def _failure(self, error: Exception, secrets: tuple[str, ...]) -> ModelError:
        import httpx  # noqa: PLC0415 - loaded already: it has raised

        detail = redact(str(error) or type(error).__name__, secrets)
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

    async def _send(self, request: Request, shards: Shards) -> tuple[httpx.Response, Shard]:
        shard = shards.take()
        try:
            headers = {"accept-encoding": ACCEPTED, **request.headers.value}
            built = shard.client.build_request("POST", request.url, headers=headers, content=request.content)
            return await shard.send(built), shard
        except BaseException:
            with trio.CancelScope(shield=True):
                await shards.give_back(shard)
            raise

    def _shards_here(self, *, encrypted: bool) -> Shards:
        """The connections of this trio run."""
        token = trio.lowlevel.current_trio_token()
        if token not in self._shards:
            self._forget_ended_runs()
            # A transport is for all calls: to close it with one of several clients would break the others.
            calls = None if self._transport is not None else CALLS_A_SHARD
            self._shards[token] = Shards(partial(self._new_client, encrypted=encrypted), calls=calls)
        return self._shards[token]

    def _new_client(self, *, encrypted: bool) -> httpx.AsyncClient:
        import httpx  # noqa: PLC0415 - imported at the first call

        limits = self.limits
        return httpx.AsyncClient(
            # The context of a plain connection is never used; an empty one trusts nobody.
            verify=self._context() if encrypted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=httpx.Timeout(limits.read_timeout, connect=limits.connect_timeout, pool=None),
            # The model actor limits how many calls run at once; a second limit would only hide it.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            # A redirect would carry the key to a host that nobody chose.
            follow_redirects=False,
            trust_env=self._trust_env,
            transport=self._transport,
        )

    def _context(self) -> ssl.SSLContext:
        try:
            return _certificates()
        except OSError as error:
            failure = ModelError(
                f"the certificates that SSL_CERT_FILE or SSL_CERT_DIR name cannot be read: {error}",
                provider=self.provider,
                kind="bad_request",
            )
        raise failure

    def _forget_ended_runs(self) -> None:
        for token in list(self._shards):
            try:
                token.run_sync_soon(lambda: None)
            except trio.RunFinishedError:
                self._shards.pop(token, None)  # another thread's run may have been first


async def _error_in(body: Body) -> ModelError:
    """Make the error that an answer with an error status means, and close its body."""
    try:
        content = await body.read_what_comes()
    finally:
        await body.aclose()
    return body.reply.failure(content)


class Body:
    """The bytes of one answer, unpacked, as they arrive, and never more than the limit."""

    def __init__(
        self, response: httpx.Response, reply: Reply, pool: Pool, on_end: Callable[[], Awaitable[None]]
    ) -> None:
        self.reply = reply
        self._on_end: Callable[[], Awaitable[None]] | None = on_end
        self._response = response
        self._pool = pool
        if response.is_stream_consumed:  # a transport for tests gave the whole answer, unpacked
            self._pieces = response.aiter_bytes()
            self._unpacker: Unpacker | None = Unpacker("identity")
        else:
            # Raw, for httpx unpacks without bound, and what it raises then leaves its generators open.
            self._pieces = response.aiter_raw()
            self._unpacker = None
        self._left = pool.limits.max_response_bytes
        self._started = False
        self._ended = False

    async def read(self) -> bytes:
        """Return the next piece, never empty; b"" at the end. Raises `ModelError`."""
        self._started = True
        while not self._ended:
            piece = self._unpack(await self._pool.guard(self._advance()))
            self._left -= len(piece)
            if self._left < 0:
                raise self._too_long()
            if piece:
                return piece
        return b""

    async def read_all(self) -> bytes:
        """Return the whole body. Raises `ModelError`."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def read_what_comes(self) -> bytes:
        """Return as much of the body as arrives: half an error message says more than none."""
        pieces = []
        with suppress(ModelError):
            while piece := await self.read():
                pieces.append(piece)
        return b"".join(pieces)

    async def aclose(self) -> None:
        """Give the connection back if the body was read to its end, and close it otherwise.

        Never waits for the network, and runs to its end when cancelled.
        """
        import httpx  # noqa: PLC0415 - loaded already: there is a response

        with trio.CancelScope(shield=True):
            try:
                await self._response.aclose()
                # httpx reads through nested async generators, which trio wants run to their end. On a closed
                # connection they get there by an error; a transport that goes on sending is cancelled.
                with trio.CancelScope() as ending, suppress(httpx.HTTPError, httpx.StreamError):
                    ending.cancel()
                    while self._started and not self._ended:
                        await self._advance()
            finally:
                on_end, self._on_end = self._on_end, None
                if on_end is not None:
                    await on_end()

    async def _advance(self) -> bytes:
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._ended = True
            return b""
        except BaseException:
            self._ended = True
            raise

    def _unpack(self, piece: bytes) -> bytes:
        try:
            if self._unpacker is None:
                self._unpacker = Unpacker(self.reply.headers.get("content-encoding", ""))
            return self._unpacker.unpack(piece, self._left)
        except ValueError as error:
            failure = self.reply.malformed(f"it cannot be unpacked: {error}")
        raise failure

    def _too_long(self) -> ModelError:
        allowed = self._pool.limits.max_response_bytes
        message = f"the answer is longer than max_response_bytes ({allowed} bytes)"
        return ModelError(message, provider=self._pool.provider, kind="protocol", retryable=False)
