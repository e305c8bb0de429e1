from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra.actors.model.limits import Limiter, Limits, Permit
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Call(NamedTuple):
    after: float
    tokens: int
    lasts: float
    actual: int | None
    patience: float | None


rates = st.sampled_from([0.7, 3, 60, 1000.1])
plans = st.lists(
    st.builds(
        Call,
        after=st.sampled_from([0.0, 0.1, 1 / 3, 7.7, 61.0]),
        tokens=st.integers(0, 80),
        lasts=st.sampled_from([0.0, 0.3, 20.0]),
        actual=st.none() | st.integers(0, 80),
        patience=st.none() | st.sampled_from([0.0, 0.5, 30.0]),
    ),
    min_size=1,
    max_size=14,
)


class Load:
    """Puts a plan of calls on a limiter and notes what happens."""

    def __init__(self, limits: Limits, plan: Sequence[Call]) -> None:
        self.limits = limits
        self.plan = plan
        self.starts: list[tuple[float, int]] = []  # time, number of the call
        self.ends: list[str] = []
        self.in_flight = 0

    def run(self) -> None:
        trio.run(self.main, clock=MockClock(autojump_threshold=0))

    async def main(self) -> None:
        limiter = Limiter("m", self.limits)
        with trio.fail_after(1e6):
            async with trio.open_nursery() as nursery:
                for number, call in enumerate(self.plan):
                    await trio.sleep(call.after)
                    nursery.start_soon(self.one, limiter, number, call)
                    await wait_all_tasks_blocked()
        statistics = limiter.statistics()
        assert (statistics.in_flight, statistics.waiting) == (0, 0)
        assert statistics.admitted == self.ends.count("ran") == len(self.starts)
        assert statistics.rejected == self.ends.count("rate_limit")

    async def one(self, limiter: Limiter, number: int, call: Call) -> None:
        permit: Permit | None = None
        with trio.move_on_after(math.inf if call.patience is None else call.patience):
            try:
                permit = await limiter.acquire(call.tokens)
            except ModelError as error:
                self.ends.append(error.kind)
                return
        if permit is None:
            self.ends.append("cancelled")
            return
        self.starts.append((trio.current_time(), number))
        self.in_flight += 1
        assert self.in_flight <= (self.limits.concurrency or math.inf)
        with permit:
            await trio.sleep(call.lasts)
            self.in_flight -= 1
            if call.actual is not None:
                permit.settle(call.actual)
        self.ends.append("ran")

    def used(self, number: int) -> int:
        """Tokens that were known to be used when the call started, as far as they were used at all."""
        call = self.plan[number]
        return call.tokens if call.actual is None else min(call.tokens, call.actual)


@settings(max_examples=100)
@given(
    requests=rates,
    tokens=st.sampled_from([3.0, 60.0, 500.0]),
    concurrency=st.none() | st.integers(1, 3),
    max_wait=st.none() | st.just(45.0),
    plan=plans,
)
def test_over_any_window_the_limits_hold_and_calls_start_in_order_and_none_is_lost(
    requests: float, tokens: float, concurrency: int | None, max_wait: float | None, plan: Sequence[Call]
) -> None:
    limits = Limits(
        concurrency=concurrency, requests_per_minute=requests, tokens_per_minute=tokens, max_wait=max_wait
    )
    load = Load(limits, plan)
    load.run()

    assert len(load.ends) == len(plan)
    numbers = [number for _, number in load.starts]
    assert numbers == sorted(numbers)
    for first, (begin, _) in enumerate(load.starts):
        for last, (end, _) in enumerate(load.starts[first:], first):
            minutes = (end - begin + 1e-5) / 60
            assert last - first + 1 <= max(requests, 1) + minutes * requests
            assert sum(map(load.used, numbers[first : last + 1])) <= tokens * (1 + minutes)
