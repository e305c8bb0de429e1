"""Following a run: its events, read from the journal, whichever process executes it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self, TypeVar

from ultra.durable.persistence import OUTAGE_SECONDS, persist
from ultra.errors import BadCall, RunCancelled, SubmittedRunFailed, UnknownRun
from ultra.messages.events import RunCompleted, RunFailed
from ultra.stores.journal_encoding import is_full_page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ultra.bridge.trio_run import TrioRun
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.stores.journal_contract import RunJournal, RunRecord

__all__ = ["RunFollower"]

T = TypeVar("T")


class RunFollower:
    """The events of a submitted run, made by `MultiLLMOrchestrator.follow`.

    Iterate over it for the events; each is in the journal before it comes, so a reader that comes back with
    ``after=`` the last `seq` that it has got reads the rest. The last event is a `RunCompleted` or a
    `RunFailed`. Leaving the block leaves the run as it is.

    While the journal does not work, a reader waits for it for 30 seconds; then it gets `JournalUnavailable`,
    and may go on later. Entering the block raises that at once. ::

        async with orchestrator.follow(run_id) as run:
            async for event in run:
                print(event)
            result = await run.result()
    """

    def __init__(self, run_id: str, journal: RunJournal, trio_run: TrioRun, after: int = -1) -> None:
        self.run_id = run_id
        self.after = after
        self._journal = journal
        self._trio_run = trio_run
        self._block: AbstractAsyncContextManager[None] | None = None
        self._is_open = False
        self._unread: list[Event] = []  # the next one last
        self._reads_on = False  # since the last page was full
        self._known = 0  # so many events there were when the run was looked at,
        self._is_over = False  # and whether it had ended then
        self._has_ended = False

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise BadCall("a run is followed once in one block; call follow again")
        self._block = self._trio_run.wrap_context_manager(_Block(self))
        try:
            await self._block.__aenter__()
        except BaseException:
            self._block = None  # it has not begun, and can be entered again
            raise
        self._is_open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._is_open = False
        return None if self._block is None else await self._block.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        self._check_open()
        if not self._unread and not self._has_ended:
            self._unread = await self._trio_run.run(self._more)
        if not self._unread:
            raise StopAsyncIteration
        event = self._unread.pop()
        self.after = event.seq
        self._has_ended = isinstance(event, (RunCompleted, RunFailed))
        return event

    async def result(self) -> OrchestrationResult:
        """Wait until the run has ended, and return its result. Cancelling this leaves the run as it is.

        An output that was asked for is in it as plain JSON.

        Raises:
            RunCancelled: the run was cancelled.
            SubmittedRunFailed: the run failed; `code` is the class of its error.
            UnknownRun: the run was deleted meanwhile.
            JournalUnavailable: the journal could not be read for 30 seconds.
        """
        self._check_open()
        return await self._trio_run.run(self._result)

    # --- where the actors run ----------------------------------------------------------------------------

    async def _more(self) -> list[Event]:
        """Wait for the next events, and return them, the first one last; none: the run has ended before."""
        while True:
            is_over = self._is_over
            if self.after + 1 >= self._known and not (is_over or self._reads_on):
                await self._use(lambda: self._journal.changed(self.run_id, self.after))
            events = await self._use(lambda: self._journal.read(self.run_id, self.after))
            self._reads_on = is_full_page(events)  # else a page of another process would cost a poll
            if events or is_over:
                return events[::-1]
            await self._use(self.look)  # and if it has ended, read what was written meanwhile

    async def look(self) -> RunRecord:
        """Return the run as it is now. Raises `UnknownRun`."""
        record = await self._journal.get(self.run_id)
        if record is None:
            raise UnknownRun(self.run_id)
        self._known, self._is_over = record.events, record.has_ended
        return record

    async def _result(self) -> OrchestrationResult:
        while not (record := await self._use(self.look)).has_ended:
            seen = record.events - 1
            await self._use(partial(self._journal.changed, self.run_id, seen))
        found = await self._use(lambda: self._journal.read(self.run_id, record.events - 2))
        last = found[-1] if found else None
        if isinstance(last, RunCompleted):
            return last.result
        if record.state == "cancelled":
            raise RunCancelled(self.run_id)
        raise SubmittedRunFailed(self.run_id, record.code or "", record.message or "")

    async def _use(self, work: Callable[[], Awaitable[T]]) -> T:
        return await persist(work, self.run_id, OUTAGE_SECONDS)

    def _check_open(self) -> None:
        if not self._is_open:
            raise BadCall("the run is followed in a block: use 'async with orchestrator.follow(...) as run'")


class _Block:
    """The block in which a run is followed, where the actors run."""

    def __init__(self, follower: RunFollower) -> None:
        self._follower = follower

    async def __aenter__(self) -> None:
        await self._follower.look()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
