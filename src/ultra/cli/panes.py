"""The state of the current step of a run, as its events tell it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ultra.cli.report import answer_text
from ultra.cli.thoughts import Thoughts
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
    from collections.abc import Iterator

__all__ = ["Pane", "StepPanes"]

PaneState = Literal["waiting", "thinking", "writing", "retrying", "answered", "failed"]

_KEPT: Final = 500
"""Characters of reasoning that are kept: it is shown in one line."""


class Pane:
    """One answer in the step: its text so far, and its state.

    `thought` are the last words before it, and `reasoning` all of them, once it is there.
    Times are seconds since the run began; before `retry_at` there is no further attempt.
    """

    def __init__(self, model_name: str, sample: int, started: float) -> None:
        self.model_name = model_name
        self.name = sample_name(model_name, sample)
        self.started = started
        self.state: PaneState = "waiting"
        self.response_time: float | None = None
        self.is_cut = False
        self.attempt = 1
        self.retry_at = started
        self.thought = ""
        self.reasoning = ""
        self._thoughts = Thoughts()
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far or, after a failed attempt, the error."""
        return self.tail(None)

    def tail(self, characters: int | None) -> str:
        """Return the end of the text, at least so many characters; None: all of it."""
        kept: list[str] = []
        size = 0
        for piece in reversed(self._pieces):
            kept.append(piece)
            size += len(piece)
            if characters is not None and size >= characters:
                break
        return "".join(reversed(kept))

    def apply(self, event: Event) -> None:
        """Apply one event of this answer."""
        self._thoughts.take(event)
        match event:
            case Chunk():
                if event.restart or self.state == "retrying":
                    self._pieces.clear()
                self.state = "writing"
                self._pieces.append(event.text)
            case ReasoningChunk():
                if self.state == "retrying":
                    self._pieces.clear()
                if self.state != "writing":
                    self.state = "thinking"
                before = "" if event.restart else self.thought
                self.thought = (before + event.text)[-_KEPT:]
            case ModelRetrying():
                self.thought = ""
                self.state = "retrying"
                self.attempt = event.attempt + 1
                self.retry_at = event.time + event.wait
                self._pieces = [event.message]
            case ModelResponded():
                self.state = "answered"
                self.response_time = event.response.response_time
                self.is_cut = not event.response.is_whole
                self.reasoning = self._thoughts.of(event.response)
                self._pieces = [answer_text(event.response)]
            case ModelFailed():
                self.state = "failed"
                self._pieces = [event.failure.message]
            case _:
                pass


class StepPanes:
    """The answers of one step, in the order in which they were asked for."""

    def __init__(self, event: StageStarted) -> None:
        self.name = event.stage
        self.round = event.round
        self.asks = event.asks
        self._panes: dict[tuple[str, int], Pane] = {}

    def __iter__(self) -> Iterator[Pane]:
        return iter(self._panes.values())

    def apply(self, event: Event) -> None:
        """Apply one event of this step."""
        match event:
            case ModelStarted():
                self._panes[event.model_name, event.sample] = _pane(event)
            case Chunk() | ReasoningChunk() | ModelRetrying() | ModelResponded() | ModelFailed():
                # A model whose prompt could not be written fails without having started.
                self._panes.setdefault((event.model_name, event.sample), _pane(event)).apply(event)
            case _:
                pass


def _pane(
    event: ModelStarted | Chunk | ReasoningChunk | ModelRetrying | ModelResponded | ModelFailed,
) -> Pane:
    return Pane(event.model_name, event.sample, event.time)
