"""Several deployments of one model, hedged calls, costs and learned limits, as the orchestrator has them."""

from __future__ import annotations

import gc
import logging
import weakref

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.garbage import collect_garbage
from ultra import (
    AllAttemptsFailed,
    BadCall,
    Limits,
    ModelError,
    MultiLLMOrchestrator,
    QuorumNotReached,
    RetryPolicy,
    Timeouts,
    Usage,
)
from ultra.actors.model.hedging import Hedge
from ultra.clients.pricing import Price
from ultra.clients.wire.rate_limits import RateLimits
from ultra.messages.events import Chunk
from ultra.messages.results import Completion
from ultra.testing import FakeAnswer, FakeModel

ONCE = RetryPolicy(max_retries=0)


async def test_the_next_deployment_answers_when_one_fails() -> None:
    first, second = FakeModel(name="first", failures=[ConnectionError("gone")]), FakeModel(name="second")
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", [first, second])

    response = await orchestrator.get_model_response("one", "Q")

    assert response.content == "second: Q"
    assert response.attempts == 1
    assert orchestrator.get_metrics()["one"].success_rate == 1


async def test_the_callers_own_mistake_is_not_tried_on_other_deployments() -> None:
    second = FakeModel(name="second")
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", [FakeModel(failures=[ModelError("no", kind="bad_request")]), second])

    with pytest.raises(AllAttemptsFailed):
        await orchestrator.get_model_response("one", "Q")
    assert len(second.calls) == 0


async def test_when_all_fail_an_error_that_is_worth_a_retry_decides() -> None:
    first = FakeModel(name="first", failures=[ModelError("busy", kind="overloaded")])
    second = FakeModel(name="second", failures=[ModelError("bad key", kind="auth")])
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=1, initial=0))
    orchestrator.register_model("one", [first, second])

    assert (await orchestrator.get_model_response("one", "Q")).content == "first: Q"


async def test_a_deployment_that_lacks_the_model_is_followed_by_the_next() -> None:
    missing = ModelError("no such model", kind="bad_request", status=404)
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", [FakeModel(failures=[missing]), FakeModel(name="second")])

    assert (await orchestrator.get_model_response("one", "Q")).content == "second: Q"


async def test_a_deployment_that_asks_for_a_pause_is_left_out_until_it_is_over(
    autojump_clock: MockClock,
) -> None:
    first = FakeModel(name="first", failures=[ModelError("slow down", kind="rate_limit", retry_after=30)])
    second = FakeModel(name="second", failures=[ModelError("oops")])
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(initial=0), cache_enabled=False)
    orchestrator.register_model("one", [first, second])
    async with orchestrator:
        begun = trio.current_time()
        assert (await orchestrator.get_model_response("one", "Q")).content == "second: Q"
        assert (await orchestrator.get_model_response("one", "Q")).content == "second: Q"
        assert trio.current_time() == begun
        assert len(first.calls) == 1
        await trio.sleep(30)
        assert (await orchestrator.get_model_response("one", "Q")).content == "first: Q"


async def test_a_model_whose_deployments_all_ask_for_a_pause_waits_for_the_shortest(
    autojump_clock: MockClock,
) -> None:
    def busy(seconds: float) -> ModelError:
        return ModelError("slow down", kind="rate_limit", retry_after=seconds)

    orchestrator = MultiLLMOrchestrator(max_retries=1)
    orchestrator.register_model(
        "one", [FakeModel(name="first", failures=[busy(30)]), FakeModel(name="second", failures=[busy(5)])]
    )
    begun = trio.current_time()
    assert (await orchestrator.get_model_response("one", "Q")).content == "second: Q"
    assert trio.current_time() - begun == pytest.approx(5)


async def test_text_of_a_deployment_that_breaks_is_restarted_by_the_next() -> None:
    broken = FakeModel(FakeAnswer("a", "b", "c"), name="broken").fail(after_pieces=1)
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", [broken, FakeModel(FakeAnswer("x", "y"), name="whole")])

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        text = ""
        async for event in run:
            if isinstance(event, Chunk):
                text = event.text if event.restart else text + event.text
        assert text == "xy"
        assert str((await run.result()).initial_responses["one"]) == "xy"


@pytest.mark.parametrize("streams", [True, False])
async def test_the_next_deployment_has_the_time_until_the_first_piece_too(
    *, streams: bool, autojump_clock: MockClock
) -> None:
    broken = FakeModel(FakeAnswer("a", "b"), name="broken").fail(after_pieces=1)
    other = (
        FakeModel("x", name="other", seconds=20)
        if streams
        else FakeModel(name="other", seconds=50, streams=False)
    )
    orchestrator = MultiLLMOrchestrator(retry=ONCE, timeouts=Timeouts(first_token=30, idle=10))
    orchestrator.register_model("one", [broken, other])

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        assert (await run.result()).status == "success"


