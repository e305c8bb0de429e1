from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from ultra._support.clock import ContinuousClock


async def test_within_a_run_it_is_the_time_of_trio_s_clock(autojump_clock: MockClock) -> None:
    now = ContinuousClock()
    start = now()
    await trio.sleep(7.5)
    assert now() - start == pytest.approx(7.5)


def test_it_goes_on_where_the_last_run_ended_whatever_the_next_run_s_clock_says() -> None:
    now = ContinuousClock()
    times = []

    async def wait(before: float, after: float) -> None:
        await trio.sleep(before)
        times.append(now())
        await trio.sleep(after)

    for before, after in [(1000, 3), (2, 4), (500, 0)]:
        trio.run(wait, before, after, clock=MockClock(autojump_threshold=0))
    # A fresh run's clock is read against the old one's end when it is first used.
    assert times[1] - times[0] == pytest.approx(3)
    assert times[2] - times[1] == pytest.approx(4)


def test_two_runs_on_real_clocks_are_as_far_apart_as_they_were() -> None:
    now = ContinuousClock()

    async def read() -> float:
        return now()

    first = trio.run(read)
    assert 0 <= trio.run(read) - first < 30


def test_outside_of_trio_there_is_no_time() -> None:
    with pytest.raises(RuntimeError):
        ContinuousClock()()
