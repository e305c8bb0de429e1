"""The message that starts a run, and the local objects of the run, which stay with the caller."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ultra.actors.runtime.message import Message
from ultra.errors import DeadlineExceeded
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest
from ultra.messages.results import OrchestrationResult
from ultra.strategies.base import Model, StrategySpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra._support.reminders import Reminders
    from ultra.actors.model.messages import AnswerSlot, LocalRequests
    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.runtime.actor import ActorRef
    from ultra.bridge.caller import Caller
    from ultra.messages.events import Event
    from ultra.messages.output_types import OutputType
    from ultra.prompts.fencing import Fencing
    from ultra.scoring.agreement import Scorer
    from ultra.strategies.base import Strategy

__all__ = [
    "AnswerMemo",
    "AnswerSlots",
    "EventSink",
    "Execute",
    "LocalRun",
    "LocalRuns",
    "RunSpending",
    "Target",
]

GIVEN_UP_AFTER: Final = 1.0
"""Seconds after the deadline of a run at which its caller stops waiting for it.

A run ends by itself at its deadline; one that does not has a coordinator that hangs, or never got the
message.
"""


class Execute(Message[OrchestrationResult], frozen=True, kw_only=True, gc=False):
    """Carry out a run; the reply is its result. An asker that goes away cancels the run.

    A value: it could come from another process. What cannot travel (the strategy's functions, event sinks,
    actor references) stays in `LocalRuns` under `run_id`.

    Attributes:
        run_id: names the run.
        request: what the caller asks.
        models: the names of those that may be asked, highest weight first.
        strategy: how they are asked and their answers merged.
        options: the settings of the run.
        time_left: seconds until its deadline; None: it has none.
    """

    run_id: str
    request: ModelRequest
    models: tuple[str, ...]
    strategy: StrategySpec
    options: RunOptions = RunOptions()
    time_left: float | None = None


class Target(NamedTuple):
    """A model that a run may ask, the name it was registered under, and the actor that answers for it."""

    name: str
    model: RegisteredModel
    ref: ActorRef

    def described(self) -> Model:
        """Return the model as a strategy sees it."""
        client = self.model.client
        return Model(
            name=self.name,
            weight=self.model.weight,
            context_window=client.context_window,
            takes_conversations=client.takes_conversations,
            images=client.reads_images,
            files=client.reads_files,
            takes_tools=client.takes_tools,
            price=self.model.price,
        )


class EventSink(Protocol):
    """Where the events of one run go."""

    @property
    def listens(self) -> bool:
        """Whether somebody wants the events, so that answers are streamed."""
        ...

    def emit(self, event: Event) -> None:
        """Take one event, and number and time it. Returns at once and does not raise."""
        ...


class RunSpending:
    """What a run has spent so far, for whoever waits for it. `read` gives tokens and dollars."""

    __slots__ = ("read",)

    def __init__(self) -> None:
        self.read: Callable[[], tuple[int, float | None]] = _nothing

    def forget(self) -> None:
        """Keep the run alive no longer."""
        self.read = _nothing


def _nothing() -> tuple[int, float | None]:
    return 0, None


class AnswerSlots(Protocol):
    """The slots of the answers of one execution of a run, from its begin."""

    def __call__(self, model_name: str, request: ModelRequest, /) -> AnswerSlot:
        """Return the slot for the next answer of this model to this request."""
        ...


class AnswerMemo(Protocol):
    """The answers that a run has got, of earlier executions, too."""

    def begin(self) -> AnswerSlots:
        """Return the slots of an execution that begins now."""
        ...


class LocalRun(NamedTuple):
    """What an asker in this process keeps beside its `Execute`; times are `trio.current_time`.

    A run that a crash of the coordinator starts again finds it unchanged, and so has no more time than
    before.
    """

    strategy: Strategy
    targets: tuple[Target, ...]
    requests: LocalRequests
    reminders: Reminders
    fencing: Fencing
    sink: EventSink
    started: float
    deadline: float = inf
    scorer: Scorer | None = None
    judge: Target | None = None
    output: OutputType | None = None
    spending: RunSpending | None = None
    caller: Caller | None = None
    memo: AnswerMemo | None = None

    def slots(self) -> Callable[[str, ModelRequest], AnswerSlot | None]:
        """Return what gives the slots of the answers of an execution that begins now."""
        return _no_slot if self.memo is None else self.memo.begin()

    @property
    def given_up_at(self) -> float:
        """The time at which the caller stops waiting for the run."""
        return self.deadline + GIVEN_UP_AFTER

    def given_up(self) -> DeadlineExceeded:
        """Make the error of a run that is given up."""
        return DeadlineExceeded(
            f"The run has {self.deadline - self.started:g} s in all, and nothing was heard of it "
            f"{GIVEN_UP_AFTER:g} s later: its coordinator hangs, or restarts, or never got the message"
        )


def _no_slot(_model_name: str, _request: ModelRequest) -> None:
    return None


class LocalRuns:
    """The runs of this process that are under way, by id."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, LocalRun] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, run_id: str, local: LocalRun) -> None:
        """Keep `local` until `discard`."""
        self._known[run_id] = local

    def discard(self, run_id: str) -> None:
        """Forget what was kept, if anything was."""
        self._known.pop(run_id, None)

    def get(self, run_id: str) -> LocalRun | None:
        """Return what is kept for the run; None for one that was asked for in another process."""
        return self._known.get(run_id)