async def test_an_attempt_takes_no_longer_for_having_several_deployments(autojump_clock: MockClock) -> None:
    broken = FakeModel(FakeAnswer("a", "b"), name="broken", seconds=20, piece_seconds=20).fail(after_pieces=1)
    orchestrator = MultiLLMOrchestrator(retry=ONCE, timeouts=Timeouts(attempt=50, first_token=30))
    orchestrator.register_model("one", [broken, FakeModel("x", name="slow", seconds=20)])
    begun = trio.current_time()

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        with pytest.raises(QuorumNotReached, match="the whole answer did not come within 50 s"):
            await run.result()
    assert trio.current_time() == pytest.approx(begun + 50)


def busy(seconds: float) -> ModelError:
    return ModelError("slow down", kind="rate_limit", retry_after=seconds)


def told(fake: FakeModel) -> int:
    return len(fake.calls)


async def test_a_pause_that_a_hedge_is_asked_for_is_that_of_its_own_deployment(
    autojump_clock: MockClock,
) -> None:
    slow = FakeModel(name="slow", seconds=10)
    spare = FakeModel(name="spare", failures=[busy(60)])
    orchestrator = MultiLLMOrchestrator(retry=ONCE, cache_enabled=False)
    orchestrator.register_model("one", [slow, spare], hedge=Hedge(2))
    async with orchestrator:
        assert (await orchestrator.get_model_response("one", "Q")).content == "slow: Q"
        assert (await orchestrator.get_model_response("one", "Q")).content == "slow: Q"
        assert (told(slow), told(spare)) == (3, 1)  # the second request is hedged on the first deployment
        await trio.sleep(60)
        await orchestrator.get_model_response("one", "Q")
        assert told(spare) == 2


async def test_a_deployment_that_asks_for_a_pause_is_left_out_though_its_hedge_answers(
    autojump_clock: MockClock,
) -> None:
    first = FakeModel(name="first", seconds=3, failures=[busy(60)])
    spare = FakeModel(name="spare", seconds=4)
    orchestrator = MultiLLMOrchestrator(retry=ONCE, cache_enabled=False)
    orchestrator.register_model("one", [first, spare], hedge=Hedge(2))
    async with orchestrator:
        assert (await orchestrator.get_model_response("one", "Q")).content == "spare: Q"
        assert (await orchestrator.get_model_response("one", "Q")).content == "spare: Q"
        assert told(first) == 1


async def test_a_deployment_that_failed_as_a_hedge_is_not_asked_again_for_the_same_answer(
    autojump_clock: MockClock,
) -> None:
    first = FakeModel(name="first", seconds=3, failures=[ModelError("gone", kind="server", retryable=True)])
    second = FakeModel(name="second", seconds=3, failures=[busy(60)])
    third = FakeModel(name="third")
    orchestrator = MultiLLMOrchestrator(retry=ONCE, cache_enabled=False)
    orchestrator.register_model("one", [first, second, third], hedge=Hedge(2))
    async with orchestrator:
        assert (await orchestrator.get_model_response("one", "Q")).content == "third: Q"
        assert (told(first), told(second)) == (1, 1)
        assert (await orchestrator.get_model_response("one", "Q")).content == "third: Q"
        assert told(second) == 1  # it has a pause of its own


def test_an_empty_list_of_clients_is_refused() -> None:
    with pytest.raises(BadCall, match="empty"):
        MultiLLMOrchestrator().register_model("one", [])


async def test_a_slow_call_is_hedged_and_counted(autojump_clock: MockClock) -> None:
    slow, spare = FakeModel(name="slow", seconds=100), FakeModel(name="spare", seconds=1)
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", [slow, spare], hedge=Hedge(2))

    response = await orchestrator.get_model_response("one", "Q")

    assert response.content == "spare: Q"
    assert response.response_time == pytest.approx(3)
    assert slow.cancelled == 1
    metrics = orchestrator.get_metrics()["one"]
    assert (metrics.hedges, metrics.hedges_won) == (1, 1)


@pytest.mark.parametrize("limits", [Limits(concurrency=1), Limits(requests_per_minute=1)])
async def test_a_hedge_that_the_limits_do_not_allow_is_not_made(
    autojump_clock: MockClock, limits: Limits
) -> None:
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    spare = FakeModel(name="spare")
    orchestrator.register_model(
        "one", [FakeModel(name="slow", seconds=9), spare], hedge=Hedge(2), limits=limits
    )

    assert (await orchestrator.get_model_response("one", "Q")).content == "slow: Q"
    assert (len(spare.calls), orchestrator.get_metrics()["one"].hedges) == (0, 0)


USED = Usage(input=1000, output=500)


