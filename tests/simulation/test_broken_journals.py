"""Journals, and their use, that are broken on purpose: the simulation sees each (guarantee 13)."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra.durable.memo import _Slot
from ultra.simulation.determinism import run_seeded
from ultra.simulation.durable.run import DurableRun
from ultra.simulation.one_seed import logging_off
from ultra.stores.journal_memory import MemoryJournal, _Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.events import Event
    from ultra.stores.journal_contract import Claim, RunRecord

SEEDS = 40
WHOLE = 15
"""Seeds with nothing broken here: the 40 of the campaign, in test_campaign.py, have submitted runs too."""


def durable_run(seed: int) -> DurableRun:
    """Run the submitted runs of this seed to their end."""
    run = DurableRun(seed)
    with logging_off():
        run_seeded(run.run, random=Random(f"{seed}/durable/schedule"), time_limit=10_000.0)
    return run


def test_nothing_is_broken_and_all_that_can_happen_does_happen() -> None:
    runs = [durable_run(seed) for seed in range(WHOLE)]
    assert [str(violation) for run in runs for violation in run.record.violations] == []
    ended = [event for run in runs for event in run.record.events if event[1] == "ended"]
    assert {str(event[3]) for event in ended} >= {"completed", "cancelled"}
    assert max(int(str(event[4])) for event in ended) > 2  # taken up more than once
    assert sum(run.faults["process crash"] for run in runs) > WHOLE
    assert sum(run.faults["journal"] for run in runs) > WHOLE


def test_a_seed_takes_the_same_course_each_time() -> None:
    for seed in range(5):
        assert durable_run(seed).record.digest == durable_run(seed).record.digest


def leases_are_not_checked(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_Kept, "check", lambda self, lease: None)


def paid_answers_are_not_used(patch: pytest.MonkeyPatch) -> None:
    async def kept(self: _Slot) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(_Slot, "kept", kept)


def runs_are_not_taken_up(patch: pytest.MonkeyPatch) -> None:
    async def claim(self: MemoryJournal, holder: str, *, limit: int) -> list[Claim]:
        return []

    patch.setattr(MemoryJournal, "claim", claim)


def keys_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    add = MemoryJournal.add

    async def forgetful(self: MemoryJournal, run: RunRecord, holder: str | None = None) -> Any:
        self._by_key.clear()
        return await add(self, run, holder)

    patch.setattr(MemoryJournal, "add", forgetful)


def followers_lose_events(patch: pytest.MonkeyPatch) -> None:
    read = MemoryJournal.read

    async def hasty(self: MemoryJournal, run_id: str, after: int = -1, limit: int = 256) -> list[Event]:
        found = await read(self, run_id, after, limit)
        return found[1:] if len(found) > 3 and limit == 256 else found

    patch.setattr(MemoryJournal, "read", hasty)


@pytest.mark.parametrize(
    "broken",
    [
        leases_are_not_checked,
        paid_answers_are_not_used,
        runs_are_not_taken_up,
        keys_are_forgotten,
        followers_lose_events,
    ],
    ids=lambda broken: broken.__name__,
)
def test_what_is_broken_is_seen(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    for seed in range(SEEDS):
        run = DurableRun(seed)
        with logging_off():
            try:
                run_seeded(run.run, random=Random(f"{seed}/durable/schedule"), time_limit=1_000.0)
            except BaseExceptionGroup:
                return  # a simulation that breaks off is a finding, too
        if any(violation.guarantee == 13 for violation in run.record.violations):
            return
    pytest.fail(f"{SEEDS} seeds saw nothing of it")
