"""One task wakes all that wait for their times."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra.service.reminders import Reminders


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