async def test_answers_runs_and_models_have_a_cost_where_there_is_a_price() -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("paid", FakeModel(usage=USED), price=Price(input=1.0, output=2.0), weight=2)
    orchestrator.register_model("free", FakeModel(usage=USED))

    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    assert results["initial_responses"]["paid"].cost == pytest.approx(0.002)
    assert results["initial_responses"]["free"].cost is None
    assert results["cost"] == pytest.approx(0.004)
    assert results["metrics"]["paid"].cost == pytest.approx(0.004)
    again = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])
    assert again["cost"] == 0


def empty() -> FakeModel:
    """A model that has used all its tokens to think, and says nothing."""
    return FakeModel(FakeAnswer(usage=USED, finish_reason="length"))


async def test_what_empty_answers_cost_is_counted_though_they_are_refused() -> None:
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model(
        "one", [empty(), FakeModel(name="spare", usage=USED)], price=Price(input=1.0, output=2.0)
    )

    response = await orchestrator.get_model_response("one", "Q")

    metrics = orchestrator.get_metrics()["one"]
    assert (metrics.input_tokens, metrics.output_tokens) == (2000, 1000)
    assert metrics.cost == pytest.approx(0.004)
    assert response.cost == pytest.approx(0.004)
    assert (response.usage, response.lost_usage) == (USED, USED)


async def test_an_empty_answer_takes_its_tokens_out_of_the_limit(autojump_clock: MockClock) -> None:
    orchestrator = MultiLLMOrchestrator(retry=ONCE, limits=Limits(tokens_per_minute=1500))
    orchestrator.register_model("one", empty())

    async with orchestrator:
        for _ in range(2):
            with pytest.raises(AllAttemptsFailed):
                await orchestrator.get_model_response("one", "Q")

    assert trio.current_time() > 0


async def test_what_a_losing_hedge_cost_is_counted_where_it_is_known(autojump_clock: MockClock) -> None:
    gate = trio.Event()

    async def answer(prompt: str) -> Completion:
        await gate.wait()
        return Completion(content="yes", usage=USED)

    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model("one", answer, price=Price(input=1.0, output=2.0), hedge=Hedge(2))

    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.get_model_response, "one", "Q")
        await trio.sleep(3)
        gate.set()  # both calls wait for it, and end before either can cancel the other

    assert orchestrator.get_metrics()["one"].hedges == 1
    assert orchestrator.get_metrics()["one"].cost == pytest.approx(0.004)


async def test_the_judges_grades_are_a_part_of_what_a_run_costs() -> None:
    orchestrator = MultiLLMOrchestrator(judge="judge")
    orchestrator.register_model("free", FakeModel(usage=USED))
    orchestrator.register_model("judge", FakeModel(usage=USED), price=Price(input=1.0, output=2.0))

    results = await orchestrator.process_responses("Q", stages=["initial"], models=["free"])

    assert results["cost"] == pytest.approx(0.002)


async def test_a_run_that_has_cost_too_much_leaves_its_further_stages_out_and_says_so() -> None:
    orchestrator = MultiLLMOrchestrator(max_cost=0.002)
    fake = FakeModel(usage=USED)
    orchestrator.register_model("paid", fake, price=Price(input=1.0, output=2.0))

    results = await orchestrator.process_responses("Q")

    assert len(fake.calls) == 1
    assert results["status"] == "degraded"
    assert results["meta_responses"] == {}
    assert results["synthesis_source"] == "best_candidate"
    assert ["left out" in notice for notice in results["notices"]] == [True, True, False]
    assert results["notices"][-1] == "the best candidate stands in its place"


async def test_errors_of_deployments_leave_no_reference_cycle(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ModelError):
        def __init__(self) -> None:
            super().__init__("busy")
            errors.add(self)

    async def fail(_: str) -> str:
        raise Broken

    caplog.set_level(logging.CRITICAL + 1, "ultra")  # records keep tracebacks
    errors: weakref.WeakSet[Broken] = weakref.WeakSet()
    orchestrator = MultiLLMOrchestrator(retry=ONCE, cache_enabled=False)
    orchestrator.register_model("one", [fail, fail])
    async with orchestrator:
        collect_garbage()
        gc.disable()
        try:
            with pytest.raises(AllAttemptsFailed):
                await orchestrator.get_model_response("one", "Q")
            await wait_all_tasks_blocked()
            assert len(errors) == 0
        finally:
            gc.enable()


async def test_limits_are_learned_from_what_the_provider_says() -> None:
    class Strict(FakeModel):
        rate_limits = RateLimits(requests_per_minute=600, requests_remaining=0)

    orchestrator = MultiLLMOrchestrator(cache_enabled=False)
    orchestrator.register_model("one", Strict(name="one"), limits=Limits(learn=True))
    async with orchestrator:
        await orchestrator.get_model_response("one", "Q")
        with trio.move_on_after(0.01) as scope:
            await orchestrator.get_model_response("one", "Q")
    assert scope.cancelled_caught
