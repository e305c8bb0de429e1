"""A journal as one process sees it: it takes time, fails, and is gone when the process is killed."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeVar

import trio

from ultra.errors import JournalUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from random import Random

    from ultra.messages.events import Event
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import (
        AnswerKey,
        Claim,
        Ending,
        Lease,
        Renewal,
        RunRecord,
        RunState,
    )
    from ultra.stores.journal_memory import MemoryJournal

__all__ = ["FaultyJournal"]

T = TypeVar("T")

LONGEST_DELAY = 0.3
"""Virtual seconds before and after the work of one call."""


LONGEST_STALL = 5.0
"""Virtual seconds for which a process may come to nothing, once: its leases run out meanwhile."""


class FaultyJournal:
    """The journal `store` of one process; a `RunJournal`. A call that fails has done nothing, or all.

    Args:
        store: what all processes share.
        random: decides about faults and delays.
        failing: the share of calls that fail.
        faults_until: when faults end (`trio.current_time`).
    """

    def __init__(self, store: MemoryJournal, random: Random, failing: float, faults_until: float) -> None:
        self._store = store
        self._random = random
        self._failing = failing
        self._faults_until = faults_until
        self._killed_at = inf
        self._stalls_at = trio.current_time() + random.random() * LONGEST_STALL * 2
        self._stalls_until = self._stalls_at + random.choice((0.0, 0.0, LONGEST_STALL))
        self.faults = 0

    def kill(self) -> None:
        """Let nothing of this process reach the store any more."""
        self._killed_at = trio.current_time()

    async def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        fails = self._is_faulty and self._random.random() < self._failing
        await self._delay()
        if fails and self._random.random() < 0.5:
            self._fail("before")
        self._check_alive()
        result = await work()
        await self._delay()
        if fails:
            self._fail("after")
        self._check_alive()
        return result

    @property
    def _is_faulty(self) -> bool:
        return trio.current_time() < self._faults_until

    async def _delay(self) -> None:
        if self._stalls_at <= trio.current_time() < self._stalls_until:
            await trio.sleep_until(self._stalls_until)
        if self._is_faulty and self._random.random() < 0.3:
            await trio.sleep(self._random.random() * LONGEST_DELAY)

    def _check_alive(self) -> None:
        if trio.current_time() >= self._killed_at:
            raise JournalUnavailable("simulated", OSError("the process was killed"))

    def _fail(self, when: str) -> None:
        self.faults += 1
        raise JournalUnavailable("simulated", OSError(f"injected {when} the work"))

    @property
    def lease_seconds(self) -> float:
        """Seconds for which a lease holds."""
        return self._store.lease_seconds

    async def add(self, run: RunRecord, holder: str | None = None) -> Claim | RunRecord:
        """Do what `RunJournal` says, or fail; so do all other methods."""
        return await self._do(lambda: self._store.add(run, holder))

    async def get(self, run_id: str) -> RunRecord | None:
        """See `add`."""
        return await self._do(lambda: self._store.get(run_id))

    async def list_runs(
        self,
        *,
        owner: str | None = None,
        states: Sequence[RunState] = (),
        before: str | None = None,
        limit: int = 100,
    ) -> list[RunRecord]:
        """See `add`."""
        return await self._do(
            lambda: self._store.list_runs(owner=owner, states=states, before=before, limit=limit)
        )

    async def claim(self, holder: str, *, limit: int) -> list[Claim]:
        """See `add`."""
        return await self._do(lambda: self._store.claim(holder, limit=limit))

    async def renew(self, leases: Sequence[Lease]) -> Renewal:
        """See `add`."""
        return await self._do(lambda: self._store.renew(leases))

    async def release(self, leases: Sequence[Lease]) -> None:
        """See `add`."""
        await self._do(lambda: self._store.release(leases))

    async def append(self, lease: Lease, events: Sequence[Event], ending: Ending | None = None) -> None:
        """See `add`."""
        await self._do(lambda: self._store.append(lease, events, ending))

    async def keep_answer(self, lease: Lease, key: AnswerKey, answer: ModelResponse) -> None:
        """See `add`."""
        await self._do(lambda: self._store.keep_answer(lease, key, answer))

    async def answer_keys(self, run_id: str) -> frozenset[AnswerKey]:
        """See `add`."""
        return await self._do(lambda: self._store.answer_keys(run_id))

    async def answer(self, run_id: str, key: AnswerKey) -> ModelResponse | None:
        """See `add`."""
        return await self._do(lambda: self._store.answer(run_id, key))

    async def read(self, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        """See `add`."""
        return await self._do(lambda: self._store.read(run_id, after, limit))

    async def changed(self, run_id: str, after: int) -> None:
        """Wait as the store does; this does not fail."""
        await self._store.changed(run_id, after)

    async def cancel(self, run_id: str, event: Event, ending: Ending) -> RunRecord | None:
        """See `add`."""
        return await self._do(lambda: self._store.cancel(run_id, event, ending))

    async def delete(self, run_id: str) -> bool:
        """See `add`."""
        return await self._do(lambda: self._store.delete(run_id))

    async def prune(self) -> int:
        """See `add`."""
        return await self._do(self._store.prune)

    async def aclose(self) -> None:
        """Do nothing."""
        await trio.lowlevel.checkpoint()
