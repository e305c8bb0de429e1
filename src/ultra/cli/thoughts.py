"""What a model thinks before it writes, gathered for a view that shows all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.messages.events import Event, ModelRetrying, ReasoningChunk

if TYPE_CHECKING:
    from ultra.messages.results import ModelResponse

__all__ = ["Thoughts"]


class Thoughts:
    """The reasoning ahead of one answer."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def take(self, event: Event) -> None:
        """Take an event of this answer; of a failed attempt, nothing is kept."""
        if isinstance(event, ModelRetrying) or (isinstance(event, ReasoningChunk) and event.restart):
            self._pieces.clear()
        if isinstance(event, ReasoningChunk):
            self._pieces.append(event.text)

    def of(self, response: ModelResponse) -> str:
        """Return what was thought ahead of the answer that has come: as told, or as its parts have it."""
        told = "".join(self._pieces).strip()
        parts = (part.text.strip() for part in response.reasoning_parts)
        return told or "\n\n".join(part for part in parts if part)
