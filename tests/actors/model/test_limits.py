from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock, Sequencer, wait_all_tasks_blocked

from ultra.actors.model.limits import Limiter, Limits
from ultra.clients.wire.rate_limits import RateLimits
from ultra.errors import BadCall, CircuitOpen, ModelError

FREE = Limits(concurrency=None)


async def start_times(limiter: Limiter, calls: int, tokens: float = 0) -> list[float]:
    """Start `calls` calls at once; when each got its turn, in order of the calls."""
    began = trio.current_time()
    times = [math.nan] * calls

    async def call(number: int) -> None:
        with await limiter.acquire(tokens):
            times[number] = trio.current_time() - began

    async with trio.open_nursery() as nursery:
        for number in range(calls):
            nursery.start_soon(call, number)
            await wait_all_tasks_blocked()
    return times


# --- rates -------------------------------------------------------------------------------------


async def test_a_minute_s_requests_go_at_once_and_the_rest_as_they_refill(autojump_clock: MockClock) -> None:
    times = await start_times(Limiter("m", Limits(requests_per_minute=4)), 7)
    assert times == pytest.approx([0, 0, 0, 0, 15, 30, 45])


async def test_less_than_one_request_a_minute_is_a_rate_too(autojump_clock: MockClock) -> None:
    times = await start_times(Limiter("m", Limits(requests_per_minute=0.5)), 3)
    assert times == pytest.approx([0, 120, 240])


async def test_tokens_refill_continuously(autojump_clock: MockClock) -> None:
    times = await start_times(Limiter("m", Limits(tokens_per_minute=600)), 4, tokens=400)
    assert times == pytest.approx([0, 20, 60, 100])


async def test_no_more_than_a_minute_s_allowance_piles_up(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(requests_per_minute=2))
    await limiter.acquire()
    await trio.sleep(3600)
    assert await start_times(limiter, 3) == pytest.approx([0, 0, 30])


# --- order, cancellation, rejection ------------------------------------------------------------


async def test_a_small_call_does_not_overtake_a_big_one(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    order = []

    async def call(name: str, tokens: int) -> None:
        with await limiter.acquire(tokens):
            order.append((name, trio.current_time() - began))

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for name, tokens in [("first", 500), ("big", 600), ("small", 1)]:
            nursery.start_soon(call, name, tokens)
            await wait_all_tasks_blocked()
    assert [name for name, _ in order] == ["first", "big", "small"]
    assert [time for _, time in order] == pytest.approx([0, 50, 50.1])


async def test_a_cancelled_call_takes_nothing_and_the_next_moves_up(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    (await limiter.acquire(600)).release()
    async with trio.open_nursery() as nursery:
        first_in_line = trio.CancelScope()

        async def give_up() -> None:
            with first_in_line:
                await limiter.acquire(600)

        nursery.start_soon(give_up)
        await trio.sleep(20)
        began = trio.current_time()
        nursery.start_soon(limiter.acquire, 300)
        await wait_all_tasks_blocked()
        first_in_line.cancel()
    assert trio.current_time() - began == pytest.approx(10)
    assert limiter.statistics().waiting == 0


async def test_a_call_that_is_cancelled_behind_the_first_leaves_the_line(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=1))
    order: list[int] = []
    scopes = [trio.CancelScope() for _ in range(3)]

    async def call(number: int) -> None:
        with scopes[number]:
            await limiter.acquire()
            order.append(number)

    permit = await limiter.acquire()
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(call, number)
            await wait_all_tasks_blocked()
        scopes[1].cancel()
        await wait_all_tasks_blocked()
        assert limiter.statistics().waiting == 2
        permit.release()
        await wait_all_tasks_blocked()
        assert order == [0]
        scopes[2].cancel()


async def test_acquiring_in_a_cancelled_scope_takes_nothing() -> None:
    limiter = Limiter("m", Limits(concurrency=1, requests_per_minute=1))
    with trio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert scope.cancelled_caught
    statistics = limiter.statistics()
    assert (statistics.in_flight, statistics.requests_available) == (0, 1)


async def test_a_call_bigger_than_a_minute_s_tokens_is_rejected_at_once_and_consumes_nothing() -> None:
    limiter = Limiter("gemini", Limits(tokens_per_minute=600, requests_per_minute=1))
    with pytest.raises(ModelError, match=r"'gemini'.*601 tokens, and 600 a minute") as caught:
        await limiter.acquire(601)
    assert (caught.value.kind, caught.value.retryable) == ("rate_limit", False)
    statistics = limiter.statistics()
    assert (statistics.tokens_available, statistics.requests_available) == (600, 1)
    assert (statistics.in_flight, statistics.rejected) == (0, 1)


async def test_a_turn_that_would_come_too_late_is_rejected_at_once(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(requests_per_minute=1, tokens_per_minute=600, max_wait=30))
    (await limiter.acquire(100)).release()
    began = trio.current_time()
    with pytest.raises(ModelError, match=r"in 60\.0 s at the earliest") as caught:
        await limiter.acquire(100)
    assert trio.current_time() == began
    assert caught.value.retry_after == pytest.approx(60)
    assert limiter.statistics().tokens_available == pytest.approx(500)


async def test_a_call_that_waited_long_enough_for_a_place_is_rejected(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=1, max_wait=30))
    await limiter.acquire()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def refused() -> None:
            with pytest.raises(ModelError, match="waited 30 s"):
                await limiter.acquire()

        nursery.start_soon(refused)
        nursery.start_soon(refused)
    assert trio.current_time() - began == pytest.approx(30)
    assert limiter.statistics().rejected == 2


