"""The model actor: equal requests share a call, and its text; who leaves does not take it along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.model_actors import Asker, Transcript, answer, ask_for, assert_all_accounted, register, start
from ultra.actors.model.limits import Limits
from ultra.errors import AllAttemptsFailed, LoopUnavailable, ModelError
from ultra.messages.results import ModelResponse
from ultra.supervisor import ActorSystem
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    pass


# --- single-flight -----------------------------------------------------------------------------------


async def test_a_joiner_in_the_middle_of_a_stream_gets_the_text_so_far_and_then_the_rest(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s", seconds=1, piece_seconds=1)
    first, second = Transcript(), Transcript()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(fake))
        Asker(nursery, ref, ask_for(listener=first))
        await trio.sleep(2.5)
        late = Asker(nursery, ref, ask_for(listener=second))
        await wait_all_tasks_blocked()
        assert second.pieces == ["ab"]
    assert first.text == second.text == late.text == "abc"
    assert second.pieces == ["ab", "c"]
    assert sum(call.streamed for call in fake.calls) == 1
    assert isinstance(late.outcome, ModelResponse)
    assert late.outcome.response_time == pytest.approx(0.5)
    assert late.outcome.time_to_first_token == 0


async def test_the_leader_leaves_while_followers_stay_and_get_the_answer(autojump_clock: MockClock) -> None:
    fake = FakeModel("A", seconds=10)
    model = register(fake)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        leader = Asker(nursery, ref, ask_for())
        await wait_all_tasks_blocked()
        followers = [Asker(nursery, ref, ask_for()) for _ in range(2)]
        await trio.sleep(3)
        leader.scope.cancel()
        await trio.sleep(1)
        followers[0].scope.cancel()
    assert followers[1].text == "A"
    assert (len(fake.calls), fake.cancelled) == (1, 0)
    metrics = model.metrics.snapshot()
    assert (metrics.successes, metrics.cancelled, metrics.joined, metrics.attempts) == (1, 2, 2, 1)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
async def test_when_all_have_left_the_call_is_cancelled(
    order: tuple[int, ...], autojump_clock: MockClock
) -> None:
    fake = FakeModel(name="slow", seconds=10)
    model = register(fake)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        askers = []
        for _ in range(3):
            askers.append(Asker(nursery, ref, ask_for()))
            await wait_all_tasks_blocked()
        for number in order:
            assert fake.cancelled == 0
            askers[number].scope.cancel()
            await wait_all_tasks_blocked()
        assert fake.cancelled == 1
        assert ref.snapshot().in_flight == 0
        # The next one does not join what is over.
        assert (await ref.ask(ask_for())).content == "slow: Q"
    metrics = model.metrics.snapshot()
    assert (metrics.successes, metrics.cancelled) == (1, 3)
    assert_all_accounted(metrics)


async def test_who_comes_in_the_tick_in_which_all_have_left_is_served_by_a_call_of_its_own(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel("A", seconds=10)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(fake))
        first = Asker(nursery, ref, ask_for())
        await wait_all_tasks_blocked()
        first.scope.cancel()
        assert (await ref.ask(ask_for())).content == "A"
    assert fake.cancelled == 1


async def test_a_follower_with_a_later_deadline_keeps_the_retries_going(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("busy", kind="overloaded", retry_after=10.0)], gated=True)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(fake))
        impatient = Asker(nursery, ref, ask_for(time_left=5))
        await wait_all_tasks_blocked()
        patient = Asker(nursery, ref, ask_for(time_left=50))
        await wait_all_tasks_blocked()
        fake.gate.set()
    assert patient.text == impatient.text == "fake: Q"


async def test_a_deadline_that_has_left_keeps_no_retries_going(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("busy", kind="overloaded", retry_after=10.0)], gated=True)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(fake))
        patient = Asker(nursery, ref, ask_for(time_left=50))
        await wait_all_tasks_blocked()
        impatient = Asker(nursery, ref, ask_for(time_left=5))
        await wait_all_tasks_blocked()
        patient.scope.cancel()
        await wait_all_tasks_blocked()
        fake.gate.set()
    assert isinstance(impatient.outcome, AllAttemptsFailed)
    assert len(fake.calls) == 1


async def test_all_who_joined_get_the_failure_each_as_an_error_of_its_own() -> None:
    gated = FakeModel(name="gated", gated=True)
    gated.fail(ModelError("bad key", kind="auth"))
    model = register(gated)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        askers = [Asker(nursery, ref, ask_for()) for _ in range(3)]
        await wait_all_tasks_blocked()
        gated.gate.set()
    errors = [asker.outcome for asker in askers]
    assert [str(error) for error in errors] == [str(errors[0])] * 3
    assert len({id(error) for error in errors}) == 3
    assert all(isinstance(error, AllAttemptsFailed) and error.attempts == 1 for error in errors)
    assert model.metrics.failures == 3


async def test_leaving_during_the_wait_for_a_retry_ends_it(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("busy", kind="overloaded", retry_after=50.0)])
    model = register(fake)
    async with ActorSystem() as system:
        ref = start(system, model)
        with trio.move_on_after(1):
            await ref.ask(ask_for())
        await wait_all_tasks_blocked()
        assert ref.snapshot().in_flight == 0
    assert len(fake.calls) == 1
    assert model.metrics.cancelled == 1


async def test_leaving_while_waiting_for_a_turn_gives_the_turn_to_the_next() -> None:
    gated = FakeModel(name="gated", gated=True)
    model = register(gated, limits=Limits(concurrency=1))
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        Asker(nursery, ref, ask_for("a"))
        await wait_all_tasks_blocked()
        leaves = Asker(nursery, ref, ask_for("b"))
        stays = Asker(nursery, ref, ask_for("c"))
        await wait_all_tasks_blocked()
        leaves.scope.cancel()
        await wait_all_tasks_blocked()
        gated.gate.set()
    assert stays.text == "gated: c"
    assert gated.prompts == ["a", "c"]


async def test_who_joined_a_call_whose_loop_has_ended_leads_the_next(autojump_clock: MockClock) -> None:
    lost = ModelError("lost", kind="connection", retryable=False)
    lost.__cause__ = LoopUnavailable("ended")
    fake = FakeModel(FakeAnswer("a", "b"), seconds=1, piece_seconds=1).fail(lost, after_pieces=1)
    transcripts = [Transcript() for _ in range(3)]
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, register(fake))
        leader = Asker(nursery, ref, ask_for(listener=transcripts[0]))
        await wait_all_tasks_blocked()
        followers = [Asker(nursery, ref, ask_for(listener=heard)) for heard in transcripts[1:]]
    assert isinstance(leader.outcome, AllAttemptsFailed)
    assert [follower.text for follower in followers] == ["ab", "ab"]
    assert [heard.text for heard in transcripts] == ["a", "ab", "ab"]
    assert sum(call.streamed for call in fake.calls) == 2


async def test_the_same_message_may_be_asked_twice_at_once() -> None:
    gated = FakeModel(name="gated", gated=True)
    model = register(gated)
    request = ask_for()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        first, second = (Asker(nursery, ref, request) for _ in range(2))
        await wait_all_tasks_blocked()
        second.scope.cancel()
        await wait_all_tasks_blocked()
        assert gated.cancelled == 0
        gated.gate.set()
    assert first.text == "gated: Q"
    assert (model.metrics.successes, model.metrics.cancelled) == (1, 1)


# --- streams -----------------------------------------------------------------------------------------


async def test_a_retry_after_text_was_sent_starts_the_text_again() -> None:
    fake = FakeModel(FakeAnswer("a", "b", "c"), name="s").fail(after_pieces=2)
    transcript = Transcript()
    response = await answer(register(fake), ask_for(listener=transcript))
    assert response.content == transcript.text == "abc"
    assert transcript.beginnings == 2
    assert response.attempts == 2


async def test_a_client_that_does_not_stream_is_told_as_one_piece() -> None:
    transcript = Transcript()
    await answer(register(FakeModel("the whole answer", streams=False)), ask_for(listener=transcript))
    assert transcript.pieces == ["the whole answer"]


async def test_nobody_listening_the_client_is_asked_for_the_whole_answer() -> None:
    fake = FakeModel(FakeAnswer("a", "b"), name="s")
    assert (await answer(register(fake))).content == "ab"
    assert sum(call.streamed for call in fake.calls) == 0
