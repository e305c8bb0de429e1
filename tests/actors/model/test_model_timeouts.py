"""The model actor: how long a request may wait and be waited for, and when it is let through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.model_actors import AT_ONCE, Asker, Transcript, answer, ask_for, register, start
from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.errors import AllAttemptsFailed, BadCall, CircuitOpen, ModelError
from ultra.messages.results import ModelResponse
from ultra.supervisor import ActorSystem
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    pass


# --- waits and timeouts ------------------------------------------------------------------------------


async def test_what_the_server_asks_for_pauses_all_calls_of_the_model(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("slow down", kind="rate_limit", retry_after=20.0)])
    times: list[float] = []

    async def generate(prompt: str) -> Any:
        times.append(trio.current_time())
        return await fake.generate(prompt)

    model = register(generate)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        first = Asker(nursery, ref, ask_for("first"))
        await trio.sleep(5)
        second = Asker(nursery, ref, ask_for("second"))
        await wait_all_tasks_blocked()
        assert len(times) == 1
    assert first.text == "fake: first"
    assert second.text == "fake: second"
    assert times[1] == pytest.approx(times[0] + 20)
    assert times[1] < times[2] <= times[1] + 0.25


async def test_a_wait_above_the_cap_fails_the_request_and_pauses_nobody(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("tomorrow", kind="rate_limit", retry_after=86_400.0)])
    model = register(fake)
    async with ActorSystem() as system:
        ref = start(system, model)
        begun = trio.current_time()
        with pytest.raises(AllAttemptsFailed, match="tomorrow"):
            await ref.ask(ask_for())
        await ref.ask(ask_for())
        assert trio.current_time() == begun


async def test_a_rejection_by_the_own_limits_is_no_attempt_and_pauses_nobody(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel()
    model = register(fake, limits=Limits(requests_per_minute=1, max_wait=1.0))
    async with ActorSystem() as system:
        ref = start(system, model)
        await ref.ask(ask_for("a"))
        with pytest.raises(AllAttemptsFailed, match="0 attempts"):
            await ref.ask(ask_for("b"))
    assert model.limiter.statistics().paused_for == 0
    assert (len(fake.calls), model.metrics.attempts) == (1, 1)


async def test_an_attempt_that_takes_too_long_is_cut_off_and_retried(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    begun = trio.current_time()
    with pytest.raises(AllAttemptsFailed, match="the whole answer did not come within 10 s") as caught:
        await answer(register(slow, timeouts=Timeouts(attempt=10)))
    assert slow.cancelled == 3
    assert trio.current_time() == pytest.approx(begun + 30)
    assert isinstance(caught.value.__cause__, ModelError)
    assert caught.value.__cause__.kind == "timeout"


async def test_the_wait_for_a_turn_does_not_count_as_part_of_the_attempt(autojump_clock: MockClock) -> None:
    model = register(
        FakeModel(name="slow", seconds=8), timeouts=Timeouts(attempt=10), limits=Limits(concurrency=1)
    )
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        askers = [Asker(nursery, ref, ask_for(f"Q{n}")) for n in range(3)]
    assert all(isinstance(asker.outcome, ModelResponse) for asker in askers)
    assert model.metrics.retries == 0


@pytest.mark.parametrize(
    ("timeouts", "seconds", "message", "after"),
    [
        (Timeouts(first_token=3), 5, "the first piece of the answer did not come within 3 s", 3),
        (Timeouts(idle=3.2), 5, "the next piece of the answer did not come within 3.2 s", 8.2),
        (Timeouts(attempt=7, idle=3), 2.5, "the whole answer did not come within 7 s", 7),
    ],
)
async def test_a_stream_is_held_to_first_token_idle_and_whole_timeout(
    timeouts: Timeouts, seconds: float, message: str, after: float, autojump_clock: MockClock
) -> None:
    if timeouts.first_token == 60:
        timeouts = Timeouts(attempt=timeouts.attempt, idle=timeouts.idle, first_token=6)
    fake = FakeModel(FakeAnswer("a", "b", "c", "d"), name="s", seconds=seconds, piece_seconds=seconds)
    model = register(fake, timeouts=timeouts, retry=RetryPolicy(max_retries=0))
    begun = trio.current_time()
    with pytest.raises(AllAttemptsFailed, match=message):
        await answer(model, ask_for(listener=Transcript()))
    assert trio.current_time() == pytest.approx(begun + after)


async def test_a_stream_that_keeps_coming_may_take_longer_than_first_token_and_idle(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel(FakeAnswer(*"abcdefgh"), name="s", seconds=2, piece_seconds=2)
    model = register(fake, timeouts=Timeouts(first_token=3, idle=3))
    response = await answer(model, ask_for(listener=Transcript()))
    assert response.content == "abcdefgh"
    assert response.time_to_first_token == pytest.approx(2)
    assert response.response_time == pytest.approx(16)
    assert model.metrics.snapshot().times_to_first_token == pytest.approx([2])


async def test_no_retry_is_begun_that_could_not_start_before_the_deadline(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("busy", kind="overloaded", retry_after=10.0)] * 9)
    begun = trio.current_time()
    with pytest.raises(AllAttemptsFailed, match="2 attempts"):
        await answer(register(fake), ask_for(time_left=15))
    assert trio.current_time() == pytest.approx(begun + 10)


@pytest.mark.parametrize("bad", [{"attempt": 0}, {"idle": -1}, {"first_token": "1"}, {"idle": math.nan}])
def test_a_timeout_that_is_no_time_is_refused_by_name(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(BadCall, match=name):
        Timeouts(**bad)


# --- the breaker -------------------------------------------------------------------------------------


async def test_the_breaker_counts_requests_and_not_attempts(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[RuntimeError("down")] * 100)
    model = register(fake, breaker=BreakerPolicy(consecutive_failures=2, cooldown=30))
    async with ActorSystem() as system:
        ref = start(system, model)
        for _ in range(2):
            with pytest.raises(AllAttemptsFailed, match="3 attempts"):
                await ref.ask(ask_for())
        with pytest.raises(AllAttemptsFailed, match="0 attempts") as caught:
            await ref.ask(ask_for())
        assert isinstance(caught.value.__cause__, CircuitOpen)
        assert len(fake.calls) == 6

        await trio.sleep(30)
        fake.recover()
        assert (await ref.ask(ask_for())).content == "fake: Q"


async def test_a_probe_whose_asker_leaves_says_nothing_about_the_model(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=10)
    model = register(slow, breaker=BreakerPolicy(consecutive_failures=1, cooldown=30), retry=AT_ONCE)
    async with ActorSystem() as system:
        ref = start(system, model)
        with pytest.raises(ZeroDivisionError), model.breaker.guard():
            raise ZeroDivisionError
        await trio.sleep(30)
        with trio.move_on_after(1):
            await ref.ask(ask_for())
        await wait_all_tasks_blocked()
        assert model.breaker.statistics().state == "half_open"
        assert (await ref.ask(ask_for())).content == "slow: Q"
        assert model.breaker.statistics().state == "closed"


async def test_the_cache_answers_though_the_circuit_is_open() -> None:
    fake = FakeModel()
    model = register(fake, breaker=BreakerPolicy(consecutive_failures=1))
    async with ActorSystem() as system:
        ref = start(system, model)
        await ref.ask(ask_for("known"))
        fake.fail(RuntimeError("down"), times=3)
        with pytest.raises(AllAttemptsFailed):
            await ref.ask(ask_for("new"))
        assert (await ref.ask(ask_for("known"))).cached


async def test_a_call_waits_for_given_up_threads_as_long_as_for_an_answer(autojump_clock: MockClock) -> None:
    await trio.sleep(1000)  # the time that has passed before is no part of that
    model = register(
        FakeModel(),
        retry=RetryPolicy(max_retries=0),
        timeouts=Timeouts(attempt=10),
        limits=Limits(concurrency=1),
    )
    model.limiter.keep_slot()
    began = trio.current_time()
    with pytest.raises(AllAttemptsFailed, match="threads still run"):
        await answer(model)
    assert trio.current_time() - began == pytest.approx(10)
