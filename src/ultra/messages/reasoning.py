"""Reasoning while it is written: the pieces in which it comes, and putting them together again."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace

from ultra.messages.chat import ReasoningPart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.messages.results import Completion

__all__ = ["JoinedReasoning", "ReasoningDelta", "ends_block", "joined_reasoning", "reasoning_pieces"]


class ReasoningDelta(str):
    """A piece of a stream that is no text of the answer: the next words that the model thinks.

    As a text it is empty, so code that knows only text takes it for the sign of life that it is, too. What it
    tells is in `part`. One with a signature, or an encrypted form, ends a block of reasoning::

        async def stream(self, prompt):
            yield ReasoningDelta("France, so")
            yield "Paris."

    Args:
        text: the words.
        provider: the dialect of the model; what it wants back goes to no other.
        signature, encrypted, id: as in `ReasoningPart`.
    """

    __slots__ = ("part",)

    part: ReasoningPart

    def __new__(
        cls,
        text: str = "",
        provider: str = "",
        *,
        signature: str | None = None,
        encrypted: str | None = None,
        id: str | None = None,  # noqa: A002 - the field of `ReasoningPart`
    ) -> Self:
        """Make one of its words."""
        return cls.of(ReasoningPart(text, provider, signature, encrypted, id))

    @classmethod
    def of(cls, part: ReasoningPart) -> Self:
        """Make one of what it tells."""
        delta = super().__new__(cls)
        delta.part = part
        return delta

    def __repr__(self) -> str:
        return f"ReasoningDelta({self.part.text!r})"


def ends_block(part: ReasoningPart) -> bool:
    """Return whether a block of reasoning ends with this piece of it: its provider has sealed it."""
    return part.signature is not None or part.encrypted is not None


class JoinedReasoning:
    """Pieces of reasoning, joined: each block of it is one part.

    ::

        reasoning = JoinedReasoning()
        reasoning.add(ReasoningPart("One ", "anthropic"))
        reasoning.add(ReasoningPart("and one.", "anthropic", signature="…"))
        reasoning.parts() == [ReasoningPart("One and one.", "anthropic", signature="…")]
    """

    __slots__ = ("_blocks", "_last", "_text")

    def __init__(self) -> None:
        self._blocks: list[ReasoningPart] = []
        self._last: ReasoningPart | None = None  # of a block that goes on; its text is in the buffer
        self._text: StringIO | None = None  # a list of pieces would take many times the memory

    def __bool__(self) -> bool:
        return bool(self._blocks) or self._last is not None

    def add(self, part: ReasoningPart) -> None:
        """Add the next piece."""
        before = self._last
        if before is not None and before.provider != part.provider:
            self._end()
            before = None
        if before is None:
            self._last = part
        else:
            if self._text is None:
                self._text = StringIO()
                self._text.write(before.text)
            self._text.write(part.text)
            if ends_block(part) or part.id is not None:
                self._last = replace(part, id=part.id or before.id)
        if ends_block(part):
            self._end()

    def parts(self) -> list[ReasoningPart]:
        """Return the blocks so far, the last of which may go on."""
        last = self._open()
        return [*self._blocks] if last is None else [*self._blocks, last]

    @property
    def text(self) -> str:
        """All words so far."""
        return "".join(part.text for part in self.parts())

    def _open(self) -> ReasoningPart | None:
        last = self._last
        return last if last is None or self._text is None else replace(last, text=self._text.getvalue())

    def _end(self) -> None:
        last = self._open()
        if last is not None:
            self._blocks.append(last)
        self._last = self._text = None


def joined_reasoning(pieces: Iterable[ReasoningPart]) -> list[ReasoningPart]:
    """Return pieces of reasoning with those of one block joined."""
    joined = JoinedReasoning()
    for piece in pieces:
        joined.add(piece)
    return joined.parts()


def reasoning_pieces(completion: Completion) -> list[ReasoningPart]:
    """Return the reasoning of a whole answer as a stream would have told it, ahead of its text."""
    parts = completion.reasoning_parts
    told = [part for part in parts if part.text or part.encrypted]
    if any(part.text for part in told) or not completion.reasoning:
        return told
    provider = parts[0].provider if parts else ""
    return [ReasoningPart(completion.reasoning, provider), *told]
