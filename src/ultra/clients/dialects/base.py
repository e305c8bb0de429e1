"""What a dialect is: how one kind of API is asked, and how its answers are read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ultra.clients.dialects.decoders import EventDecoder, PlainAnswer, SniffedAnswer, decode_stream
from ultra.clients.wire.addresses import checked_url
from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage, ReasoningPart

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.dialects.decoders import AnswerDecoder, Decoding
    from ultra.clients.dialects.model_lists import ModelPage
    from ultra.clients.options import CallOptions
    from ultra.clients.quirks import Quirks
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion
    from ultra.messages.tools import Tool

__all__ = ["OPENING", "Dialect", "apart", "messages_of", "offered_tools", "reasoning_of"]

OPENING: Final = "[The assistant speaks first.]"
"""What the user says ahead of a conversation that the assistant begins, where an API takes none such."""


class Dialect(ABC):
    """One model behind one API, as values: what is sent to it, and what its answers mean.

    A dialect does no input or output: `HTTPClient` sends what a dialect encodes, and hands it what comes
    back. One object serves any number of calls at once, since it remembers nothing of them. A new one is
    a subclass in a file of its own::

        class Parrot(Dialect):
            stream_decoder = ParrotDecoder

            def headers(self, api_key): return {"x-key": api_key}
            def url(self, *, stream): return f"{self.base_url}/say"
            def encode(self, request, options, *, stream): return {"text": request.prompt}
            def decode(self, content, head): return Completion(content=content.decode())

        client = HTTPClient(Parrot("m", provider="parrot", base_url="https://parrot.example"))

    Args:
        model: the provider's name of the model.
        provider: named in errors; the first half of ``provider:model``.
        base_url: of the endpoint. A user and a password in it are taken out, into `login`.

    Attributes:
        login: the header that carries the user and the password, if there are any; it holds a secret.

    Raises:
        BadCall: `base_url` is no address of an endpoint.
    """

    stream_decoder: ClassVar[type[AnswerDecoder]]
    """Decodes a streamed answer."""

    json_mode: ClassVar[Mapping[str, Any]] = {}
    """What asks for JSON of any shape, at the top level of what is sent; empty: the API has no such mode."""

    strict_schemas: ClassVar[bool] = False
    """Whether the API takes only schemas without bounds, whose objects are closed."""

    image_urls: ClassVar[bool] = True
    """Whether the API takes images by their address, and not only their bytes."""

    file_urls: ClassVar[bool] = True
    """Whether it takes documents so."""

    unknown_options: ClassVar[frozenset[str]] = frozenset()
    """Options of a call that the API does not have; they are left out of what is sent."""

    def __init__(self, model: str, *, provider: str, base_url: str) -> None:
        self.model = model
        self.provider = provider
        self.base_url, self.login = checked_url(base_url)

    @abstractmethod
    def headers(self, api_key: str) -> dict[str, str]:
        """Return the headers that carry the key, which may be empty, and what else the API wants there."""

    @abstractmethod
    def url(self, *, stream: bool) -> str:
        """Return the whole address to post to."""

    @abstractmethod
    def encode(self, request: ModelRequest, options: CallOptions, *, stream: bool) -> dict[str, Any]:
        """Return the JSON to post; entries that are None are left out.

        Args:
            request: whose messages are encoded.
            options: of this call: those of the request, before the defaults of the client.
            stream: whether the answer is to be streamed.
        """

    def default_limit(self, options: CallOptions) -> int | None:  # noqa: ARG002 - most APIs need none
        """Return the `max_tokens` that are sent where the options have none; None: nothing is sent."""
        return None

    def adapted(self, quirks: Quirks) -> Dialect:  # noqa: ARG002 - for dialects that have another form
        """Return the dialect to speak to an endpoint with these quirks: this one, or another form of it."""
        return self

    @abstractmethod
    def decode(self, content: bytes, head: ResponseHead) -> Completion:
        """Return the plain answer that `content` is. Raises `ModelError`."""

    def models_url(self, after: str | None) -> str:  # noqa: ARG002 - most have one page
        """Return the address of the list of models, or of its page `after` the one that named it so.

        Raises `BadCall` if the API has no such list.
        """
        raise BadCall(f"{self.provider} has no list of models")

    def decode_models(self, content: bytes, head: ResponseHead) -> ModelPage:  # noqa: ARG002 - as above
        """Return one page of the list of models. Raises `ModelError`."""
        raise BadCall(f"{self.provider} has no list of models")

    def check(self, completion: Completion, request: ModelRequest) -> None:  # noqa: B027 - most have nothing to check
        """Raise `ModelError` if `completion` shows that the server answered something else than `request`."""

    def decoder(self, head: ResponseHead) -> AnswerDecoder:
        """Return a decoder for one streamed answer, which may turn out to be a plain one."""
        plain = head.content_type == "application/json"
        if not issubclass(self.stream_decoder, EventDecoder):
            return self._plain(head) if plain else self.stream_decoder(head)
        return SniffedAnswer(
            head, self.stream_decoder, self._plain, self._plain if plain else self.stream_decoder
        )

    def decode_whole(self, content: bytes, head: ResponseHead) -> Decoding:
        """Return the answer that `content` is, plain or streamed: some gateways stream unasked.

        In pieces, since such a stream may have millions of events. Raises `ModelError`.
        """
        events = head.content_type == "text/event-stream"
        if not issubclass(self.stream_decoder, EventDecoder):
            if not events:
                return self.decode(content, head)
            decoder = self.decoder(head)
        else:
            expected = self.stream_decoder if events else self._plain
            decoder = SniffedAnswer(head, self.stream_decoder, self._plain, expected)
        return (yield from decode_stream(decoder, content))

    def _plain(self, head: ResponseHead) -> PlainAnswer:
        return PlainAnswer(head, self._decode_at_once)

    def _decode_at_once(self, content: bytes, head: ResponseHead) -> Decoding:
        yield from ()  # one JSON is decoded at once
        return self.decode(content, head)


def messages_of(request: ModelRequest, options: CallOptions) -> list[ChatMessage]:
    """Return the messages to send, in order.

    Where the request has no system message, that of `options` comes first. Empty system messages, and
    those of blanks alone, are left out: some APIs refuse them.
    """
    messages = list(request.messages)
    if options.system is not None and request.system is None:
        messages.insert(0, ChatMessage("system", options.system))
    return [message for message in messages if message.role != "system" or message.text.strip()]


def offered_tools(request: ModelRequest) -> tuple[Tool, ...]:
    """Return the tools to send to an API that has no choice of tools: none, or only the one to call."""
    choice = request.tool_choice
    if choice is None or choice.mode in {"auto", "required"}:
        return request.tools
    return tuple(tool for tool in request.tools if tool.name == choice.name)


def reasoning_of(message: ChatMessage, *providers: str) -> list[ReasoningPart]:
    """Return the reasoning in `message` that one of these providers made, and wants back."""
    if isinstance(message.content, str):
        return []
    return [p for p in message.content if isinstance(p, ReasoningPart) and p.provider in providers]


def apart(messages: list[ChatMessage]) -> tuple[str | None, list[ChatMessage]]:
    """Return the system messages as one text, None if there are none, and the other messages.

    For the APIs that take the system prompt beside the messages.
    """
    system = [message.text for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    return "\n\n".join(system) or None, others
