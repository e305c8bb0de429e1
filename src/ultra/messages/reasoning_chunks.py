"""Chunks of reasoning that wait, joined to what has come of the same block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.messages.reasoning import JoinedReasoning, ends_block

if TYPE_CHECKING:
    from ultra.messages.events import ReasoningChunk

__all__ = ["WaitingReasoning"]


class WaitingReasoning:
    """A chunk of reasoning to which the next ones are joined, up to the end of its block.

    ::

        waiting = WaitingReasoning(first)
        if not waiting.joins(second):
            ...  # it is of another block, or a restart
        waiting.event()
    """

    __slots__ = ("_is_over", "_joined", "first")

    def __init__(self, first: ReasoningChunk) -> None:
        self.first = first
        self._joined = JoinedReasoning()
        self._joined.add(first.part)
        self._is_over = ends_block(first.part)

    def joins(self, chunk: ReasoningChunk) -> bool:
        """Join a chunk of the same answer; False: it does not go on with this one."""
        if chunk.restart or self._is_over or chunk.part.provider != self.first.part.provider:
            return False
        self._joined.add(chunk.part)
        self._is_over = ends_block(chunk.part)
        return True

    def event(self) -> ReasoningChunk:
        """Return all of it as one chunk."""
        (part,) = self._joined.parts()
        return replace(self.first, part=part)
