"""Decoders of streamed answers: bytes go in, pieces of text and the whole `Completion` come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from ultra.clients.wire.event_streams import EventSplitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ultra.clients.wire.event_streams import Event
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.errors import ModelError
    from ultra.messages.results import Completion

__all__ = ["AnswerDecoder", "EventDecoder", "PlainAnswer"]


class AnswerDecoder(ABC):
    """Decodes one streamed answer in one dialect.

    So it is used::

    decoder = dialect.decoder(head)
    for data in body:
        texts += decoder.feed(data)
    texts += decoder.flush()
    completion = decoder.completion()
    """

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self.finished = False
        """The model has said why it stopped, so all of its text has been seen."""
        self.terminated = False
        """The stream has said that nothing follows."""

    @abstractmethod
    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the pieces of text that `data` completes. Raises `ModelError`."""

    @abstractmethod
    def flush(self) -> Iterator[str]:
        """Yield what was still waiting for its end when the body ended. Raises `ModelError`."""

    @abstractmethod
    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` where the stream ended too early."""


class EventDecoder(AnswerDecoder):
    """Decodes an answer that comes as server-sent events."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        self._events = EventSplitter()

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the text of each event that `data` completes. Raises `ModelError`."""
        return self._texts(self._events.feed(data))

    def flush(self) -> Iterator[str]:
        """Yield the text of a last event that no blank line ended. Raises `ModelError`."""
        return self._texts(self._events.flush())

    @abstractmethod
    def read(self, name: str, data: bytes) -> str:
        """Return the text in one event's `data`, which is not empty. Raises `ModelError`."""

    def cut_off(self) -> ModelError:
        """Make the error for a stream that ended too early: what it says outside of events, if anything.

        Gemini reports an error in mid-stream as bare JSON, a gateway its own as a page of HTML.
        """
        stray = self._events.stray
        return self.head.failure_inside(stray) if stray.strip() else self.head.cut_off()

    def _texts(self, events: list[Event]) -> Iterator[str]:
        for event in events:
            if self.terminated:
                return
            if data := event.data.strip():
                yield self.read(event.name, data)


class PlainAnswer(AnswerDecoder):
    """Decodes an answer that comes in one piece, though a stream was asked for: some gateways do not stream.

    Args:
        head: of the response.
        decode: decodes a plain answer of the dialect.
    """

    def __init__(self, head: ResponseHead, decode: Callable[[bytes, ResponseHead], Completion]) -> None:
        super().__init__(head)
        self._decode = decode
        self._content = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Keep `data` until there is all of it."""
        self._content += data
        return iter(())

    def flush(self) -> Iterator[str]:
        """Yield the whole text. Raises `ModelError`."""
        self._completion = self._decode(bytes(self._content), self.head)
        if self._completion.content:
            yield self._completion.content

    def completion(self) -> Completion:
        """Return the whole answer."""
        return self._completion
