"""What the current stage of a run looks like, kept up from its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ultra.messages.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    StageStarted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pane", "StagePanes"]

PaneState = Literal["waiting", "writing", "retrying", "answered", "failed"]


class Pane:
    """One model in one stage: the text that it has written, and how it stands.

    `retry_at`: the time, in seconds since the run began, before which no next attempt is made.
    """

    def __init__(self, model_name: str, started: float) -> None:
        self.model_name = model_name
        self.started = started
        self.state: PaneState = "waiting"
        self.response_time: float | None = None
        self.attempt = 1
        self.retry_at = started
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        """The answer so far; of a model that failed, or is tried again, its error."""
        return self.tail(None)

    def tail(self, characters: int | None) -> str:
        """The end of the text: at least so many characters of it, if it has them."""
        kept: list[str] = []
        size = 0
        for piece in reversed(self._pieces):
            kept.append(piece)
            size += len(piece)
            if characters is not None and size >= characters:
                break
        return "".join(reversed(kept))

    def apply(self, event: Event) -> None:
        """Follow one event of this model in this stage."""
        match event:
            case Chunk():
                if event.restart or self.state == "retrying":
                    self._pieces.clear()
                self.state = "writing"
                self._pieces.append(event.text)
            case ModelRetrying():
                self.state = "retrying"
                self.attempt = event.attempt + 1
                self.retry_at = event.time + event.wait
                self._pieces = [event.message]
            case ModelResponded():
                self.state = "answered"
                self.response_time = event.response.response_time
                self._pieces = [event.response.content]
            case ModelFailed():
                self.state = "failed"
                self._pieces = [event.failure.message]
            case _:
                pass


class StagePanes:
    """The models that one stage has asked so far, in the order in which it asked them."""

    def __init__(self, event: StageStarted) -> None:
        self.name = event.stage
        self.asks = event.asks
        self._panes: dict[str, Pane] = {}

    def __iter__(self) -> Iterator[Pane]:
        return iter(self._panes.values())

    def apply(self, event: Event) -> None:
        """Follow one event of this stage."""
        match event:
            case ModelStarted():
                self._panes[event.model_name] = Pane(event.model_name, event.time)
            case Chunk() | ModelRetrying() | ModelResponded() | ModelFailed():
                self._panes[event.model_name].apply(event)
            case _:
                pass
