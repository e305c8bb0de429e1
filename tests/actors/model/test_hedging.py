"""Hedged calls: the first answer wins, and the other call is cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from ultra.actors.model.hedging import Hedge, HedgedCall, percentile
from ultra.clients.adapter import OnText
from ultra.errors import BadCall, ModelError
from ultra.messages.results import Completion


class Backend:
    """Answers after `seconds`, streams its name first if told, or fails."""

    def __init__(
        self, name: str, seconds: float, *, fails: bool = False, first_text: float | None = None
    ) -> None:
        self.name, self.seconds, self.fails, self.first_text = name, seconds, fails, first_text
        self.calls = self.cancelled = 0

    async def __call__(self, on_text: OnText | None) -> Completion:
        self.calls += 1
        try:
            if self.first_text is not None and on_text is not None:
                await trio.sleep(self.first_text)
                on_text(self.name)
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        if self.fails:
            raise ModelError(f"{self.name} failed")
        return Completion(content=self.name)


def hedged(
    *calls: Callable[[OnText | None], Awaitable[Completion]], delay: float = 1, on_text: OnText | None = None
) -> tuple[HedgedCall, list[float]]:
    hedges: list[float] = []

    async def note() -> AbstractContextManager[None]:
        hedges.append(trio.current_time())
        return nullcontext()

    return HedgedCall(calls, delay, on_hedge=note, on_text=on_text), hedges


async def test_a_call_that_is_fast_enough_is_not_hedged(autojump_clock: MockClock) -> None:
    fast, spare = Backend("fast", 0.5), Backend("spare", 0.1)
    call, hedges = hedged(fast, spare)
    assert (await call.run()).content == "fast"
    assert (hedges, spare.calls, call.hedge_won) == ([], 0, False)


async def test_the_hedge_wins_over_a_slow_call_which_is_cancelled(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 100), Backend("spare", 1)
    call, hedges = hedged(slow, spare)
    start = trio.current_time()
    assert (await call.run()).content == "spare"
    assert trio.current_time() - start == pytest.approx(2)
    assert (len(hedges), slow.cancelled, call.hedge_won) == (1, 1, True)


async def test_the_first_call_may_still_win_and_the_hedge_is_cancelled(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 2), Backend("spare", 100)
    call, hedges = hedged(slow, spare)
    assert (await call.run()).content == "slow"
    assert (len(hedges), spare.cancelled, call.hedge_won) == (1, 1, False)


async def test_one_deployment_can_be_asked_twice(autojump_clock: MockClock) -> None:
    times = iter([100.0, 1.0])
    seen: list[float] = []

    async def backend(_on_text: OnText | None) -> Completion:
        seconds = next(times)
        await trio.sleep(seconds)
        seen.append(seconds)
        return Completion(content=str(seconds))

    call, _ = hedged(backend)
    assert (await call.run()).content == "1.0"
    assert seen == [1.0]


async def test_whoever_streams_first_wins_and_alone_is_heard(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    slow, spare = Backend("slow", 1, first_text=5), Backend("spare", 50, first_text=2)
    call, _ = hedged(slow, spare, on_text=heard.append)
    assert (await call.run()).content == "spare"
    assert heard == ["spare"]
    assert slow.cancelled == 1


async def test_a_first_call_that_streams_before_the_delay_is_not_hedged(autojump_clock: MockClock) -> None:
    heard: list[str] = []
    slow, spare = Backend("slow", 50, first_text=0.5), Backend("spare", 1)
    call, hedges = hedged(slow, spare, on_text=heard.append)
    assert (await call.run()).content == "slow"
    assert (hedges, spare.calls, heard) == ([], 0, ["slow"])


async def test_a_failure_before_the_delay_is_raised_at_once_and_not_hedged(autojump_clock: MockClock) -> None:
    broken, spare = Backend("broken", 0.5, fails=True), Backend("spare", 1)
    call, hedges = hedged(broken, spare)
    with pytest.raises(ModelError, match="broken failed"):
        await call.run()
    assert hedges == []


async def test_when_one_of_two_fails_the_others_answer_counts(autojump_clock: MockClock) -> None:
    call, _ = hedged(Backend("broken", 1.5, fails=True), Backend("spare", 3))
    assert (await call.run()).content == "spare"
    call, _ = hedged(Backend("slow", 3), Backend("broken", 0.5, fails=True))
    assert (await call.run()).content == "slow"


async def test_when_both_fail_the_first_calls_error_is_raised(autojump_clock: MockClock) -> None:
    call, _ = hedged(Backend("one", 3, fails=True), Backend("two", 0.5, fails=True))
    with pytest.raises(ModelError, match="one failed"):
        await call.run()


async def test_cancelling_cancels_both(autojump_clock: MockClock) -> None:
    slow, spare = Backend("slow", 100), Backend("spare", 100)
    call, _ = hedged(slow, spare)
    with trio.move_on_after(5):
        await call.run()
    assert (slow.cancelled, spare.cancelled) == (1, 1)


def test_the_delay_is_a_number_or_the_models_own_95th_percentile() -> None:
    assert Hedge(2.0).delay([]) == 2.0
    assert Hedge("p95").delay([1.0] * 19) == float("inf")
    assert Hedge("p95").delay([float(n) for n in range(1, 101)]) == 95.0
    assert percentile([3.0], 0.95) == 3.0


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), "p50", True])
def test_another_delay_is_refused(after: Any) -> None:
    with pytest.raises(BadCall, match="p95"):
        Hedge(after)
