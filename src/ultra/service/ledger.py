"""What the events of a run tell of its answers and failures, and whether it has cost anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    call_of,
)

if TYPE_CHECKING:
    from ultra.messages.events import CallKey, Event
    from ultra.messages.results import ModelFailure, ModelResponse

__all__ = ["Ledger"]


class Ledger:
    """Keeps account of one run.

    Attributes:
        failures: those of its models.
        answers: those of its models, by step and round.
    """

    def __init__(self) -> None:
        self.answers: dict[tuple[str, int], list[ModelResponse]] = {}
        self.failures: list[ModelFailure] = []
        self._open: dict[CallKey, None] = {}  # an empty set has three times its size
        self._paid = False

    @property
    def paid(self) -> bool:
        """Whether a call may have cost money: one that was made, whatever became of it."""
        return self._paid or bool(self._open)

    def take(self, event: Event) -> None:
        """Note what an event tells."""
        match event:
            case Chunk() | ReasoningChunk() | ModelRetrying():
                self._paid = True
            case ModelStarted():
                self._open[call_of(event)] = None
            case ModelResponded():
                self._open.pop(call_of(event), None)
                self.answers.setdefault((event.stage, event.round), []).append(event.response)
                self._paid = self._paid or not event.response.cached
            case ModelFailed():
                self._open.pop(call_of(event), None)
                self._paid = self._paid or event.failure.attempts > 0
                self.failures.append(event.failure)
            case _:
                pass
