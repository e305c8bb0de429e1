"""A client over HTTP: requests go in, `Completion`s and `ModelError`s come out."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypedDict

import msgspec
import trio
from msgspec import structs

from ultra.clients.http.completion_stream import CompletionStream
from ultra.clients.http.connections import Connections, Hidden, HTTPRequest
from ultra.clients.http.limits import HTTPLimits
from ultra.clients.options import CallOptions
from ultra.errors import BadCall
from ultra.messages.request import ModelRequest, SamplingOptions

if TYPE_CHECKING:
    from typing import Unpack

    import httpx

    from ultra.clients.dialects.base import Dialect
    from ultra.clients.options import CallArguments
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.results import Completion

__all__ = ["HTTPClient", "HTTPSettings"]


_CREDENTIALS: Final = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"}
)
"""Headers that say who pays. They change, and the answers do not."""


class HTTPSettings(TypedDict, total=False):
    """The arguments of `HTTPClient` beside its dialect."""

    api_key: str | None
    limits: HTTPLimits | None
    options: CallOptions | None
    trust_env: bool
    transport: httpx.AsyncBaseTransport | None


class HTTPClient:
    """A model behind an HTTP endpoint: sends what a dialect encodes, and decodes by it what comes back.

    Args:
        dialect: which model is asked, where, and in which words.
        api_key: sent in the dialect's header. It appears in no repr, log or error.
        limits: timeouts and the largest answer.
        options: the defaults of every call.
        trust_env: honour the proxy and TLS variables of the environment.
        transport: in place of the network, for tests and fault injection.

    The first call opens the connections and `aclose` closes them; a later call opens new ones. The
    client can be used by several tasks, and by several trio runs, at once.

    Raises:
        BadCall: the key has characters that no key has.
    """

    async_library: ClassVar = "trio"
    """Calls run on trio, even where the program is on asyncio."""

    reopens: ClassVar = True
    """An orchestrator may close the client when it stops: a later call opens new connections."""

    def __init__(
        self,
        dialect: Dialect,
        *,
        api_key: str | None = None,
        limits: HTTPLimits | None = None,
        options: CallOptions | None = None,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.dialect = dialect
        self.limits = limits or HTTPLimits()
        self.options = options or CallOptions()
        self._identity: tuple[CallOptions, str] | None = None
        key = _checked_key(self.provider, api_key)
        sent = {"content-type": "application/json", "user-agent": "ultra-llm"}
        self._headers = Hidden(sent | dialect.login | dialect.headers(key))
        self._connections = Connections(self.provider, self.limits, trust_env=trust_env, transport=transport)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.provider}:{self.model}>"

    @property
    def model(self) -> str:
        """The provider's name of the model."""
        return self.dialect.model

    @property
    def provider(self) -> str:
        """The name of the provider, as it stands in errors."""
        return self.dialect.provider

    @property
    def cache_identity(self) -> str:
        """A digest of all that can change an answer beside the request: dialect, address, own options.

        It shows none of these, and depends on no key: neither that of the client, nor one in `extra_headers`.
        """
        if self._identity is None or self._identity[0] is not self.options:
            self._identity = self.options, self._identify()
        return self._identity[1]

    def _identify(self) -> str:
        options = self.options
        headers = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
        kept = {name: value for name, value in headers.items() if name not in _CREDENTIALS}
        said = (
            type(self.dialect).__qualname__,
            self.provider,
            self.model,
            self.dialect.url(stream=False),
            {**structs.asdict(options), "extra_headers": kept},
        )
        try:
            encoded = msgspec.json.encode(said, order="sorted")
        except (TypeError, ValueError, RecursionError):  # calls fail with the same, and say so
            encoded = repr(said).encode("utf-8", "backslashreplace")
        return f"{self.provider}:{self.model}:{blake2b(encoded, digest_size=16).hexdigest()}"

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the last answer, or error, said about the provider's limits; None if it said nothing."""
        return self._connections.rate_limits

    async def respond(self, request: ModelRequest) -> Completion:
        """Return the answer to `request`, whose options go before those of the client.

        Cancellation closes the call's connection.

        Raises:
            ModelError: the provider or the network failed.
            BadCall: there is no such option, or the request cannot be sent.
        """
        options = self.options.with_sampling(request.options)
        payload = self.dialect.encode(request, options, stream=False)
        sent = self._post(payload, options, stream=False)
        with trio.move_on_after(self.limits.timeout):
            body = await self._connections.open(sent)
            try:
                content = await body.read_all()
            finally:
                await body.aclose()
            return self.dialect.decode_whole(content, body.head)
        raise self._connections.timed_out()

    def stream_response(self, request: ModelRequest) -> CompletionStream:
        """Return the answer to `request` as a stream: text as it arrives and, last, the `Completion`.

        Nothing is sent before the first piece is asked for; `CompletionStream` says how to leave early.
        Iterating raises as `respond` does, after the text that came before the error.

        Raises:
            BadCall: there is no such option, or the request cannot be sent.
        """
        options = self.options.with_sampling(request.options)
        payload = self.dialect.encode(request, options, stream=True)
        sent = self._post(payload, options, stream=True)
        return CompletionStream(self._connections, sent, self.dialect)

    async def generate(self, prompt: str, **options: Unpack[CallArguments]) -> Completion:
        """Return the answer to `prompt`, as `respond` does.

        Options are `system`, `temperature`, `max_tokens`, `stop`, `seed`, `top_p`, `reasoning_effort`,
        `extra_body` and `extra_headers` (see `CallOptions`); those left out, or None, are the client's own.
        """
        return await self.respond(_request_of(prompt, options))

    def stream(self, prompt: str, **options: Unpack[CallArguments]) -> CompletionStream:
        """Return the answer to `prompt` as a stream, as `stream_response` does.

        The options are those of `generate`.
        """
        return self.stream_response(_request_of(prompt, options))

    async def aclose(self) -> None:
        """Close the connections, even if cancelled; a later call opens new ones.

        Calls in flight fail with a `ModelError`: at once, or when the answer begins where the connection
        was still being opened.
        """
        await self._connections.aclose()

    def _post(self, payload: dict[str, Any], options: CallOptions, *, stream: bool) -> HTTPRequest:
        """Return what is sent for `payload`."""
        given = {name: value for name, value in payload.items() if value is not None}
        try:
            content = msgspec.json.encode(given | (options.extra_body or {}))
        except (TypeError, ValueError) as error:  # ValueError: half of a surrogate pair
            raise BadCall(f"the request cannot be written as JSON: {error}") from None
        extra = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
        return HTTPRequest(self.dialect.url(stream=stream), Hidden(self._headers.value | extra), content)


def _request_of(prompt: str, arguments: CallArguments) -> ModelRequest:
    """Return the request that a call with these keyword arguments means."""
    if not isinstance(prompt, str):
        raise BadCall(f"the prompt must be text, not {type(prompt).__name__}")
    given = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in arguments.items()
        if name != "system" and value is not None
    }
    return ModelRequest.of(prompt, arguments.get("system"), SamplingOptions.of(given))


def _checked_key(provider: str, api_key: str | None) -> str:
    """Return the key without the line end that files and shells add."""
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadCall(f"the API key of {provider} has characters that no key has; was it copied whole?")
    return key