# --- concurrency -------------------------------------------------------------------------------


async def test_as_many_calls_at_once_as_the_limit_says(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=2))
    permits = [await limiter.acquire(), await limiter.acquire()]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await wait_all_tasks_blocked()
        statistics = limiter.statistics()
        assert (statistics.in_flight, statistics.waiting) == (2, 1)
        permits[0].release()
        permits[0].release()  # once is enough, twice is once
        await wait_all_tasks_blocked()
        statistics = limiter.statistics()
        assert (statistics.in_flight, statistics.waiting) == (2, 0)


async def test_a_call_that_fails_gives_its_place_up() -> None:
    limiter = Limiter("m", Limits(concurrency=1))
    with pytest.raises(ZeroDivisionError), await limiter.acquire():
        raise ZeroDivisionError
    assert limiter.statistics().in_flight == 0


async def test_acquire_is_a_checkpoint_even_when_it_need_not_wait() -> None:
    limiter, turns, sequence = Limiter("m", FREE), list[str](), Sequencer()

    async def other() -> None:
        async with sequence(0):
            turns.append("other")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(10):
            await limiter.acquire()
        turns.append("this")
    assert turns == ["other", "this"]


# --- settling ----------------------------------------------------------------------------------


async def test_tokens_that_were_not_used_come_back_at_once(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    permit = await limiter.acquire(600)
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(limiter.acquire, 500)
        await wait_all_tasks_blocked()
        permit.settle(100)
    assert trio.current_time() == began
    assert limiter.statistics().tokens_available == pytest.approx(0)


async def test_tokens_used_beyond_the_estimate_are_waited_for_by_the_next_call(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    with await limiter.acquire(100) as permit:
        permit.settle(1200)
        permit.settle(1200)
    permit.settle(0)  # too late
    assert limiter.statistics().tokens_available == pytest.approx(-600)
    began = trio.current_time()
    await limiter.acquire(0)
    assert trio.current_time() - began == pytest.approx(60)


async def test_what_is_given_back_never_exceeds_a_minute_s_allowance(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    permit = await limiter.acquire(600)
    await trio.sleep(3600)
    permit.settle(0)
    assert limiter.statistics().tokens_available == 600


async def test_a_call_that_was_never_sent_gives_everything_back() -> None:
    limiter = Limiter("m", Limits(concurrency=1, requests_per_minute=1, tokens_per_minute=600))
    permit = await limiter.acquire(600)
    permit.cancel()
    permit.cancel()
    statistics = limiter.statistics()
    assert statistics.requests_available == pytest.approx(1)
    assert statistics.tokens_available == pytest.approx(600)
    assert statistics.in_flight == 0


async def test_a_call_that_the_circuit_breaker_rejects_consumes_nothing() -> None:
    limiter = Limiter("m", Limits(requests_per_minute=1))
    with pytest.raises(CircuitOpen), await limiter.acquire():
        raise CircuitOpen("m", 1.0)
    assert limiter.statistics().requests_available == 1


# --- pauses ------------------------------------------------------------------------------------


async def test_a_pause_holds_every_call_that_has_not_started(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", FREE)
    limiter.pause(20)
    limiter.pause(5)  # a shorter one does not end the longer one
    assert limiter.statistics().paused_for == pytest.approx(20)
    first, second, third = await start_times(limiter, 3)
    assert first == pytest.approx(20)
    assert 20 < second < third <= 20.5


@pytest.mark.parametrize("calls", [2, 10, 40, 1_000])
async def test_calls_come_back_from_a_pause_one_after_the_other(
    autojump_clock: MockClock, calls: int
) -> None:
    limiter = Limiter("m", FREE)
    limiter.pause(10)
    times = await start_times(limiter, calls)
    assert times == sorted(times)
    assert times[0] == pytest.approx(10)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert min(gaps) > 0.001
    assert max(gaps) <= 0.25 + 1e-6
    assert times[-1] - times[0] <= 2.5
    if calls >= 10:
        assert times[-1] - times[0] > 2


async def test_callers_that_sleep_through_a_pause_themselves_are_spread_too(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter("m", FREE)
    times: list[float] = []

    async def retry() -> None:
        await trio.sleep(10)
        try:
            limiter.acquire_nowait()
        except trio.WouldBlock:
            await limiter.acquire()
        times.append(trio.current_time())

    limiter.pause(10)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(retry)
    assert min(times) == pytest.approx(begun + 10)
    assert 2 < max(times) - min(times) <= 2.5
    assert len({round(time, 4) for time in times}) == 40


async def test_after_the_spread_calls_go_at_once(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", FREE)
    limiter.pause(10)
    await trio.sleep(13)
    assert await start_times(limiter, 5) == pytest.approx([0] * 5)


@pytest.mark.parametrize("seconds", [1e9, math.inf])
async def test_a_pause_ends_whatever_a_server_says(autojump_clock: MockClock, seconds: float) -> None:
    limiter = Limiter("m", FREE)
    limiter.pause(seconds)
    assert await start_times(limiter, 1) == pytest.approx([3600])


async def test_a_pause_also_holds_calls_that_wait_already(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=1))
    permit = await limiter.acquire()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        await wait_all_tasks_blocked()
        limiter.pause(7)
        permit.release()
    assert trio.current_time() - began == pytest.approx(7)


async def test_a_pause_longer_than_calls_may_wait_rejects_them_all_at_once(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=1, max_wait=60))
    await limiter.acquire()
    began = trio.current_time()
    waits: list[float | None] = []

    async def call() -> None:
        with pytest.raises(ModelError) as caught:
            await limiter.acquire()
        waits.append(caught.value.retry_after)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
        await wait_all_tasks_blocked()
        limiter.pause(3600)
    assert trio.current_time() == began
    assert waits == pytest.approx([3600] * 3)


@pytest.mark.parametrize("seconds", [0, -3, math.nan])
async def test_a_pause_of_no_length_is_none(seconds: float) -> None:
    limiter = Limiter("m", FREE)
    limiter.pause(seconds)
    assert limiter.statistics().paused_for == 0


def test_a_limiter_keeps_its_state_from_one_trio_run_to_the_next() -> None:
    limiter = Limiter("m", Limits(requests_per_minute=1))
    first = trio.run(start_times, limiter, 1, clock=MockClock(autojump_threshold=0))
    then = trio.run(start_times, limiter, 1, clock=MockClock(autojump_threshold=0))
    assert first == [0]
    assert then == pytest.approx([60])


# --- learning ----------------------------------------------------------------------------------


async def test_headers_are_heeded_only_when_asked_to() -> None:
    limiter = Limiter("m", FREE)
    limiter.learn(RateLimits(requests_per_minute=1, requests_remaining=0))
    assert limiter.statistics().requests_available is None


async def test_a_limit_is_learned_where_none_was_configured(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(learn=True))
    limiter.learn(RateLimits(requests_per_minute=60, requests_remaining=2))
    assert await start_times(limiter, 4) == pytest.approx([0, 0, 1, 2])


async def test_a_configured_limit_is_lowered_but_never_raised() -> None:
    limiter = Limiter("m", Limits(learn=True, requests_per_minute=10, tokens_per_minute=10))
    limiter.learn(
        RateLimits(requests_per_minute=5, requests_remaining=5, tokens_per_minute=99, tokens_remaining=99)
    )
    statistics = limiter.statistics()
    assert statistics.requests_available == pytest.approx(5)
    assert statistics.tokens_available == pytest.approx(10)


async def test_what_others_use_of_the_same_key_is_counted_too() -> None:
    limiter = Limiter("m", Limits(learn=True, tokens_per_minute=100))
    limiter.learn(RateLimits(tokens_remaining=30))
    assert limiter.statistics().tokens_available == pytest.approx(30, abs=1)


async def test_a_call_larger_than_a_learned_limit_waits_for_all_of_it_and_is_not_rejected(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter("m", Limits(learn=True))
    limiter.learn(RateLimits(tokens_per_minute=400, tokens_remaining=100))
    assert await start_times(limiter, 2, tokens=500) == pytest.approx([45, 120])


@pytest.mark.parametrize("number", [5e-324, 0.0, -1.0, 0.001, math.inf, math.nan, 1e308])
async def test_an_announced_limit_that_cannot_be_true_changes_nothing(number: float) -> None:
    limiter = Limiter("m", Limits(learn=True))
    limiter.learn(
        RateLimits(
            requests_per_minute=number,
            requests_remaining=0,
            tokens_per_minute=number,
            tokens_remaining=0,
        )
    )
    with limiter.acquire_nowait(1000):
        pass
    assert limiter.statistics().requests_available is None
    assert limiter.statistics().tokens_available is None


@pytest.mark.parametrize("left", [math.nan, -1.0, -math.inf])
async def test_a_remainder_that_cannot_be_true_changes_nothing(left: float) -> None:
    limiter = Limiter("m", Limits(learn=True, tokens_per_minute=100))
    limiter.learn(RateLimits(tokens_remaining=left, requests_remaining=left))
    assert limiter.statistics().tokens_available == pytest.approx(100)


async def test_a_usage_that_cannot_be_true_delays_the_next_call_by_a_minute_at_most(
    autojump_clock: MockClock,
) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=600))
    with await limiter.acquire(10) as permit:
        permit.settle(2**63)
    assert await start_times(limiter, 1, tokens=10) == pytest.approx([61])


# --- threads that were given up ----------------------------------------------------------------


async def test_a_thread_that_was_given_up_keeps_its_slot_until_it_ends(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=2))
    ends = [limiter.keep_slot(), limiter.keep_slot()]
    assert limiter.statistics().abandoned == limiter.statistics().in_flight == 2
    with pytest.raises(trio.WouldBlock):
        limiter.acquire_nowait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire)
        nursery.start_soon(limiter.acquire)
        await trio.sleep(1)
        assert limiter.statistics().waiting == 2
        await trio.to_thread.run_sync(ends[0])
        await wait_all_tasks_blocked()
        assert limiter.statistics().waiting == 1
        ends[1]()
        ends[1]()
    assert limiter.statistics().abandoned == 0
    assert limiter.statistics().in_flight == 2


async def test_once_such_threads_have_all_slots_for_long_no_call_waits(autojump_clock: MockClock) -> None:
    limiter = Limiter("m", Limits(concurrency=1))
    permit = await limiter.acquire()
    failed: list[float] = []

    async def call() -> None:
        with pytest.raises(ModelError, match="threads still run") as caught:
            await limiter.acquire(patience=5)
        assert (caught.value.kind, caught.value.retryable) == ("timeout", True)
        failed.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(call)
        await trio.sleep(2)
        end = limiter.keep_slot()
        permit.release()
    assert [time - began for time in failed] == pytest.approx([7, 7, 7])
    end()
    limiter.acquire_nowait()


def test_a_thread_that_outlives_its_run_frees_the_slot_for_the_next() -> None:
    limiter = Limiter("m", Limits(concurrency=1))

    async def give_up() -> Any:
        return limiter.keep_slot()

    async def wait(end: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.acquire)
            await wait_all_tasks_blocked()
            await trio.to_thread.run_sync(end)

    trio.run(wait, trio.run(give_up))
    trio.run(give_up)()


# --- bad values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": 0},
        {"concurrency": 1.5},
        {"concurrency": True},
        {"requests_per_minute": -1},
        {"requests_per_minute": "60"},
        {"tokens_per_minute": math.inf},
        {"tokens_per_minute": math.nan},
        {"max_wait": 0},
    ],
)
def test_limits_that_are_not_positive_numbers_are_bad_calls(values: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=f"{next(iter(values))} is .*; it must be a .*, or None"):
        Limits(**values)


@pytest.mark.parametrize("tokens", [-1, math.inf, math.nan])
async def test_tokens_below_zero_or_without_end_are_a_bad_call(tokens: float) -> None:
    with pytest.raises(BadCall, match="estimated number of tokens"):
        await Limiter("m").acquire(tokens)
