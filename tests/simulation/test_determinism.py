"""Trio's private switches: they are there, they do what they should, and they are set back."""

from __future__ import annotations

import gc
from random import Random

import pytest
import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

from ultra.simulation.determinism import Deadlock, run_seeded, unraisable_errors_ignored


async def _order() -> list[int]:
    order: list[int] = []

    async def note(number: int) -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(note, number)
    return order


def test_canary_trio_has_the_switches_that_a_seeded_schedule_needs() -> None:
    """When this fails, a new trio has changed them: see what replaced them in `trio._core._run`."""
    assert isinstance(scheduler._ALLOW_DETERMINISTIC_SCHEDULING, bool)
    assert isinstance(scheduler._r, Random)
    assert {"_ALLOW_DETERMINISTIC_SCHEDULING", "_r"} <= set(scheduler.unrolled_run.__code__.co_names)


def test_canary_trio_has_the_clock_that_virtual_time_is_made_of() -> None:
    """When this fails, a new trio has changed it: see what replaced it in `trio._core._mock_clock`."""
    clock = MockClock()
    clock.jump(5.0)
    assert clock._virtual_base == clock.current_time() == 5.0
    assert "_virtual_base" in MockClock.jump.__code__.co_names
    assert "_autojump" in scheduler.unrolled_run.__code__.co_names
    assert "deadline_to_sleep_time" in scheduler.unrolled_run.__code__.co_names


def test_equal_seeds_give_equal_schedules_and_others_give_others() -> None:
    schedules = [run_seeded(_order, random=Random(seed)) for seed in (1, 1, 2, 3)]

    assert schedules[0] == schedules[1]
    assert len({tuple(schedule) for schedule in schedules}) == 3


def test_the_switches_are_set_back_also_after_an_error() -> None:
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r

    async def fail() -> None:
        assert scheduler._ALLOW_DETERMINISTIC_SCHEDULING is True
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_seeded(fail, random=Random(1))

    assert (scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r) == before


def test_time_is_virtual_and_begins_at_zero() -> None:
    async def sleep() -> tuple[float, float]:
        begin = trio.current_time()
        await trio.sleep(80_000)
        return begin, trio.current_time()

    assert run_seeded(sleep, random=Random(1)) == (0.0, 80_000.0)


def test_the_clock_jumps_exactly_to_each_deadline_and_by_hand() -> None:
    async def wake_often() -> list[float]:
        times = []
        for number in range(1, 100):
            await trio.sleep_until(number * 0.1)
            times.append(trio.current_time())
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, MockClock)
        clock.jump(7.0)
        return [*times, trio.current_time()]

    times = run_seeded(wake_often, random=Random(1))
    assert times[:-1] == [number * 0.1 for number in range(1, 100)]
    assert times[-1] == times[-2] + 7.0


def test_each_jump_of_the_clock_is_told_beforehand_when_all_tasks_wait() -> None:
    times = []
    waiting = 0

    async def wait(seconds: float) -> None:
        nonlocal waiting
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        waiting += 1
        await trio.sleep(seconds)
        waiting -= 1

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            for seconds in (1.0, 1.0, 4.0):
                nursery.start_soon(wait, seconds)

    def note() -> None:
        times.append((trio.current_time(), waiting))

    run_seeded(run, random=Random(1), on_idle=note)

    assert times == [(0.0, 3), (1.0, 1)]


def test_a_run_in_which_all_wait_for_ever_breaks_off_at_its_time_limit() -> None:
    times = []

    async def wait_for_ever() -> None:
        await trio.sleep(500.0)  # a deadline beyond the horizon is still waited for
        times.append(trio.current_time())
        await trio.sleep_forever()

    with unraisable_errors_ignored():
        with pytest.raises(trio.TrioInternalError) as raised:
            run_seeded(wait_for_ever, random=Random(1), time_limit=100.0)
        cause = type(raised.value.__cause__)
        del raised
        gc.collect()

    assert cause is Deadlock
    assert times == [500.0]
