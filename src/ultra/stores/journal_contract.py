"""What a journal of runs has to do, so that a run outlives the process that executes it.

A run is accepted (`add`), executed by whoever holds its lease (`claim`, `renew`), and told in events, which
are written here before anybody reads them (`append`, `read`). Its paid answers are kept under what was asked
(`keep_answer`), so that who takes the run up after a crash need not ask again. It ends once: the last event
and the final state are written together.

A method that cannot do its work raises `JournalUnavailable`; then nothing of it was done, or all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from msgspec import Struct, field

from ultra._support.checks import check_count, check_seconds
from ultra.messages.runs import RunSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse

__all__ = [
    "ENDED",
    "LIST_BYTES",
    "PAGE_BYTES",
    "STATES",
    "AnswerKey",
    "Claim",
    "EndedRuns",
    "Ending",
    "Lease",
    "LeaseLost",
    "Renewal",
    "Retention",
    "RunJournal",
    "RunRecord",
    "RunState",
    "latest_end",
]

RunState = Literal["queued", "running", "completed", "failed", "cancelled"]
"""queued: accepted, and not begun. running: begun; its process may have died. The others are final."""

STATES: Final[tuple[RunState, ...]] = get_args(RunState)
"""All states."""

ENDED: Final = frozenset({"completed", "failed", "cancelled"})
"""The states that are final."""

PAGE_BYTES: Final = 256 * 1024
"""Bytes of encoded events behind which one reading ends, however many events were asked for."""

LIST_BYTES: Final = 16 * 2**20
"""Bytes of encoded requests behind which a list of runs ends: requests may hold images."""

AnswerKey: TypeAlias = bytes
"""The digest of what a run asked a model: 32 bytes that tell nothing about the prompt."""


_LEASES_BEHIND: Final = 10
"""A lease that ends later than so many leases from now was given by a clock that has been set back since."""


def latest_end(now: float, seconds: float) -> float:
    """Return the time behind which no lease of so many seconds ends, by a clock as it is now.

    Who holds one that ends later has not renewed it since the clock was set back, and so is dead. Processes
    may differ in how long their leases hold, hence the allowance.
    """
    return now + max(60.0, _LEASES_BEHIND * seconds)


class LeaseLost(Exception):
    """Another process has the run now, or it has ended, so nothing was written."""


class Retention(Struct, frozen=True, kw_only=True):
    """How long ended runs are kept. Runs that have not ended are never removed.

    Attributes:
        seconds: for which a run is kept after its end; None: for ever.
        bytes: which the runs may take up together; those that ended first are removed. None: any number.

    Raises:
        BadCall: a value is not allowed.
    """

    seconds: float | None = 30 * 86_400.0
    bytes: int | None = 2**30

    def __post_init__(self) -> None:
        check_seconds("seconds of the retention", self.seconds, positive=True, endless=True, optional=True)
        check_count("bytes of the retention", self.bytes, optional=True)


class RunRecord(Struct, frozen=True, kw_only=True):
    """A run as the journal knows it. Times are seconds of the wall clock (`time.time`).

    Attributes:
        run_id: its name.
        spec: what it is to do.
        owner: for whom it is, such as the name of a service's key; idempotency keys are the owner's.
        idempotency_key: by which a second submission is known to be the same.
        tags: what its submitter keeps with it; nothing here reads it.
        state: how far it is.
        created, ended: when it was accepted, and when it ended.
        code: of a run that failed or was cancelled, the class of the error, as in `RunFailed`.
        message: the text of that error.
        events: how many events it has so far; `seq` of the next one.
        bytes: which it takes up.
        executions: how often it was taken up: 1 for a run that no crash has interrupted.
        cancelling: whether its cancellation was asked for.
        damage: what of it cannot be read any more, in a list; all else that cannot is then left empty.
    """

    run_id: str
    spec: RunSpec
    owner: str | None = None
    idempotency_key: str | None = None
    tags: dict[str, Any] = field(default_factory=dict)
    state: RunState = "queued"
    created: float = 0.0
    ended: float | None = None
    code: str | None = None
    message: str | None = None
    events: int = 0
    bytes: int = 0
    executions: int = 0
    cancelling: bool = False
    damage: str | None = None

    @property
    def has_ended(self) -> bool:
        """Whether its state is final."""
        return self.state in ENDED


class Lease(Struct, frozen=True, kw_only=True):
    """The right to execute a run. `number` counts those of a run: what an older one writes is refused."""

    run_id: str
    holder: str
    number: int


class Claim(Struct, frozen=True, kw_only=True):
    """A run that its holder is to execute from now on."""

    run: RunRecord
    lease: Lease


class Ending(Struct, frozen=True, kw_only=True):
    """The final state of a run; see `RunRecord`."""

    state: RunState
    code: str | None = None
    message: str | None = None


class Renewal(Struct, frozen=True, kw_only=True):
    """What became of a holder's leases: the runs that it still has, and those of them to be cancelled."""

    held: frozenset[str]
    cancelling: frozenset[str]


