"""What a run waits for, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ultra.cli.printable_text import one_line
from ultra.cli.report import seconds, step_title
from ultra.messages.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    StageStarted,
)
from ultra.messages.results import sample_name

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WaitingLine"]

_MOST_NAMED: Final = 8
"""Models that a line names where it has no place for all."""


_WRITES: Final = " (writes)"


class WaitingLine:
    """Follows the events of a run, and says for whom it waits."""

    def __init__(self) -> None:
        self._step = ""
        self._waiting: dict[str, str] = {}
        self._asked = 0

    def apply(self, event: Event) -> None:
        """Apply one event."""
        match event:
            case StageStarted():
                self._step = step_title(event.stage, event.round)
                self._waiting.clear()
                self._asked = 0
            case ModelStarted():
                self._asked += 1
                self._waiting[_name(event)] = ""
            case Chunk():
                self._waiting[_name(event)] = _WRITES
            case ReasoningChunk() if self._waiting.get(_name(event)) != _WRITES:
                self._waiting[_name(event)] = " (thinks)"
            case ModelRetrying():
                self._waiting[_name(event)] = f" (attempt {event.attempt + 1})"
            case ModelResponded() | ModelFailed():
                self._waiting.pop(_name(event), None)
            case _:
                pass

    def text(self, elapsed: float, width: int) -> str:
        """Return the line after so many seconds, in at most `width` characters."""
        time = seconds(elapsed)
        if not self._waiting:
            return f"{self._step or 'starting'}, {time}"[:width]
        told = _joined(f"{name}{state}" for name, state in self._waiting.items())
        done = self._asked - len(self._waiting)
        count = f", {done} of {self._asked} done" if self._asked > 1 else ""
        names = list(self._waiting)
        texts = [f"{self._step}: waiting for {told}{count}, {time}"]
        texts.append(f"{self._step}: waiting for {_joined(names)}, {time}")
        texts += [
            f"{self._step}: waiting for {', '.join(names[:shown])} and {len(names) - shown} more, {time}"
            for shown in range(min(len(names) - 1, _MOST_NAMED), 0, -1)
        ]
        shortest = f"{self._step}: {done} of {self._asked} done, {time}"[:width]
        return next((text for text in texts if len(text) <= width), shortest)


def _name(
    event: ModelStarted | Chunk | ReasoningChunk | ModelRetrying | ModelResponded | ModelFailed,
) -> str:
    return one_line(sample_name(event.model_name, event.sample))


def _joined(names: Iterable[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
