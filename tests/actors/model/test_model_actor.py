"""The model actor: what becomes of one request, and of the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.model_actors import Asker, Transcript, answer, ask_for, assert_all_accounted, register, start
from ultra.actors.model.limits import Limits
from ultra.actors.model.messages import Generate
from ultra.errors import ActorCrashed, AllAttemptsFailed, BadCall, ModelError
from ultra.messages.request import SamplingOptions
from ultra.messages.results import Completion, ModelResponse, Usage
from ultra.supervisor import ActorSystem
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    pass


# --- one request -------------------------------------------------------------------------------------


async def test_the_response_says_who_answered_what_and_how_long_it_took(autojump_clock: MockClock) -> None:
    response = await answer(register(FakeModel("Paris", seconds=2.5)), ask_for(system="Be brief."))
    assert (response.model_name, response.stage, response.content) == ("one", "initial", "Paris")
    assert response.response_time == pytest.approx(2.5)
    assert (response.attempts, response.cached, response.time_to_first_token) == (1, False, None)
    assert response.usage.estimated


async def test_what_the_client_reports_is_in_the_response() -> None:
    usage = Usage(input=7, output=3)
    said = Completion(content="x", usage=usage, finish_reason="length", request_id="r1")
    model = register(FakeModel(said))
    response = await answer(model)
    assert (response.usage, response.finish_reason, response.request_id) == (usage, "length", "r1")
    assert (model.metrics.input_tokens, model.metrics.output_tokens) == (7, 3)
    assert not model.metrics.tokens_estimated


async def test_a_failed_attempt_is_followed_by_another_and_all_are_counted() -> None:
    model = register(FakeModel(failures=[RuntimeError("busy"), RuntimeError("busy")]))
    response = await answer(model)
    assert response.attempts == 3
    metrics = model.metrics.snapshot()
    assert (metrics.attempts, metrics.retries, metrics.successes, metrics.failures) == (3, 2, 1, 0)
    assert metrics.success_rate == 1.0


async def test_when_all_attempts_fail_the_error_names_model_attempts_and_cause() -> None:
    model = register(FakeModel(failures=[RuntimeError(f"failure {n}") for n in range(9)]))
    with pytest.raises(AllAttemptsFailed, match=r"'one' \(3 attempts\).*failure 2") as caught:
        await answer(model)
    assert isinstance(caught.value.__cause__, ModelError)
    metrics = model.metrics.snapshot()
    assert (metrics.requests, metrics.failures, metrics.success_rate) == (1, 1, 0.0)


async def test_a_permanent_error_is_not_retried() -> None:
    fake = FakeModel(failures=[ModelError("bad key", kind="auth")])
    with pytest.raises(AllAttemptsFailed, match=r"1 attempt\)"):
        await answer(register(fake))
    assert len(fake.calls) == 1


async def test_an_empty_answer_is_a_failure_that_is_retried() -> None:
    fake = FakeModel("  ")
    with pytest.raises(AllAttemptsFailed, match="empty"):
        await answer(register(fake))
    assert len(fake.calls) == 3


async def test_a_failed_request_leaves_nothing_in_the_cache() -> None:
    fake = FakeModel(failures=[ModelError("no", kind="bad_request")])
    model = register(fake)
    async with ActorSystem() as system:
        ref = start(system, model)
        with pytest.raises(AllAttemptsFailed):
            await ref.ask(ask_for())
        assert not (await ref.ask(ask_for())).cached
        assert (await ref.ask(ask_for())).cached
    assert len(fake.calls) == 2


async def test_a_message_of_another_kind_crashes_the_actor_that_others_do_not_notice() -> None:
    async with ActorSystem() as system:
        ref = start(system, register(FakeModel()))
        with pytest.raises(ActorCrashed, match="takes Generate messages, not str"):
            await ref.ask("Q")
        assert (await ref.ask(ask_for())).content == "fake: Q"


async def test_an_option_that_is_no_value_fails_the_request_and_not_the_actor() -> None:
    model = register(FakeModel())
    async with ActorSystem() as system:
        ref = start(system, model)
        with pytest.raises(BadCall, match=r"options \('tool'\) cannot be sent to a model"):
            await ref.ask(ask_for(options={"tool": print}))
        with pytest.raises(BadCall, match="cannot be sent to a model"):
            await ref.ask(ask_for(options={"tool": print}, use_cache=False))
        assert ref.snapshot().restarts == 0
    assert_all_accounted(model.metrics.snapshot())


async def test_a_request_that_has_travelled_is_answered_as_one_that_has_not() -> None:
    message = ask_for(system="Be brief.", options={"seed": 7}, time_left=5.0)
    travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Generate)
    fake = FakeModel()
    async with ActorSystem() as system:
        ref = start(system, register(fake))
        assert (await ref.ask(travelled)).content == "fake: Q"
        assert (await ref.ask(message)).cached
    assert fake.calls[0].request == message.request


async def test_an_option_that_has_no_cache_key_fails_the_request_and_not_the_actor() -> None:
    model = register(FakeModel())
    options = SamplingOptions(extra={"tool": print})
    async with ActorSystem() as system:
        ref = start(system, model)
        with pytest.raises(BadCall, match="cache key"):
            await ref.ask(ask_for(options=options))
        assert (await ref.ask(ask_for(options=options, use_cache=False))).content == "fake: Q"
        assert ref.snapshot().restarts == 0
    assert_all_accounted(model.metrics.snapshot())


# --- the cache ---------------------------------------------------------------------------------------


async def test_an_equal_request_is_answered_from_the_cache_and_told_as_text() -> None:
    fake = FakeModel(FakeAnswer("to", "ken"), name="s")
    model = register(fake)
    transcript = Transcript()
    async with ActorSystem() as system:
        ref = start(system, model)
        await ref.ask(ask_for())
        response = await ref.ask(ask_for(listener=transcript))
    assert (response.cached, response.attempts, response.content) == (True, 0, "token")
    assert transcript.pieces == ["token"]
    metrics = model.metrics.snapshot()
    assert (metrics.cache_hits, metrics.cache_misses, metrics.successes) == (1, 1, 2)
    assert len(metrics.response_times) == 1


@pytest.mark.parametrize(
    "other", [{"prompt": "other"}, {"system": "other"}, {"options": {"seed": 1}}, {"sample": 1}]
)
async def test_a_request_that_differs_is_asked_again(other: dict[str, Any]) -> None:
    fake = FakeModel()
    async with ActorSystem() as system:
        ref = start(system, register(fake))
        await ref.ask(ask_for())
        assert not (await ref.ask(ask_for(**other))).cached
    assert len(fake.calls) == 2


async def test_a_cache_hit_answers_at_once_while_all_call_slots_are_taken() -> None:
    gated = FakeModel(gated=True)
    model = register(gated, limits=Limits(concurrency=1))
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        gated.gate.set()
        await ref.ask(ask_for("known"))
        gated.gate.clear()
        slow = Asker(nursery, ref, ask_for("slow"))
        waits = Asker(nursery, ref, ask_for("waits"))
        await wait_all_tasks_blocked()
        assert (await ref.ask(ask_for("known"))).cached
        assert slow.outcome is waits.outcome is None
        gated.gate.set()


async def test_without_the_cache_a_request_neither_reads_nor_joins_nor_writes() -> None:
    gated = FakeModel(gated=True)
    gated.gate.set()
    model = register(gated)
    async with ActorSystem() as system:
        ref = start(system, model)
        await ref.ask(ask_for())
        assert not (await ref.ask(ask_for(use_cache=False))).cached  # does not read
        await ref.ask(ask_for("new", use_cache=False))
        assert not (await ref.ask(ask_for("new"))).cached  # did not write
        assert len(gated.calls) == 4
        gated.gate.clear()
        async with trio.open_nursery() as nursery:
            for use_cache in (True, False, False):
                Asker(nursery, ref, ask_for("third", use_cache=use_cache))
            await wait_all_tasks_blocked()
            gated.gate.set()
        assert len(gated.calls) == 7  # does not join
    assert model.metrics.joined == 0


class SlowShard:
    """A shard whose lookups and writes take time, as on a disk."""

    def __init__(self) -> None:
        self.kept: dict[bytes, Completion] = {}
        self.lookups = 0
        self.writes = 0

    async def get(self, key: bytes) -> Completion | None:
        self.lookups += 1
        await trio.sleep(1)
        return self.kept.get(key)

    async def put(self, key: bytes, completion: Completion) -> None:
        await trio.sleep(1)
        self.writes += 1
        self.kept[key] = completion

    def statistics(self) -> Any:
        raise NotImplementedError


async def test_equal_requests_share_one_lookup_and_one_call(autojump_clock: MockClock) -> None:
    fake = FakeModel()
    model = register(fake)
    shard = model.shard = SlowShard()
    async with ActorSystem() as system:
        ref = start(system, model)
        for expected in (False, True):
            async with trio.open_nursery() as nursery:
                askers = [Asker(nursery, ref, ask_for()) for _ in range(3)]
            await trio.sleep(1)  # until the answer is kept
            outcomes = [asker.outcome for asker in askers]
            assert all(isinstance(outcome, ModelResponse) for outcome in outcomes)
            assert [outcome.cached for outcome in outcomes] == [expected] * 3  # type: ignore[union-attr]
    assert (len(fake.calls), shard.lookups, shard.writes) == (1, 2, 1)


async def test_an_answer_that_was_paid_for_is_kept_though_the_asker_left(autojump_clock: MockClock) -> None:
    model = register(FakeModel())
    shard = model.shard = SlowShard()
    async with ActorSystem() as system:
        ref = start(system, model)
        with trio.move_on_after(1.01):  # while the reply waits a little for the answer to be kept
            await ref.ask(ask_for())
        assert shard.writes == 0
        await trio.sleep(1)
        assert shard.writes == 1
        assert (await ref.ask(ask_for())).cached
    assert model.metrics.cancelled == 1


async def test_who_leaves_during_the_lookup_starts_no_call(autojump_clock: MockClock) -> None:
    fake = FakeModel()
    model = register(fake)
    model.shard = SlowShard()
    async with ActorSystem() as system:
        ref = start(system, model)
        with trio.move_on_after(0.5):
            await ref.ask(ask_for())
        await trio.sleep(5)
    assert len(fake.calls) == 0
    assert model.metrics.cancelled == 1


async def test_who_asks_while_the_answer_is_being_written_gets_it_without_waiting_for_that(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel()
    model = register(fake)
    model.shard = SlowShard()
    transcript = Transcript()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model)
        Asker(nursery, ref, ask_for())
        await trio.sleep(1.5)
        begun = trio.current_time()
        response = await ref.ask(ask_for(listener=transcript))
        assert trio.current_time() == begun
        assert response.content == transcript.text == "fake: Q"
    assert len(fake.calls) == 1
