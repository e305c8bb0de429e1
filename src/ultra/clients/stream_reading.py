"""Reading the stream of a client to its end: text, reasoning, signs of life, and the tokens so far."""

from __future__ import annotations

from inspect import getattr_static
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.clients.checked_answers import plain, wrong_type
from ultra.clients.client_code import CLASSIFIED, told
from ultra.clients.plain_values import plain_reasoning, plain_usage
from ultra.clients.wire.text_repair import RepairedText
from ultra.errors import ModelError
from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import JoinedReasoning, ReasoningDelta, ends_block
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ultra.messages.results import Usage

__all__ = ["Counting", "collected"]

_END: Final = object()
_MISSING: Final = object()


class Counting:
    """Tells the tokens that a stream has counted so far, whenever they have changed.

    Only on trio: what is told would arrive in another thread elsewhere.
    """

    def __init__(self, stream: object, on_usage: Callable[[Usage], None]) -> None:
        # Looked up without `__getattr__`: mocks and proxies have every attribute that they are asked for.
        self._counts = getattr_static(stream, "usage", _MISSING) is not _MISSING
        self._stream = stream
        self._on_usage = on_usage
        self._told: Usage | None = None

    def look(self) -> None:
        """Tell the tokens if they have changed."""
        if not self._counts:
            return
        found = told(self._stream, "usage")
        if found is not None and found is not self._told:
            usage = plain_usage(found)
            if usage is not None:
                self._told = usage
                self._on_usage(usage)


class _Thoughts:
    """Passes on reasoning as plain values, fit to be encoded, and puts it together; signs of life, too."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._joined = JoinedReasoning()
        self._about = ReasoningPart()
        self._words: RepairedText | None = None  # most streams have none

    def feed(self, piece: str) -> None:
        """Take the next piece that is no text."""
        if not isinstance(piece, ReasoningDelta):
            self._on_text("")
            return
        part: object = piece.part
        if not isinstance(part, ReasoningPart) or not isinstance(part.text, str):
            raise wrong_type(part, "a ReasoningPart with text in a ReasoningDelta")
        self._about = plain_reasoning(replace(part, text=""))
        self._words = self._words or RepairedText(self._tell)
        self._words.feed(str.__str__(part.text))

    def filled(self, completion: Completion | None) -> Completion | None:
        """Return the whole answer with the reasoning that was streamed, where it has none of its own."""
        if self._words is None:
            return completion
        self._words.end()
        completion = completion or Completion(content="")
        return replace(
            completion,
            reasoning=completion.reasoning or self._joined.text or None,
            reasoning_parts=completion.reasoning_parts or tuple(filter(ends_block, self._joined.parts())),
        )

    def _tell(self, words: str) -> None:
        part = replace(self._about, text=words)
        self._joined.add(part)
        self._on_text(ReasoningDelta.of(part))


async def collected(
    pieces: AsyncIterator[object], on_text: Callable[[str], None] | None, counting: Counting | None
) -> object:
    """Return the whole answer in `pieces`, each of which goes to `on_text` as it comes.

    Raises `ModelError`: the client failed, or gave something else than a stream of text.
    """
    text: list[str] = []
    on_text = on_text or (lambda _: None)
    heard = RepairedText(on_text)
    thoughts = _Thoughts(on_text)
    completion: Completion | None = None
    while True:
        with CLASSIFIED:
            piece = await anext(pieces, _END)
        if piece is _END:
            break
        if counting is not None:
            counting.look()
        if completion is not None:
            raise ModelError(
                "the stream went on after its Completion",
                kind="protocol",
                retryable=False,
                usage=completion.usage,
            )
        if isinstance(piece, Completion):
            completion = plain(piece)
        elif not isinstance(piece, str):
            raise wrong_type(piece, "str or Completion in a stream")
        elif said := str.__str__(piece):
            text.append(said)
            heard.feed(said)
        else:
            thoughts.feed(piece)
    heard.end()
    completion = thoughts.filled(completion)
    if completion is None:
        return "".join(text)
    return completion if completion.content else replace(completion, content="".join(text))
