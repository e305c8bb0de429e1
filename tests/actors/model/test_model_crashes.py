"""The model actor: crashes, stops, and everything at once."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.model_actors import Asker, Transcript, ask_for, assert_all_accounted, register, start
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.errors import ActorCrashed, AllAttemptsFailed, ModelError
from ultra.messages.results import ModelResponse
from ultra.supervisor import ActorSystem
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.actors.runtime.actor import ActorRef


# --- crashes -----------------------------------------------------------------------------------------


class Buggy(ModelActor):
    """Raises, `bugs` times in all, when an answer is there."""

    bugs = 1

    def _response(self, *arguments: Any, **more: Any) -> ModelResponse:
        if type(self).bugs:
            type(self).bugs -= 1
            raise ZeroDivisionError("a bug")
        return super()._response(*arguments, **more)


async def test_after_a_crash_all_requests_are_handled_again_and_nobody_notices() -> None:
    class Once(Buggy):
        bugs = 1

    gated = FakeModel(name="gated", gated=True)
    model = register(gated)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model, Once)
        askers = [Asker(nursery, ref, ask_for(prompt)) for prompt in ("a", "b", "b", "b")]
        await wait_all_tasks_blocked()
        gated.gate.set()
        await wait_all_tasks_blocked()
        assert ref.snapshot().restarts == 1
    assert [asker.text for asker in askers] == ["gated: a", "gated: b", "gated: b", "gated: b"]
    assert_all_accounted(model.metrics.snapshot())


async def test_when_the_leader_crashes_its_followers_report_no_crash_of_their_own() -> None:
    class Once(Buggy):
        bugs = 1

    gated = FakeModel(name="gated", gated=True)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(gated), Once)
        for _ in range(3):
            Asker(nursery, ref, ask_for())
        await wait_all_tasks_blocked()
        gated.gate.set()
        await wait_all_tasks_blocked()
        assert ref.snapshot().last_error == "ZeroDivisionError: a bug"


async def test_a_request_that_always_crashes_the_actor_fails_after_two_deliveries() -> None:
    class Always(Buggy):
        bugs = 2

    model = register(FakeModel(), cache=False)
    async with ActorSystem() as system:
        ref = start(system, model, Always)
        with pytest.raises(ActorCrashed, match="a bug"):
            await ref.ask(ask_for())
        assert (await ref.ask(ask_for())).content == "fake: Q"
    metrics = model.metrics.snapshot()
    assert (metrics.failures, metrics.successes) == (2, 1)
    assert_all_accounted(metrics)


async def test_a_listener_hears_from_the_second_delivery_that_its_text_starts_again() -> None:
    class Once(Buggy):
        bugs = 1

    transcript = Transcript()
    async with ActorSystem() as system:
        ref = start(system, register(FakeModel(FakeAnswer("a", "b"), name="s"), cache=False), Once)
        await ref.ask(ask_for(listener=transcript))
    assert transcript.text == "ab"
    assert transcript.beginnings == 2


async def test_stopping_the_actor_fails_what_is_in_flight_and_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    slow = FakeModel(seconds=1000)
    model = register(slow)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        askers = [Asker(nursery, ref, ask_for(prompt)) for prompt in ("a", "a", "b")]
        await wait_all_tasks_blocked()
        await ref.stop(grace=1)
    assert all(isinstance(asker.outcome, Exception) for asker in askers)
    assert slow.cancelled == 2
    assert_all_accounted(model.metrics.snapshot())


# --- all of it at once -------------------------------------------------------------------------------


class Fickle:
    """Answers, streams, fails, hangs or breaks as its random says."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.running = 0

    async def generate(self, prompt: str) -> str:
        return "".join([piece async for piece in self.stream(prompt)])

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        self.running += 1
        try:
            await trio.sleep(self.random.choice([0, 0.1, 1, 100]))
            for piece in ("answer ", "to ", prompt):
                if self.random.random() < 0.2:
                    raise self.random.choice([ConnectionError("broke"), ModelError("no", kind="auth")])
                yield piece
                await trio.sleep(self.random.choice([0, 0.1, 1]))
        finally:
            self.running -= 1


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_happens_each_request_ends_once_and_every_text_is_that_of_its_answer(
    seed: int, autojump_clock: MockClock
) -> None:
    random = Random(seed)
    client = Fickle(random)

    class Sometimes(Buggy):
        bugs = 3

    model = register(
        client,
        timeouts=Timeouts(attempt=20, first_token=5),
        limits=Limits(concurrency=3),
        breaker=BreakerPolicy(consecutive_failures=None, failure_rate=None),
        retry=RetryPolicy(max_retries=2),
    )
    ends = 0

    async def ask(ref: ActorRef) -> None:
        nonlocal ends
        await trio.sleep(random.uniform(0, 5))
        prompt = random.choice("abc")
        transcript = Transcript() if random.random() < 0.5 else None
        with trio.move_on_after(random.choice([0.05, 0.5, 5, 1000])):
            try:
                use_cache = random.random() < 0.8
                response = await ref.ask(ask_for(prompt, listener=transcript, use_cache=use_cache))
            except (AllAttemptsFailed, ActorCrashed):
                pass
            else:
                assert response.content == f"answer to {prompt}"
                assert transcript is None or transcript.text == response.content
        ends += 1

    async with ActorSystem() as system:
        ref = start(system, model, Sometimes)
        async with trio.open_nursery() as nursery:
            for _ in range(60):
                nursery.start_soon(ask, ref)
        await wait_all_tasks_blocked()
        assert ref.snapshot().in_flight == 0
        assert client.running == 0
        assert model.limiter.statistics().in_flight == 0
    assert ends == 60
    metrics = model.metrics.snapshot()
    assert_all_accounted(metrics)
    assert metrics.requests >= 60
