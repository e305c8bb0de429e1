"""Submitting runs, and following them: the part of an orchestrator that needs a journal."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ultra._support.checks import check_name
from ultra._support.randomness import new_id
from ultra.bridge.caller import Caller
from ultra.errors import BadCall, UsageError
from ultra.messages.runs import RunSpec
from ultra.orchestrator.event_buffer import EventBuffer
from ultra.orchestrator.streams import LiveRun
from ultra.prompts.fencing import Fencing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from ultra.actors.coordinator.messages import AnswerMemo
    from ultra.durable.execution import EventReader
    from ultra.durable.follower import RunFollower
    from ultra.durable.memo import PaidAnswers
    from ultra.durable.runs import DurableRuns
    from ultra.durable.told import Told
    from ultra.messages.conversation import Conversation
    from ultra.messages.options import RunArguments
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.planning import Planned, Planner
    from ultra.orchestrator.run_end import RunWatch
    from ultra.stores.batch_contract import BatchStore
    from ultra.stores.delivery_contract import Delivery
    from ultra.stores.journal_contract import RunJournal, RunRecord, RunState
    from ultra.strategies.base import Strategy, StrategySpec

__all__ = [
    "PreparedRun",
    "RunRecorder",
    "SubmittedRuns",
    "keep_runs",
    "record_runs",
    "submitted_runs",
]


class RunRecorder(Protocol):
    """Is told of each run that is not submitted, before it begins, and returns what keeps its answers.

    A strategy that is no value is in the `spec` by its name alone.
    """

    def __call__(self, run_id: str, spec: RunSpec) -> AnswerMemo:
        """Return the memo of the run."""
        ...


T = TypeVar("T")


class PreparedRun:
    """A run whose arguments were checked, made by `MultiLLMOrchestrator.prepare_run`.

    Attributes:
        run_id: its id, once it is submitted.
    """

    def __init__(self, spec: RunSpec, durable: DurableRuns, lifespan: Lifespan) -> None:
        self.run_id = new_id()
        self._spec = spec
        self._durable = durable
        self._lifespan = lifespan

    def check_values(self, tags: Mapping[str, Any]) -> None:
        """Raise `BadCall` if the run, or these tags, cannot be written to a journal."""
        from ultra.stores.journal_encoding import encode_spec, encode_tags  # noqa: PLC0415 - as below

        encode_spec(self._spec)
        encode_tags(tags)

    async def submit(
        self,
        *,
        idempotency_key: str | None = None,
        owner: str | None = None,
        tags: Mapping[str, Any] | None = None,
        notify: str | None = None,
    ) -> str:
        """Accept the run into the journal, and return its id, or that of the run that has the key.

        Arguments and errors are those of `MultiLLMOrchestrator.submit`. `notify`: the address of a notice
        that the journal keeps until it is delivered; see `take_deliveries`.
        """
        for what, name in (("idempotency_key", idempotency_key), ("owner", owner)):
            if name is not None:
                check_name(what, name)
        submit = partial(
            self._durable.submit,
            self.run_id,
            self._spec,
            idempotency_key=idempotency_key,
            owner=owner,
            tags=dict(tags or {}),
            notify=notify,
        )
        return await self._lifespan.trio_run.run(submit)


class SubmittedRuns:
    """The methods of `MultiLLMOrchestrator` that need a journal."""

    _lifespan: Lifespan
    _planner: Planner
    _submitted: DurableRuns | None
    _watch: RunWatch
    _caller: Caller | None = None
    """Who entered the orchestrator: clients of submitted runs are called on its loop."""
    _recorder: RunRecorder | None = None

    async def submit(
        self,
        prompt: Conversation,
        stages: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        *,
        strategy: str | StrategySpec | Strategy | None = None,
        idempotency_key: str | None = None,
        owner: str | None = None,
        tags: Mapping[str, Any] | None = None,
        **run: Unpack[RunArguments],
    ) -> str:
        """Accept a run into the journal, and return its id; it begins at once, or when there is room.

        When this returns, the run is in the journal, and it ends exactly once, whatever becomes of this
        process. It belongs to the orchestrator and not to the caller, whose context variables its clients do
        not see. Cancelled, this has accepted the run, or has not.

        Args:
            prompt: as in `process_responses`. All of the arguments must be values, so that another process
                can take the run up.
            stages: the names of stages.
            models: the names of the models that may be asked; None: all that are registered now.
            strategy: a name, a `StrategySpec`, or an object whose options are values.
            run: see `RunArguments`. An `output` that is a type gives plain JSON.
            idempotency_key: a second submission with it returns the id of the first, and begins nothing.
            owner: for whom the run is; idempotency keys are the owner's.
            tags: what is kept with the run, for the caller.

        Raises:
            BadCall: an argument is not allowed, or no value; the message says which.
            IdempotencyConflict: the key was used for another request.
            UsageError: the orchestrator has no journal, or a subclass overrides `process_responses`.
            OrchestratorClosed: the orchestrator is not entered.
            JournalUnavailable: the journal cannot be written; the run is not accepted.
        """
        prepared = self.prepare_run(prompt, stages, models, strategy=strategy, **run)
        return await prepared.submit(idempotency_key=idempotency_key, owner=owner, tags=tags)

    def prepare_run(
        self,
        prompt: Conversation,
        stages: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        *,
        strategy: str | StrategySpec | Strategy | None = None,
        **run: Unpack[RunArguments],
    ) -> PreparedRun:
        """Check the arguments of a run, and return it with its id, to be submitted; nothing is accepted yet.

        For those who must know the id before the run begins; arguments and errors are those of `submit`.
        """
        self._lifespan.check_open()
        durable = self._durable
        if getattr(type(self), "process_responses", None) is not self._plain_process:
            raise UsageError(
                f"{type(self).__name__} overrides process_responses, which is no value, so no run of it can "
                "be taken up again; submit runs to an orchestrator that does not"
            )
        planned = self._planner.planned(prompt, stages, models, strategy, run)
        return PreparedRun(self._spec_of(planned), durable, self._lifespan)

    @property
    def has_journal(self) -> bool:
        """Whether there is a journal, so that runs can be submitted."""
        return self._submitted is not None

    @property
    def has_batches(self) -> bool:
        """Whether the journal keeps batches of runs."""
        return self._submitted is not None and self._submitted.batches is not None

    async def with_batches(self, work: Callable[[BatchStore], Awaitable[T]]) -> T:
        """Return what ``await work(batches)`` returns, of the batches of the journal. See `BatchStore`.

        Raises:
            UsageError: the orchestrator has no journal, or that keeps no batches.
        """
        batches = self._durable.batches
        if batches is None:
            raise UsageError("the journal keeps no batches of runs; 'sqlite:///path' does")
        return await self._lifespan.trio_run.run(lambda: work(batches))

    @property
    def has_deliveries(self) -> bool:
        """Whether the journal keeps notices of the ends of runs."""
        return self._submitted is not None and self._submitted.has_deliveries

    async def take_deliveries(self, limit: int, hold: float) -> Sequence[Delivery]:
        """Return notices of runs that have ended, to be delivered; see `DeliveryJournal`."""
        durable = self._durable
        return await self._lifespan.trio_run.run(lambda: durable.deliveries.take_deliveries(limit, hold))

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        """Say that a notice was delivered, or when it is to be tried again; see `DeliveryJournal`."""
        durable = self._durable
        await self._lifespan.trio_run.run(lambda: durable.deliveries.settle_delivery(delivery_id, again_in))

    def follow(self, run_id: str, after: int = -1) -> RunFollower:
        """Return the events of a submitted run whose `seq` is above `after`; see `RunFollower`.

        The run may be executed by another process. The orchestrator need not be entered.

        Raises:
            BadCall: `after` is no whole number.
            UsageError: the orchestrator has no journal.
            UnknownRun: there is no such run; raised when the block is entered.
        """
        if type(after) is not int or after < -1:
            raise BadCall(f"after is {after!r}; it must be the seq of the last event that you have, or -1")
        from ultra.durable.follower import RunFollower  # noqa: PLC0415 - most programs submit no runs

        return RunFollower(run_id, self._durable.journal, self._lifespan.trio_run, after)

    async def cancel_run(self, run_id: str) -> RunRecord:
        """Cancel a submitted run, and return it; its state is final when its process has ended it.

        A run that another process executes ends when that renews its lease, within seconds. One that has
        ended stays as it is.

        Raises:
            UnknownRun: there is no such run.
            UsageError: the orchestrator has no journal.
            JournalUnavailable: the journal cannot be written.
        """
        durable = self._durable
        return await self._lifespan.trio_run.run(lambda: durable.cancel(run_id))

    async def get_run(self, run_id: str) -> RunRecord:
        """Return a submitted run as it is now; raises as `cancel_run` does."""
        durable = self._durable
        return await self._lifespan.trio_run.run(lambda: durable.get(run_id))

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return submitted runs, the last accepted first.

        Args:
            owner: only of this owner; None: of all.
            states: only in these states; empty: in any.
            before: only those accepted before the run of this id.
            limit: at most so many; fewer where their requests are large. An empty list is the end.

        Raises:
            UsageError: the orchestrator has no journal.
            JournalUnavailable: the journal cannot be read.
        """
        journal = self._durable.journal
        return await self._lifespan.trio_run.run(
            partial(journal.list_runs, owner=owner, states=states, before=before, limit=limit)
        )

    async def delete_run(self, run_id: str) -> None:
        """Remove a submitted run that has ended, with its events and answers.

        Raises:
            BadCall: the run has not ended.
            Exception: as `cancel_run` does.
        """
        durable = self._durable
        await self._lifespan.trio_run.run(lambda: durable.delete(run_id))

    # --- inside --------------------------------------------------------------------------------------

    @property
    def _plain_process(self) -> object:
        """`process_responses` where no subclass overrides it."""
        raise NotImplementedError

    @property
    def _durable(self) -> DurableRuns:
        if self._submitted is None:
            raise UsageError(
                "this orchestrator has no journal; give one: MultiLLMOrchestrator(journal='sqlite:///runs.db')"
            )
        return self._submitted

    def _spec_of(self, planned: Planned, *, of_values: bool = True) -> RunSpec:
        spec = self._planner.as_value(planned.strategy)
        own = spec is None and planned.strategy is self._planner.strategy
        if spec is None and not own and of_values:
            raise BadCall(
                f"strategy {planned.spec.name!r} of a submitted run is no value, so no other process could "
                "take the run up: give its name and options (text, numbers, lists), and stages by name; or "
                "make the orchestrator with this strategy"
            )
        models = self._planner.models_of(planned)
        return RunSpec(
            request=planned.request,
            models=tuple(model.name for model in models),
            weights=tuple(model.weight for model in models),
            strategy=planned.spec if spec is None else spec,
            options=planned.options,
            own_strategy=own,
            secret=self._planner.secret,
        )

    def _recorded(self, run_id: str, planned: Planned) -> AnswerMemo | None:
        """Tell the recorder, if there is one, of a run that is about to begin; return where answers go."""
        if self._recorder is None:
            return None
        return self._recorder(run_id, self._spec_of(planned, of_values=False))

    def _open_run(
        self, run: RunRecord, paid: PaidAnswers, told: Told
    ) -> AbstractAsyncContextManager[EventReader]:
        make_run = self._planner.maker(
            self._planner.again(run.spec),
            self._caller or Caller.current(),
            fencing=Fencing(run.spec.secret),
            memo=paid,
            elapsed=told.time,
        )
        make_sink = partial(EventBuffer, told=told)
        live: Any = LiveRun(run.run_id, self._lifespan, make_run, make_sink, self._watch)
        opened: AbstractAsyncContextManager[EventReader] = live  # its sink is the buffer
        return opened


def submitted_runs(
    owner: SubmittedRuns, journal: RunJournal | str | None, *, owned: bool = False
) -> DurableRuns | None:
    """Return the submitted runs of an orchestrator with this journal; None: it has none.

    The journal is closed with the orchestrator if it is `owned`, or was opened here.
    """
    if journal is None:
        return None
    owned = owned or isinstance(journal, str)
    from ultra.durable.runs import DurableRuns  # noqa: PLC0415 - most programs submit no runs
    from ultra.stores.journal_opening import open_journal  # noqa: PLC0415 - the same

    return DurableRuns(open_journal(journal), owner._open_run, owned=owned)  # noqa: SLF001 - of this module


def keep_runs(owner: SubmittedRuns, journal: RunJournal | None) -> None:
    """Let an orchestrator that has not been entered keep its runs in this journal, which it closes."""
    found = submitted_runs(owner, journal, owned=True)
    owner._submitted = owner._lifespan.submitted = found  # noqa: SLF001 - of this module


def record_runs(owner: SubmittedRuns, recorder: RunRecorder) -> None:
    """Tell `recorder` of the runs of an orchestrator from now on."""
    owner._recorder = recorder  # noqa: SLF001 - of this module
