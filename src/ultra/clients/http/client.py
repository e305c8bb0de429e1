"""A client over HTTP: requests go in, `Completion`s and `ModelError`s come out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, ClassVar, Final, TypedDict

import msgspec
import trio
from msgspec import structs

from ultra._support.cooperative import run_in_pieces
from ultra._support.secrecy import hiding_frames
from ultra.clients.catalog import Facts, ModelInfo, known_info
from ultra.clients.http.completion_stream import CompletionStream
from ultra.clients.http.connections import Connections, Hidden
from ultra.clients.http.fetching import MediaFetcher, addresses_in, with_bytes
from ultra.clients.http.limits import HTTPLimits
from ultra.clients.http.offered_models import offered_models
from ultra.clients.http.wording import Learned, Wording
from ultra.clients.options import CallOptions, checked_key
from ultra.clients.structured import as_model_takes_it
from ultra.errors import BadCall, ModelError
from ultra.messages.request import ModelRequest, SamplingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Unpack

    import httpx

    from ultra.clients.dialects.base import Dialect
    from ultra.clients.dialects.model_lists import OfferedModel
    from ultra.clients.options import CallArguments
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.chat import FilePart, ImagePart
    from ultra.messages.results import Completion

__all__ = ["DEPTH_HEADER", "HTTPClient", "HTTPSettings"]

DEPTH_HEADER: Final = "x-ultra-depth"
"""How deep in services of Ultra a call is made: 1 for those of a service that a program calls."""

_CREDENTIALS: Final = frozenset(
    {"authorization", "proxy-authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"}
)
"""Headers that say who pays. They change, and the answers do not."""


class HTTPSettings(TypedDict, total=False):
    """The arguments of `HTTPClient` beside its dialect."""

    api_key: str | None
    limits: HTTPLimits | None
    options: CallOptions | None
    info: Facts | None
    trust_env: bool
    transport: httpx.AsyncBaseTransport | None
    fetch_urls: bool | MediaFetcher


class HTTPClient:
    """A model behind an HTTP endpoint: sends what a dialect encodes, and decodes by it what comes back.

    Args:
        dialect: which model is asked, where, and in which words.
        api_key: sent in the dialect's header. It appears in no repr, log or error.
        limits: timeouts and the largest answer.
        options: the defaults of every call.
        info: what the program knows of the model; it goes before what the catalog says.
        trust_env: honour the proxy and TLS variables of the environment.
        transport: in place of the network, for tests and fault injection.
        fetch_urls: whether images and documents that are given by their address are fetched where the API
            takes only bytes; or what fetches them.

    The first call opens the connections and `aclose` closes them; a later call opens new ones. The
    client can be used by several tasks, and by several trio runs, at once.

    Where the server refuses a request for something that it can do without (a system prompt apart from the
    messages, a name of a field, a temperature, streaming), the request is sent once more without it, and the
    client remembers that; see `ultra.clients.quirks`.

    Attributes:
        info: what is known of the model (a `ModelInfo`): what the program told, else what the catalog says.

    Raises:
        BadCall: the key has characters that no key has.
    """

    async_library: ClassVar = "trio"
    """Calls run on trio, even where the program is on asyncio."""

    reopens: ClassVar = True
    """An orchestrator may close the client when it stops: a later call opens new connections."""

    tells_finish_reason: ClassVar = True
    """Every API says why a model stopped. An answer that says nothing is taken, and not kept for others."""

    option_names: ClassVar = frozenset(CallOptions.__struct_fields__) - {"system"}
    """The options that a request may set; an orchestrator leaves out those that only other clients take."""

    @hiding_frames
    def __init__(
        self,
        dialect: Dialect,
        *,
        api_key: str | None = None,
        limits: HTTPLimits | None = None,
        options: CallOptions | None = None,
        info: Facts | None = None,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        fetch_urls: bool | MediaFetcher = False,
    ) -> None:
        self._fetcher = (
            (MediaFetcher() if fetch_urls else None) if isinstance(fetch_urls, bool) else fetch_urls
        )
        self.dialect = dialect
        self.limits = limits or HTTPLimits()
        self.options = options or CallOptions()
        self._identity: tuple[CallOptions, ModelInfo, str] | None = None
        key = checked_key(self.provider, api_key)
        sent = {"content-type": "application/json", "user-agent": "ultra-llm"}
        self._headers = Hidden(sent | dialect.login | dialect.headers(key))
        known = known_info(dialect.provider, dialect.base_url, dialect.model)
        told = Facts(context_window=self.options.context_window)
        self.info: ModelInfo = known.with_facts(info or Facts()).with_facts(told)
        self._learned = Learned(dialect, self.info.quirks)
        self._connections = Connections(self.provider, self.limits, trust_env=trust_env, transport=transport)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.provider}:{self.model}>"

    def tell_depth(self, depth: int) -> None:
        """Send with each call how deep in services of Ultra it is made; see `DEPTH_HEADER`.

        A service refuses what another service asks of it: two ensembles that name each other would never end.
        """
        self._headers = Hidden(self._headers.value | {DEPTH_HEADER: str(depth)})

    @property
    def model(self) -> str:
        """The provider's name of the model."""
        return self.dialect.model

    @property
    def provider(self) -> str:
        """The name of the provider, as it stands in errors."""
        return self.dialect.provider

    @property
    def context_window(self) -> int | None:
        """How many tokens prompt and answer may have together: as told, or known; None: it is not known."""
        return self.options.context_window or self.info.context_window

    @property
    def cache_identity(self) -> str:
        """A digest of all that can change an answer beside the request: dialect, address, own options, facts.

        Of the facts of its model, those that change what is sent: the form of a schema, and quirks. It shows
        none of these, and depends on no key: neither that of the client, nor one in `extra_headers`.
        """
        known = self._identity
        if known is None or known[0] is not self.options or known[1] is not self.info:
            self._identity = known = self.options, self.info, self._identify()
        return known[2]

    def _identify(self) -> str:
        options = self.options
        headers = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
        kept = {name: value for name, value in sorted(headers.items()) if name not in _CREDENTIALS}
        said = (
            type(self.dialect).__qualname__,
            self.provider,
            self.model,
            self.dialect.url(stream=False),
            {**structs.asdict(options), "extra_headers": kept},
            (self.info.output, self.info.quirks),  # they change what is sent
        )
        try:
            encoded = msgspec.json.encode(said)  # in its order: a body may hold a schema
        except (TypeError, ValueError, RecursionError):  # calls fail with the same, and say so
            encoded = repr(said).encode("utf-8", "backslashreplace")
        return f"{self.provider}:{self.model}:{blake2b(encoded, digest_size=16).hexdigest()}"

    def longest_answer(self, options: SamplingOptions) -> int | None:
        """Return how many tokens an answer may have that is asked for with these options.

        Reasoning is included. None: nothing limits it but the model. Raises `BadCall` for unknown options.
        """
        merged = self._with_sampling(options)
        return merged.max_tokens or self.dialect.default_limit(merged)

    def _with_sampling(self, sampling: SamplingOptions) -> CallOptions:
        options = self.options.with_sampling(sampling)
        does_not_think = self.info.reasoning is False or options.reasoning_effort == "none"
        if options.show_reasoning and does_not_think:
            return structs.replace(options, show_reasoning=None)  # some APIs would refuse it, or let it think
        return options

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
        addresses = self._addresses(request)
        if addresses:
            return await self.respond(await self._fetched(request, addresses))
        options = self._with_sampling(request.options)
        request, options = as_model_takes_it(request, options, self.info.output, self._learned.dialect)
        learned = self._learned
        asked, asked_with = learned.quirks.conversation(request, options)
        payload = learned.dialect.encode(asked, asked_with, stream=False)
        wording = Wording(learned, request, options, payload, self._headers, stream=False)
        with trio.move_on_after(self.limits.timeout):
            while True:
                failure: ModelError
                try:
                    completion = await self._exchange(wording)
                except ModelError as error:
                    failure = error
                else:
                    wording.accepted()
                    return completion
                if not wording.refused(failure):
                    raise wording.explained(failure)
        raise self._connections.timed_out()

    def stream_response(self, request: ModelRequest) -> CompletionStream:
        """Return the answer to `request` as a stream: text as it arrives and, last, the `Completion`.

        An empty piece says that the model is at work (it thinks, or the server sent a ping). What it thinks
        comes as `ReasoningDelta`, an empty piece that tells it.

        Nothing is sent before the first piece is asked for; `CompletionStream` says how to leave early.
        Iterating raises as `respond` does, after the text that came before the error.

        Raises:
            BadCall: there is no such option, or the request cannot be sent.
        """
        addresses = self._addresses(request)
        if addresses:
            return CompletionStream(self._connections, partial(self._stream_fetched, request, addresses))
        options = self._with_sampling(request.options)
        request, options = as_model_takes_it(request, options, self.info.output, self._learned.dialect)
        learned = self._learned
        asked, asked_with = learned.quirks.conversation(request, options)
        payload = learned.dialect.encode(asked, asked_with, stream=not learned.quirks.no_stream)
        wording = Wording(learned, request, options, payload, self._headers, stream=True)
        return CompletionStream(self._connections, wording)

    async def generate(self, prompt: str, **options: Unpack[CallArguments]) -> Completion:
        """Return the answer to `prompt`, as `respond` does.

        Options are `system`, `temperature`, `max_tokens`, `stop`, `seed`, `top_p`, `reasoning_effort`,
        `show_reasoning`, `context_window`, `extra_body` and `extra_headers` (see `CallOptions`); those left
        out, or None, are the client's own.
        """
        return await self.respond(_request_of(prompt, options))

    def stream(self, prompt: str, **options: Unpack[CallArguments]) -> CompletionStream:
        """Return the answer to `prompt` as a stream, as `stream_response` does, of text alone.

        The options are those of `generate`.
        """
        return self.stream_response(_request_of(prompt, options)).only_text()

    async def list_models(self) -> tuple[OfferedModel, ...]:
        """Return the models that the endpoint offers, in its order, with what is known of each.

        The lists of all pages are joined. Cancellation closes the call's connection.

        Raises:
            ModelError: the provider or the network failed, or the answer is no list of models.
            BadCall: the API has no such list.
        """
        return await offered_models(self._connections, self.dialect, self._headers, self.options, self.limits)

    async def aclose(self) -> None:
        """Close the connections, even if cancelled; a later call opens new ones.

        Calls in flight fail with a `ModelError`: at once, or when the answer begins where the connection
        was still being opened.
        """
        await self._connections.aclose()

    def _addresses(self, request: ModelRequest) -> list[ImagePart | FilePart]:
        """Return the images and documents of which the request has the address and the API needs bytes."""
        dialect, quirks = self._learned.dialect, self._learned.quirks
        images = quirks.no_image_urls or not dialect.image_urls
        files = (quirks.no_file_urls and not quirks.responses) or not dialect.file_urls
        return addresses_in(request.messages, images=images, files=files) if images or files else []

    async def _fetched(
        self, request: ModelRequest, addresses: Sequence[ImagePart | FilePart]
    ) -> ModelRequest:
        """Return `request` with the bytes of what stands at `addresses`. Raises `ModelError`."""
        return await with_bytes(request, addresses, self._fetcher, f"{self.provider}:{self.model}")

    async def _stream_fetched(
        self, request: ModelRequest, addresses: Sequence[ImagePart | FilePart]
    ) -> CompletionStream:
        return self.stream_response(await self._fetched(request, addresses))

    async def _exchange(self, wording: Wording) -> Completion:
        """Send the request once, and return the answer. Raises `ModelError`."""
        body = await self._connections.open(wording.to_send())
        try:
            content = await body.read_all()
        finally:
            await body.aclose()
        completion = await run_in_pieces(wording.dialect.decode_whole(content, body.head))
        return wording.checked(completion)


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
