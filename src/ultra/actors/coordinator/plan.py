"""What a run is to do: which stages, which models, with which words, within which time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from msgspec import Struct

from ultra.actors.model.actor import RegisteredModel
from ultra.actors.runtime.actor import ActorRef
from ultra.bridge.caller import Caller
from ultra.errors import DeadlineExceeded

if TYPE_CHECKING:
    from ultra.actors.coordinator.run import Run
    from ultra.messages.events import Event

__all__ = ["Compose", "ComposedPrompt", "EventSink", "RunPlan", "Score", "StagePlan", "Target", "Write"]

UNHEARD_OF: Final = 1.0
"""Seconds after the deadline of a run when whoever waits for it gives it up.

A run ends by itself at its deadline; one that does not has a coordinator that hangs, or never got to
know of it.
"""

MOST_KEPT: Final = 0.8
"""How much of a run's time all stages after the first may keep from it."""


class Target(Struct, frozen=True):
    """A model that a run may ask, the name it was registered under, and the actor that answers for it."""

    name: str
    model: RegisteredModel
    ref: ActorRef


class ComposedPrompt(Struct, frozen=True):
    """What a stage asks one model. `cuts` says, part by part, how many tokens had to go to make it fit."""

    user: str
    system: str | None = None
    cuts: Mapping[str, int] = {}


Write = Callable[[Target], ComposedPrompt]
"""Writes the prompt for one model. Raises `ModelError` when the model cannot be asked this."""

Compose = Callable[["Run"], Write]
"""Gathers what a stage's prompts are made of, once; raises `StageFailed` when that cannot be done."""

Score = Callable[["Run", "StagePlan", float], Awaitable[Mapping[str, float]]]
"""Scores (0..1) the answers of a stage by model name, until a deadline (`trio.current_time`); leaves out
what it cannot score."""


class StagePlan(Struct, frozen=True, kw_only=True):
    """One stage. `asks` all models at once, or one after the other until the first answers.

    `reads` is the earlier stage whose answers it is about; those who gave them are the ones to ask one
    after the other. `optional`: the run goes on, degraded, if it fails. `final`: its answer is the
    synthesis, and where nobody gives one, the best answer that there is stands in. `share` of the run's
    time is kept for it while earlier stages run. `scored`: its answers are scored, and
    `scoring_share` of the run's time is kept for that.
    """

    name: str
    compose: Compose
    asks: Literal["all", "first"] = "all"
    reads: str | None = None
    optional: bool = False
    final: bool = False
    share: float = 0.0
    scored: bool = False
    scoring_share: float = 0.0


class EventSink(Protocol):
    """Where the events of one run go. Both methods return at once and do not raise."""

    def emit(self, event: type[Event], **fields: Any) -> None:  # noqa: ANN401 - the fields of any event
        """Tell of one event that is not a chunk; the sink numbers and times it."""

    def chunk(self, stage: str, model_name: str, text: str, begins: bool) -> None:  # noqa: FBT001 - a callback
        """Tell of a piece of text, and whether a text begins with it, for the first time or anew."""


class RunPlan(Struct, frozen=True, kw_only=True):
    """All that a run is to do. `targets` are in weight order.

    Once the answers have cost `max_cost` dollars, the stages that are left are left out.
    `timeout` is seconds for all of it, from `started` (`trio.current_time`) on: a run that a crash makes
    begin anew has no more time than before.
    """

    run_id: str
    question: str
    stages: tuple[StagePlan, ...]
    targets: tuple[Target, ...]
    started: float
    quorum: int | Literal["all"] = 1
    timeout: float = inf
    max_cost: float = inf
    use_cache: bool = True
    options: Mapping[str, object] = {}
    score: Score | None = None
    sink: EventSink | None = None
    caller: Caller | None = None

    @property
    def given_up_at(self) -> float:
        """When whoever waits for the run waits no longer (`current_time`)."""
        return self.started + self.timeout + UNHEARD_OF

    def unheard_of(self) -> DeadlineExceeded:
        """The error of a run that is given up."""
        return DeadlineExceeded(
            f"The run has {self.timeout:g} s in all, and nothing was heard of it {UNHEARD_OF:g} s later: "
            "its coordinator hangs, or restarts, or never got the message"
        )

    def deadlines(self) -> list[tuple[float, float]]:
        """For each stage, when its models have to have answered, and when it has to end (`current_time`).

        What the later stages keep for themselves is theirs, but all of them together leave the first
        one a fifth of the time.
        """
        if self.timeout == inf:
            return [(inf, inf)] * len(self.stages)
        kept = sum(stage.share for stage in self.stages[1:]) + sum(s.scoring_share for s in self.stages)
        scale = self.timeout * min(1.0, MOST_KEPT / kept) if kept else 0.0
        end = self.started + self.timeout
        deadlines = []
        for stage in reversed(self.stages):
            answered = end - scale * stage.scoring_share
            deadlines.append((answered, end))
            end = answered - scale * stage.share
        return deadlines[::-1]
