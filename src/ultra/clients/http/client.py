"""What all clients over HTTP share: calls go in, `Completion`s and `ModelError`s come out."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import trio

from ultra.clients.http.address import checked_url
from ultra.clients.http.streams import CompletionStream, Dialect
from ultra.clients.http.transport import Hidden, Limits, Pool, Request
from ultra.clients.options import CallOptions
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import httpx

    from ultra.clients.http.failures import Reply
    from ultra.clients.http.rate_limits import RateLimits
    from ultra.messages.results import Completion

__all__ = ["HTTPClient"]


class HTTPClient(Dialect):
    """A model behind an HTTP endpoint, with one pool of connections.

    Args:
        model: the provider's name of the model.
        provider: named in errors; the first half of ``provider:model``.
        base_url: of the endpoint, as the provider's official client takes it; a user and password in it
            are sent as HTTP Basic, unless a key takes the same header.
        api_key: sent in the provider's header. It appears in no repr, log or error.
        limits: timeouts and the largest answer.
        options: the defaults of every call.
        trust_env: honour the proxy and TLS variables of the environment.
        transport: in place of the network, for tests and fault injection.

    The first call opens the connections and `aclose` closes them; a later call opens new ones. The
    client can be used by several tasks, and by several trio runs, at once.
    """

    async_library: ClassVar = "trio"
    """Calls run on trio, whatever loop the program is on."""

    reopens: ClassVar = True
    """An orchestrator may close the client when it stops: a later call opens new connections."""

    def __init__(
        self,
        model: str,
        *,
        provider: str,
        base_url: str,
        api_key: str | None = None,
        limits: Limits | None = None,
        options: CallOptions | None = None,
        trust_env: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.model = model
        self.provider = provider
        self.limits = limits or Limits()
        self.options = options or CallOptions()
        key = _checked_key(provider, api_key)
        self._base_url, login = checked_url(base_url)
        sent = {"content-type": "application/json", "user-agent": "ultra-llm"}
        self._headers = Hidden(sent | login | self._authorization(key))
        self._pool = Pool(provider, self.limits, trust_env=trust_env, transport=transport)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.provider}:{self.model}>"

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the last answer, or error, told of the provider's limits; None if it told nothing."""
        return self._pool.rate_limits

    async def generate(
        self,
        prompt: str,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        top_p: float | None = None,
        reasoning_effort: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Completion:
        """Answer `prompt`; options left out are the client's own (see `CallOptions`).

        Raises:
            ModelError: whatever the provider or the network did wrong.
            BadCall: an argument has the wrong type.

        Cancellation closes the call's connection.
        """
        options = self.options.override(
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            stop=stop,
            seed=seed,
            top_p=top_p,
            reasoning_effort=reasoning_effort,
            extra_body=extra_body,
            extra_headers=extra_headers,
        )
        request = self._request(prompt, options, stream=False)
        with trio.move_on_after(self.limits.timeout):
            body = await self._pool.open(request)
            try:
                content = await body.read_all()
            finally:
                await body.aclose()
            return self._decode_whole(content, body.reply)
        raise self._pool.timed_out()

    def stream(
        self,
        prompt: str,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        top_p: float | None = None,
        reasoning_effort: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> CompletionStream:
        """Answer `prompt` piece by piece: text as it arrives and, last, the whole `Completion`.

        Nothing is sent before the first piece is asked for; `CompletionStream` says how to leave early.
        Iterating raises as `generate` does, after handing out the text that came before the error.
        """
        options = self.options.override(
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            stop=stop,
            seed=seed,
            top_p=top_p,
            reasoning_effort=reasoning_effort,
            extra_body=extra_body,
            extra_headers=extra_headers,
        )
        return CompletionStream(self._pool, self._request(prompt, options, stream=True), self)

    async def aclose(self) -> None:
        """Close the connections, even if cancelled; a later call opens new ones.

        Calls in flight fail with a `ModelError`: at once, or when the answer begins where the connection
        was still being opened.
        """
        await self._pool.aclose()

    def _decode_whole(self, content: bytes, reply: Reply) -> Completion:
        """Read an answer that is all there; some gateways stream it, though nobody asked for that."""
        if reply.content_type != "text/event-stream":
            return self.decode(content, reply)
        decoder = self.decoder(reply)
        for pieces in (decoder.feed(content), decoder.flush()):
            for _ in pieces:
                pass  # the completion has them all
        return decoder.completion()

    @abstractmethod
    def _authorization(self, api_key: str) -> dict[str, str]:
        """Return the headers that carry the key; it may be empty."""

    @abstractmethod
    def _url(self, *, stream: bool) -> str:
        """Return the whole address to post to."""

    @abstractmethod
    def _payload(self, prompt: str, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the request's JSON; entries that are None are left out."""

    def _request(self, prompt: str, options: CallOptions, *, stream: bool) -> Request:
        if not isinstance(prompt, str):
            raise BadCall(f"the prompt must be text, not {type(prompt).__name__}")
        payload = self._payload(prompt, options, stream=stream)
        payload = {name: value for name, value in payload.items() if value is not None}
        try:
            content = msgspec.json.encode(payload | (options.extra_body or {}))
        except (TypeError, ValueError) as error:  # ValueError: half of a surrogate pair
            raise BadCall(f"the request cannot be written as JSON: {error}") from None
        extra = {name.lower(): value for name, value in (options.extra_headers or {}).items()}
        return Request(self._url(stream=stream), Hidden(self._headers.value | extra), content)


def _checked_key(provider: str, api_key: str | None) -> str:
    """Return the key without the line end that files and shells add."""
    key = (api_key or "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise BadCall(f"the API key of {provider} has characters that no key has; was it copied whole?")
    return key
