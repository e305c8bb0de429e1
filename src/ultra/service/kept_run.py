"""A run of the service that is kept in the journal: submitted, and followed there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import anyio
from msgspec import Struct

from ultra._support.log import get_logger
from ultra.errors import JournalDamaged, JournalUnavailable, UnknownRun, text_of
from ultra.messages.events import RunCompleted, RunFailed
from ultra.service.uninterrupted import NoAnswer, uninterrupted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from ultra.durable.follower import RunFollower
    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.orchestrator.submitted_runs import PreparedRun

__all__ = ["Keeping", "KeptRun", "persisting"]

T = TypeVar("T")

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
"""Seconds between two tries to read a journal that does not work."""

_log = get_logger("ultra.service")


class Keeping(Struct, frozen=True, kw_only=True):
    """How a run is kept in the journal.

    Attributes:
        tags: what is kept with it.
        must: whether it may not run without being kept.
        goes_on: whether it goes on when nobody reads it any more.
        idempotency_key: see `MultiLLMOrchestrator.submit`.
        notify: the address that is told of its end.
        run_id: the id that the run gets, which no other has; None: a new one.
    """

    tags: dict[str, Any]
    must: bool = False
    goes_on: bool = False
    idempotency_key: str | None = None
    notify: str | None = None
    run_id: str | None = None


class KeptRun:
    """A submitted run with what a `RunStream` has; entering its block submits it.

    Leaving the block cancels the run, unless it has ended or `goes_on`. While the journal cannot be read, its
    reader waits. Nothing interrupts the submission and the cancellation, but a journal that hangs has ten
    seconds for each: then entering raises `JournalUnavailable`, and the run may have been accepted.

    Attributes:
        run_id: its id. If the run of an equal request has its idempotency key, it is the id of that one.
        is_new: whether it is no other request's run.
        created: when it was made, in seconds of Unix time; it is kept with the run.
    """

    def __init__(
        self, orchestrator: MultiLLMOrchestrator, prepared: PreparedRun, keeping: Keeping, owner: str | None
    ) -> None:
        if keeping.run_id is not None:
            prepared.run_id = keeping.run_id
        self.run_id = prepared.run_id
        self.is_new = True
        self.created = int(time.time())
        self._orchestrator = orchestrator
        self._prepared = prepared
        self._keeping = keeping
        self._owner = owner
        self._follower: RunFollower | None = None
        self._has_begun = False
        self._has_ended = False

    @property
    def has_unread(self) -> bool:
        """Whether there may be events that were not read yet."""
        return not self._has_ended

    async def __aenter__(self) -> Self:
        keeping = self._keeping
        try:
            with uninterrupted("submitting to the journal", run_id=self.run_id):  # else, was it accepted?
                self.run_id = await self._prepared.submit(
                    idempotency_key=keeping.idempotency_key,
                    owner=self._owner,
                    tags={**keeping.tags, "created": self.created},
                    notify=keeping.notify,
                )
        except NoAnswer as error:
            raise JournalUnavailable("of this service", error) from error
        self.is_new = self.run_id == self._prepared.run_id
        self._follower = self._orchestrator.follow(self.run_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self.is_new and not (self._has_ended or self._keeping.goes_on):
            try:
                with uninterrupted("cancelling in the journal", run_id=self.run_id):
                    await self._orchestrator.cancel_run(self.run_id)
            except UnknownRun:
                pass
            except (JournalUnavailable, NoAnswer) as failure:
                _log.error("run not cancelled", run_id=self.run_id, error=text_of(failure))
        return await self._reader.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        await self._begin()
        event = await persisting(self._reader.__anext__)
        self._has_ended = isinstance(event, RunCompleted | RunFailed)
        return event

    async def for_each(self, take: Callable[[Event], None]) -> None:
        """Call `take` with each event, up to the last one."""
        async for event in self:
            take(event)

    async def result(self) -> OrchestrationResult:
        """Wait until the run has ended, and return its result; raises as `RunFollower.result` does."""
        await self._begin()
        return await persisting(self._reader.result)

    async def _begin(self) -> None:
        """Begin to follow the run; not where it is submitted, which nothing interrupts: it may take long."""
        if not self._has_begun:
            await persisting(self._reader.__aenter__)
            self._has_begun = True

    @property
    def _reader(self) -> RunFollower:
        assert self._follower is not None  # noqa: S101 - the block was entered
        return self._follower


async def persisting(work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work()`` returns, which is tried again and again while the journal does not work."""
    wait = _FIRST_WAIT
    while True:
        try:
            return await work()
        except JournalDamaged:
            raise  # it will not be better
        except JournalUnavailable as error:
            if wait == _FIRST_WAIT:
                _log.warning("journal unavailable", error=text_of(error))
        await anyio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
