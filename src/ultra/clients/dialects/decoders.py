"""Decoders of streamed answers: bytes go in, pieces of text and the whole `Completion` come out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, TypeAlias

from ultra.clients.dialects.usage import counted
from ultra.clients.wire.event_streams import BYTE_ORDER_MARK, EventSplitter
from ultra.messages.reasoning import ReasoningDelta, reasoning_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from ultra.clients.wire.event_streams import Event
    from ultra.clients.wire.response_head import ResponseHead
    from ultra.errors import ModelError
    from ultra.messages.results import Completion, Usage

__all__ = [
    "PIECES_AT_ONCE",
    "AnswerDecoder",
    "Decoding",
    "EventDecoder",
    "PlainAnswer",
    "SniffedAnswer",
    "decode_stream",
    "new_text",
]

Decoding: TypeAlias = "Generator[None, None, Completion]"
"""Work that returns a whole answer; at each step, others may have their turn."""

PIECES_AT_ONCE: Final = 256
"""Pieces after which others have their turn: a server may send thousands of tiny ones together."""

_SLICE: Final = 16 * 1024  # bytes of an answer that are split into events at once


_DONE: Final = b"[DONE]"
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_LONGEST_FIELD: Final = max(map(len, _FIELDS))

_SHORTEST_REPEATED: Final = 6  # characters; less may well be said twice


class AnswerDecoder(ABC):
    """Decodes one streamed answer in one dialect.

    It is used like this::

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
        """Yield the pieces of text that `data` completes, and reasoning as `ReasoningDelta`.

        Raises `ModelError`.
        """

    @abstractmethod
    def flush(self) -> Iterator[str]:
        """Yield what was still waiting for its end when the body ended. Raises `ModelError`."""

    @abstractmethod
    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` where the stream ended too early."""

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them; None: it has told none."""
        return None


class EventDecoder(AnswerDecoder):
    """Decodes an answer that comes as server-sent events."""

    def __init__(self, head: ResponseHead) -> None:
        super().__init__(head)
        head.expect_documents()
        self._events = EventSplitter()
        self._heard = False
        self.thoughts: list[ReasoningDelta] = []
        """The reasoning in the event that was just read; a dialect adds it."""

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

    def check_end(self) -> None:
        """Raise `ModelError` if the stream ended too early: with no reason and no end of its own."""
        if not self.finished and not (self.terminated and self._heard):
            raise self.cut_off()

    def _texts(self, events: list[Event]) -> Iterator[str]:
        for event in events:
            if self.terminated:
                return
            data = event.data.strip()
            if data == _DONE:  # whatever the dialect: gateways add it to all
                self.terminated = True
            elif data and (event.name == "error" or data[:1] not in b"{["):
                raise self.head.failure_inside(data)  # words, or an error by its name
            elif data:
                text = self.read(event.name, data)
                self._heard = self._heard or bool(text)
                if self.thoughts:
                    yield from self.thoughts
                    self.thoughts.clear()
                yield text


class PlainAnswer(AnswerDecoder):
    """Decodes an answer that comes in one piece, though a stream was asked for: some gateways do not stream.

    Args:
        head: of the response.
        decode: decodes a plain answer of the dialect, in pieces.
    """

    def __init__(self, head: ResponseHead, decode: Callable[[bytes, ResponseHead], Decoding]) -> None:
        super().__init__(head)
        self._decode = decode
        self._content = bytearray()

    def feed(self, data: bytes) -> Iterator[str]:
        """Keep `data` until there is all of it."""
        self._content += data
        return iter(())

    def flush(self) -> Iterator[str]:
        """Yield the reasoning and the whole text, after a sign of life for each piece of the work.

        Raises `ModelError`.
        """
        work = self._decode(_without_done(bytes(self._content)), self.head)
        self._completion = yield from _as_signs(work)
        yield from map(ReasoningDelta.of, reasoning_pieces(self._completion))
        if self._completion.content:
            yield self._completion.content

    def completion(self) -> Completion:
        """Return the whole answer."""
        return self._completion


class SniffedAnswer(AnswerDecoder):
    """Decodes an answer by what it is: events or a whole JSON, whatever the type in its head says.

    Args:
        head: of the response.
        events: makes the decoder of a streamed answer.
        whole: makes the decoder of an answer in one piece.
        expected: the one of these two for an answer that begins like neither.
    """

    def __init__(
        self,
        head: ResponseHead,
        events: Callable[[ResponseHead], AnswerDecoder],
        whole: Callable[[ResponseHead], AnswerDecoder],
        expected: Callable[[ResponseHead], AnswerDecoder],
    ) -> None:
        super().__init__(head)
        self._events, self._whole, self._expected = events, whole, expected
        self._start = b""
        self._inner: AnswerDecoder | None = None

    def feed(self, data: bytes) -> Iterator[str]:
        """Yield the pieces of text that `data` completes. Raises `ModelError`."""
        if self._inner is None:
            # Servers send blank lines while their model is at work.
            self._start = (self._start + data).removeprefix(BYTE_ORDER_MARK).lstrip()
            make = self._sniff()
            if make is None:
                return iter(())
            self._inner, data = make(self.head), self._start
        return self._inner.feed(data)

    def flush(self) -> Iterator[str]:
        """Yield what was still waiting for its end when the body ended. Raises `ModelError`."""
        if self._inner is None:
            self._inner = self._expected(self.head)
            yield from self._inner.feed(self._start)
        yield from self._inner.flush()

    def completion(self) -> Completion:
        """Return the whole answer. Raises `ModelError` where the stream ended too early."""
        if self._inner is None:
            raise self.head.cut_off()
        return self._inner.completion()

    @property
    def usage(self) -> Usage | None:
        """The tokens of the call, as far as the stream has told them."""
        return None if self._inner is None else self._inner.usage

    # What is said of the end is never kept here: a reader may stop in the middle of the pieces.

    @property
    def finished(self) -> bool:
        """Whether the model has said why it stopped."""
        return self._inner is not None and self._inner.finished

    @finished.setter
    def finished(self, _: bool) -> None:
        pass

    @property
    def terminated(self) -> bool:
        """Whether the stream has said that nothing follows."""
        return self._inner is not None and self._inner.terminated

    @terminated.setter
    def terminated(self, _: bool) -> None:
        pass

    def _sniff(self) -> Callable[[ResponseHead], AnswerDecoder] | None:
        """Return what makes the decoder; None if too little has come to know."""
        start = self._start
        if start.startswith((b"{", b"[")):
            return self._whole
        if start.startswith(_FIELDS):
            return self._events
        if len(start) < _LONGEST_FIELD and any(field.startswith(start) for field in _FIELDS):
            return None
        return self._expected


def _as_signs(work: Decoding) -> Generator[str, None, Completion]:
    """Do the work, and yield a sign of life after each piece of it."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            completion: Completion = ended.value
            return completion
        yield ""


def decode_stream(decoder: AnswerDecoder, content: bytes) -> Decoding:
    """Return the answer whose whole stream is `content`. Raises `ModelError`."""
    pieces = 0
    with counted(decoder):
        for begin in range(0, len(content), _SLICE):
            for _ in decoder.feed(content[begin : begin + _SLICE]):  # the completion has them all
                pieces += 1
                if pieces % PIECES_AT_ONCE == 0:
                    yield
        for _ in decoder.flush():
            pass
        return decoder.completion()


def new_text(texts: list[str], text: str, *, last: bool, whole: bool = False) -> str:
    """Return what is new in `text`, a piece of a stream, after `texts`.

    Some servers repeat the whole message in the last piece.

    Args:
        texts: the pieces before it, none empty.
        text: the piece.
        last: whether the model has said why it stopped.
        whole: whether the piece calls itself a whole message.
    """
    if not last or not texts:
        return text
    length = 0  # of what is repeated; it is not put together, or each piece would cost as much as all
    for before in texts:
        if not text.startswith(before, length):
            return text
        length += len(before)
    repeated = whole or (len(texts) > 1 and length >= _SHORTEST_REPEATED)
    return text[length:] if repeated else text


def _without_done(content: bytes) -> bytes:
    """Return `content` without the event behind it that ends a stream."""
    stripped = content.rstrip()
    if not stripped.endswith(_DONE) or stripped.startswith(_DONE):
        return content
    return stripped.removesuffix(_DONE).rstrip().removesuffix(b"data:").rstrip()
