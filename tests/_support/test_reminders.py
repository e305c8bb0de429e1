"""One task wakes all that wait for their times."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import anyio
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra._support.reminders import Reminders, RunningReminders
from ultra.service.shared_run import Place, SharedRun


class _Stream:
    """A run that is silent."""

    run_id = "run"
    created = 0.0
    is_kept = False


@asynccontextmanager
async def working() -> AsyncIterator[tuple[Reminders, list[tuple[str, float]]]]:
    """Reminders that work, and what rang at which time since the beginning."""
    reminders, rang = Reminders(), list[tuple[str, float]]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reminders.work)
        await wait_all_tasks_blocked()
        yield reminders, rang
        nursery.cancel_scope.cancel()


def note(rang: list[tuple[str, float]], name: str, begin: float) -> None:
    rang.append((name, trio.current_time() - begin))


@pytest.mark.parametrize("order", [(1.0, 2.0, 3.0), (3.0, 2.0, 1.0), (2.0, 3.0, 1.0)])
async def test_each_rings_at_its_time_in_whatever_order_they_came(
    autojump_clock: MockClock, order: tuple[float, ...]
) -> None:
    del autojump_clock
    begin = trio.current_time()
    async with working() as (reminders, rang):
        for seconds in order:
            reminders.add(begin + seconds, partial(note, rang, str(seconds), begin))
        await trio.sleep(5)

    assert rang == [("1.0", 1.0), ("2.0", 2.0), ("3.0", 3.0)]


async def test_one_that_was_cancelled_is_silent_and_holds_nothing(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with working() as (reminders, rang):
        begin = trio.current_time()
        cancelled = reminders.add(begin + 1, lambda: rang.append(("cancelled", 0.0)))
        reminders.add(begin + 1, lambda: rang.append(("other", 0.0)))
        cancelled.cancel()
        await trio.sleep(2)

    assert rang == [("other", 0.0)]


async def test_those_that_were_cancelled_are_thrown_out_once_they_are_many(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with working() as (reminders, rang):
        begin = trio.current_time()
        for number in range(10_000):
            reminders.add(begin + 600 + number, lambda: rang.append(("cancelled", 0.0))).cancel()
            assert len(reminders) <= 1001
        reminders.add(begin + 601, partial(note, rang, "last", begin))
        await trio.sleep(20_000)

    assert rang == [("last", 601.0)]
    assert len(reminders) == 0


async def test_they_ring_in_their_block_and_end_with_it_also_when_it_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    del autojump_clock
    rang: list[tuple[str, float]] = []
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        async with RunningReminders() as reminders:
            reminders.add(trio.current_time() + 1, partial(note, rang, "first", trio.current_time()))
            await trio.sleep(2)
            scope.cancel()
            await trio.sleep_forever()

    assert rang == [("first", 1.0)]
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_one_that_rings_may_ask_for_the_next(autojump_clock: MockClock) -> None:
    del autojump_clock
    begin = trio.current_time()
    async with working() as (reminders, rang):

        def ring() -> None:
            rang.append(("again", trio.current_time() - begin))
            if len(rang) < 3:
                reminders.add(trio.current_time() + 1, ring)

        reminders.add(begin + 1, ring)
        await trio.sleep(5)

    assert [when for _, when in rang] == [1.0, 2.0, 3.0]


async def test_one_that_raises_is_logged_and_the_others_ring(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    del autojump_clock
    begin = trio.current_time()
    async with working() as (reminders, rang):
        reminders.add(begin + 1, lambda: rang.remove(("nothing", 0.0)))
        reminders.add(begin + 1, partial(note, rang, "same time", begin))
        reminders.add(begin + 2, partial(note, rang, "later", begin))
        await trio.sleep(3)

    assert rang == [("same time", 1.0), ("later", 2.0)]
    assert [record.levelname for record in caplog.records if "reminder failed" in record.message] == ["ERROR"]


async def test_a_sign_of_life_wakes_only_the_reader_that_is_to_give_it(autojump_clock: MockClock) -> None:
    del autojump_clock
    woken, readers, interval, times = [0], 16, 16.0, 3

    async def read(run: SharedRun, late: float) -> None:
        place, silent_since = Place(), trio.current_time() + late - interval
        for _ in range(times):
            while trio.current_time() < silent_since + interval:
                await run.change(silent_since + interval, place)
                woken[0] += 1
            silent_since = trio.current_time()

    async with working() as (reminders, _), trio.open_nursery() as nursery:
        run = SharedRun(cast("Any", _Stream()), reminders)
        begin = trio.current_time()
        for number in range(readers):
            nursery.start_soon(read, run, float(number + 1))

    assert trio.current_time() - begin == readers + interval * (times - 1)
    assert woken[0] == readers * times


async def test_a_reader_that_has_left_is_not_held_by_its_reminder() -> None:
    reminders, place = Reminders(), Place()
    gone = weakref.ref(place)
    place.wake_at(trio.current_time() + 1000, reminders, anyio.Event())
    place.leave()
    del place
    assert gone() is None