@runtime_checkable
class RunJournal(Protocol):
    """The runs of one service, which several processes may share. Used on trio, in one trio run at a time."""

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds after `add`, `claim` or `renew`."""
        ...

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Accept a run, and give `holder` its lease; without a holder, it is for whoever claims it.

        Returns the claim, or, without a holder, the record as it was written. A run that the same owner
        has added under the same idempotency key is returned as it is, and nothing is written.
        """
        ...

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run; None: there is none."""
        ...

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """Return runs, the last accepted first; one that is damaged with its `damage`.

        It ends behind the run with which it reaches `LIST_BYTES`; it is empty only where there are no more.

        Args:
            owner: only of this owner; None: of all.
            states: only in these states; empty: in any.
            before: only those that were accepted before the run of this id.
            limit: at most so many.
        """
        ...

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """Give `holder` the leases of runs that have not ended and that nobody holds, the oldest first."""
        ...

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """Let leases hold for `lease_seconds` from now. One that has run out holds if nobody took it."""
        ...

    async def release(self, leases: Sequence[Lease]) -> None:
        """Give leases up, so that the runs can be claimed at once. Those that were lost are left alone."""
        ...

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """Write the next events of a run, and with the last one how it ended.

        The `seq` of the first is that of `RunRecord.events`; those that are there already are left out, so a
        call whose outcome is not known may be repeated. A run whose first events are written is running. When
        this returns, the events can be read, and a crash of the process loses none of them.

        Raises:
            LeaseLost: the run has ended, or somebody else has it. Nothing was written.
        """
        ...

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """Keep a paid answer under what was asked.

        Raises:
            LeaseLost: as for `append`.
        """
        ...

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """Return the keys of the answers that were kept for the run."""
        ...

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """Return the answer that was kept under `key`; None: there is none that can be read."""
        ...

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """Return the events whose `seq` is above `after`, in their order: a page, and at most `limit`.

        It ends behind the event with which it reaches `PAGE_BYTES`; it is empty only where there are no more.
        """
        ...

    async def changed(self, run_id: str, after: int) -> None:
        """Wait until there may be an event whose `seq` is above `after`, or the run may be gone.

        It may return early: `read` tells. Events that another process writes are seen within a second.
        """
        ...

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """Ask for the end of a run, and return it as it is then; None: there is none.

        A run that nobody holds ends at once: `event` becomes its last event, with its `run_id` and `seq`, and
        the `time` of the event before it.
        Otherwise its holder is told at the next renewal. A run that has ended stays as it is.
        """
        ...

    async def delete(self, run_id: str) -> bool:
        """Remove a run that has ended, with all that belongs to it; return whether there was one.

        A run that is damaged need not have ended, if nobody holds it.
        """
        ...

    async def prune(self) -> int:
        """Remove what the retention does not keep; return how many runs that were."""
        ...

    async def aclose(self) -> None:
        """Release what the journal holds: memory, files, connections. May be called again."""
        ...


class EndedRuns(Protocol):
    """A journal that also takes runs that have ended and were not submitted, as `SqliteJournal` does."""

    async def record(
        self,
        run: RunRecord,
        events: Sequence[Event],
        ending: Ending,
        answers: Mapping[AnswerKey, ModelResponse],
    ) -> None:
        """Write a run that has ended, with its events and answers: all of it, or nothing.

        Nobody ever claims it. Of `run`, the names, the spec, the tags and `created` count.

        Raises:
            JournalUnavailable: nothing was written.
        """
        ...
