"""The guide, snippet by snippet, and what it promises."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio

from ultra import (
    AllAttemptsFailed,
    BadCall,
    ModelError,
    MultiLLMOrchestrator,
    OrchestrationResult,
    OrchestratorClosed,
    OrchestratorInUse,
    QuorumNotReached,
    RetryPolicy,
    Stage,
    StageFailed,
    StageResponses,
)
from ultra.testing import FakeAnswer, FakeModel

AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)


def three(**settings: Any) -> tuple[MultiLLMOrchestrator, FakeModel, FakeModel, FakeModel]:
    """An orchestrator with the guide's three models, not yet running."""
    settings.setdefault("retry", AT_ONCE)
    orchestrator = MultiLLMOrchestrator(random=Random(1), **settings)
    llama, chatgpt, gemini = FakeModel(name="llama"), FakeModel(name="chatgpt"), FakeModel(name="gemini")
    orchestrator.register_model("llama", llama, weight=1.0)
    orchestrator.register_model("chatgpt", chatgpt, weight=3.0)
    orchestrator.register_model("gemini", gemini, weight=2.0)
    return orchestrator, llama, chatgpt, gemini


# --- basic usage ------------------------------------------------------------------------------------


async def test_the_guides_basic_usage_runs_as_written() -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("llama", FakeModel(name="llama"))
    orchestrator.register_model("chatgpt", FakeModel(name="chatgpt"))
    orchestrator.register_model("gemini", FakeModel(name="gemini"))

    results = await orchestrator.process_responses("Your prompt here")

    assert list(results["initial_responses"]) == ["llama", "chatgpt", "gemini"]
    assert str(results["initial_responses"]["llama"]) == "llama: Your prompt here"
    assert list(results["meta_responses"]) == ["llama", "chatgpt", "gemini"]
    assert str(results["final_synthesis"]).startswith("llama: ")
    assert results["status"] == "success"
    assert results["synthesis_source"] == "primary"


def test_the_guides_import_runs_from_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.delitem(sys.modules, "src", raising=False)

    from src.orchestrator import MultiLLMOrchestrator as Imported  # noqa: PLC0415

    assert Imported is MultiLLMOrchestrator


async def test_a_result_reads_as_a_struct_and_as_a_mapping_and_encodes_to_json() -> None:
    orchestrator, *_ = three()

    results = await orchestrator.process_responses("Q")

    assert results["final_synthesis"] is results.final_synthesis
    assert dict(results)["initial_responses"] == results.initial_responses
    assert dict(results["initial_responses"]["llama"])["model_name"] == "llama"
    assert msgspec.json.decode(msgspec.json.encode(results), type=OrchestrationResult) == results
    with pytest.raises(KeyError, match="final_synthesis"):
        results["final_syntesis"]


async def test_calls_share_caches_and_metrics_without_a_running_tree() -> None:
    orchestrator, llama, *_ = three()

    await orchestrator.process_responses("Q", stages=["initial"])
    second = await orchestrator.process_responses("Q", stages=["initial"])

    assert len(llama.calls) == 1
    assert second["initial_responses"]["llama"].cached
    assert second["metrics"]["llama"].cache_hits == 1
    assert second["metrics"]["llama"].requests == 2


async def test_entered_the_tree_stays_and_models_can_be_added_and_removed_while_it_runs() -> None:
    orchestrator, *_ = three()
    async with orchestrator:
        orchestrator.register_model("late", FakeModel(name="late"), weight=9)
        results = await orchestrator.process_responses("Q")
        assert results["final_synthesis"].model_name == "late"

        await orchestrator.unregister_model("late")
        results = await orchestrator.process_responses("Q")
        assert results["final_synthesis"].model_name == "chatgpt"
        assert orchestrator.tree().find("/coordinator").state.value == "running"


async def test_run_starts_the_tree_in_a_nursery() -> None:
    orchestrator, *_ = three()
    async with trio.open_nursery() as nursery:
        running = await nursery.start(orchestrator.run)
        assert running is orchestrator
        assert (await orchestrator.process_responses("Q"))["status"] == "success"
        nursery.cancel_scope.cancel()


async def test_two_orchestrators_live_side_by_side() -> None:
    first, *_ = three()
    second, *_ = three()
    async with first, second:
        results = [await first.process_responses("Q"), await second.process_responses("Q")]
    assert [result.status for result in results] == ["success", "success"]


async def test_entering_twice_is_refused_and_does_no_harm() -> None:
    orchestrator, *_ = three()
    async with orchestrator:
        with pytest.raises(OrchestratorInUse):
            await orchestrator.__aenter__()
        assert (await orchestrator.process_responses("Q"))["status"] == "success"


async def test_use_after_close_is_refused() -> None:
    orchestrator, *_ = three()
    async with orchestrator:
        pass
    with pytest.raises(OrchestratorClosed):
        await orchestrator.process_responses("Q")
    with pytest.raises(OrchestratorClosed):
        await orchestrator.get_model_response("llama", "Q")
    with pytest.raises(OrchestratorClosed):
        orchestrator.register_model("x", FakeModel())
    with pytest.raises(OrchestratorClosed):
        orchestrator.stream_responses("Q")
    with pytest.raises(OrchestratorClosed):
        await orchestrator.__aenter__()


# --- registration and weights -----------------------------------------------------------------------


def test_models_are_prioritized_by_weight_and_ties_by_registration() -> None:
    orchestrator, *_ = three()
    orchestrator.register_model("twin", FakeModel(), weight=2.0)

    assert orchestrator.get_prioritized_models() == ["chatgpt", "gemini", "twin", "llama"]

    orchestrator.set_model_weight("llama", 4.0)
    assert orchestrator.get_prioritized_models(["gemini", "llama"]) == ["llama", "gemini"]


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, "3", None, True])
def test_a_weight_that_is_not_a_finite_number_is_refused(weight: Any) -> None:
    orchestrator, *_ = three()
    with pytest.raises(ValueError, match="finite number"):
        orchestrator.register_model("x", FakeModel(), weight=weight)
    with pytest.raises(ValueError, match="finite number"):
        orchestrator.set_model_weight("llama", weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda o: o.register_model("llama", FakeModel()), "already registered"),
        (lambda o: o.register_model("", FakeModel()), "must be text"),
        (lambda o: o.register_model("x", object()), "generate"),
        (lambda o: o.set_model_weight("nobody", 1), "registered: llama, chatgpt, gemini"),
        (lambda o: o.get_prioritized_models(["nobody"]), "llama, chatgpt, gemini"),
        (lambda o: o.get_prioritized_models([]), "empty"),
        (lambda o: o.get_prioritized_models("llama"), "list of names"),
        (lambda _: MultiLLMOrchestrator(max_retries=-1), "max_retries"),
        (lambda _: MultiLLMOrchestrator(timeout=0), "timeout"),
        (lambda _: MultiLLMOrchestrator(cache_enabled=False, cache="memory"), "cache"),
    ],
)
def test_bad_registrations_and_settings_say_what_is_allowed(
    call: Callable[[MultiLLMOrchestrator], object], message: str
) -> None:
    orchestrator, *_ = three()
    with pytest.raises(ValueError, match=message):
        call(orchestrator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "  \n"}, "empty"),
        ({"prompt": b"bytes"}, "must be text"),
        ({"stages": []}, "at least one of: initial, meta, synthesis"),
        ({"stages": ["nope"]}, "there are: initial, meta, synthesis"),
        ({"stages": "initial"}, "list of names"),
        ({"stages": ["initial", "initial"]}, "asked for twice"),
        ({"stages": ["meta"]}, "'meta' reads stage"),
        ({"stages": ["synthesis", "initial"]}, "reads stage 'initial'"),
        ({"models": []}, "at least one of: llama, chatgpt, gemini"),
        ({"models": ["nobody"]}, "registered: llama, chatgpt, gemini"),
        ({"models": ["llama", "llama"]}, "named twice"),
        ({"quorum": 0}, "quorum is 0"),
        ({"quorum": 4}, "quorum is 4"),
        ({"timeout": -1}, "timeout"),
    ],
)
async def test_a_bad_call_fails_before_any_model_is_called(arguments: dict[str, Any], message: str) -> None:
    orchestrator, llama, chatgpt, gemini = three()
    given: dict[str, Any] = {"prompt": "Q", **arguments}
    with pytest.raises(ValueError, match=message):
        await orchestrator.process_responses(**given)
    with pytest.raises(ValueError, match=message):
        orchestrator.stream_responses(**given)
    assert len(llama.calls) + len(chatgpt.calls) + len(gemini.calls) == 0


async def test_an_orchestrator_without_models_says_so() -> None:
    with pytest.raises(BadCall, match="register_model"):
        await MultiLLMOrchestrator().process_responses("Q")


# --- stages ----------------------------------------------------------------------------------------


async def test_only_the_stages_asked_for_run() -> None:
    orchestrator, _, chatgpt, _ = three()

    results = await orchestrator.process_responses(prompt="Q", stages=["initial", "synthesis"])

    assert results["meta_responses"] == {}
    assert len(chatgpt.calls) == 2
    assert results["final_synthesis"].model_name == "chatgpt"

    results = await orchestrator.process_responses(prompt="Q", stages=["initial"])
    assert results["final_synthesis"] is None
    assert results["synthesis_source"] is None


async def test_only_the_models_asked_for_are_called() -> None:
    orchestrator, _, _, gemini = three()

    results = await orchestrator.process_responses(prompt="Q", models=["llama", "chatgpt"])

    assert list(results["initial_responses"]) == ["chatgpt", "llama"]
    assert len(gemini.calls) == 0


async def test_the_synthesis_falls_back_in_weight_order_and_the_result_says_so() -> None:
    orchestrator, _, chatgpt, gemini = three()
    await orchestrator.process_responses("Q", stages=["initial"])  # the answers are in the cache now
    chatgpt.fail(RuntimeError("down"), times=3)

    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    assert results["final_synthesis"].model_name == "gemini"
    assert results["synthesis_source"] == "fallback"
    assert results["status"] == "degraded"
    assert [failure.model_name for failure in results["failures"]] == ["chatgpt"]
    assert len(gemini.calls) == 2


async def test_without_any_synthesiser_the_best_candidate_stands_in() -> None:
    orchestrator, *fakes = three()
    await orchestrator.process_responses("Q", stages=["initial"])
    for fake in fakes:
        fake.fail(RuntimeError("down"), times=3)

    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    assert results["synthesis_source"] == "best_candidate"
    assert results["status"] == "degraded"
    assert results["final_synthesis"].content in {f"{fake.name}: Q" for fake in fakes}


async def test_a_method_makes_a_stage_of_its_name() -> None:
    class Custom(MultiLLMOrchestrator):
        def _create_custom_prompt(self, responses: StageResponses) -> str:
            return f"{responses.prompt}|{len(responses)}|{responses.stage('initial')[0].content}"

    orchestrator = Custom()
    fake = FakeModel(name="one")
    orchestrator.register_model("one", fake)

    results = await orchestrator.process_responses("Q", stages=["initial", "custom"])

    assert results["custom_responses"]["one"].content == "one: Q|1|one: Q"


async def test_a_method_changes_the_words_of_a_built_in_stage() -> None:
    class Custom(MultiLLMOrchestrator):
        def _create_synthesis_prompt(self, responses: StageResponses) -> str:
            return "merge " + " and ".join(response.content for response in responses)

    orchestrator = Custom()
    orchestrator.register_model("a", FakeModel(name="a"), weight=2)
    orchestrator.register_model("b", FakeModel(name="b"))

    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    assert results["final_synthesis"].content == "a: merge a: Q and b: Q"


async def test_a_stage_object_can_ask_the_first_that_answers() -> None:
    orchestrator, *_ = three()
    critique = Stage(name="critique", reads="initial", asks="first", prompt=lambda r: f"criticise {len(r)}")

    results = await orchestrator.process_responses("Q", stages=["initial", critique])

    assert list(results["critique_responses"]) == ["chatgpt"]
    assert results["critique_responses"]["chatgpt"].content == "chatgpt: criticise 3"


async def test_an_exception_in_a_prompt_method_reaches_the_caller_and_harms_nobody() -> None:
    class Custom(MultiLLMOrchestrator):
        def _create_custom_prompt(self, responses: StageResponses) -> str:
            raise ZeroDivisionError("mine")

    async with Custom() as orchestrator:
        orchestrator.register_model("one", FakeModel())
        with pytest.raises(StageFailed, match="mine"):
            await orchestrator.process_responses("Q", stages=["initial", "custom"])
        assert (await orchestrator.process_responses("Q"))["status"] == "success"
        assert orchestrator.tree().find("/coordinator").restarts == 0


async def test_process_responses_can_be_overridden_as_in_the_guide() -> None:
    class CustomOrchestrator(MultiLLMOrchestrator):
        async def process_responses(  # type: ignore[override]
            self, prompt: str, stages: Sequence[str] | None = None, models: Sequence[str] | None = None
        ) -> OrchestrationResult:
            return await super().process_responses(prompt.upper(), stages or ["initial"], models)

    orchestrator = CustomOrchestrator()
    orchestrator.register_model("one", FakeModel(name="one"))

    results = await orchestrator.process_responses("q")

    assert results["initial_responses"]["one"].content == "one: Q"


# --- failures ---------------------------------------------------------------------------------------


async def test_a_model_that_fails_is_tried_again_up_to_max_retries(caplog: pytest.LogCaptureFixture) -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=5, retry=AT_ONCE)
    fake = FakeModel(failures=[RuntimeError("busy")] * 6)
    orchestrator.register_model("one", fake)

    with caplog.at_level(logging.ERROR), pytest.raises(AllAttemptsFailed) as caught:
        await orchestrator.get_model_response("one", "Q")

    assert len(fake.calls) == 6
    assert "All attempts failed for model 'one' (6 attempts)" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    levels = [record.levelname for record in caplog.records]
    assert levels.count("ERROR") == 6
    assert levels.count("CRITICAL") == 1


async def test_a_permanent_error_is_not_tried_again() -> None:
    orchestrator, llama, *_ = three()
    llama.fail(ModelError("bad key", provider="x", kind="auth", status=401))

    with pytest.raises(AllAttemptsFailed, match=r"1 attempt\)"):
        await orchestrator.get_model_response("llama", "Q")


async def test_the_others_go_on_when_one_model_fails_and_the_failure_is_reported() -> None:
    orchestrator, llama, *_ = three()
    llama.fail(RuntimeError("down"), times=100)

    results = await orchestrator.process_responses("Q")

    assert results["status"] == "degraded"
    assert list(results["initial_responses"]) == ["chatgpt", "gemini"]
    failure = results["failures"][0]
    assert (failure.model_name, failure.stage, failure.attempts) == ("llama", "initial", 3)
    assert "All attempts failed for model 'llama'" in failure.message
    assert results["metrics"]["llama"].failures == 2
    assert results["metrics"]["llama"].success_rate == 0


async def test_below_the_quorum_the_run_fails_and_names_every_model() -> None:
    orchestrator, *fakes = three(quorum=2)
    for fake in fakes[:2]:
        fake.fail(RuntimeError(f"{fake.name} is down"), times=100)

    with pytest.raises(QuorumNotReached) as caught:
        await orchestrator.process_responses("Q")

    assert "All attempts failed for model 'llama'" in str(caught.value)
    assert "All attempts failed for model 'chatgpt'" in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


async def test_quorum_all_is_the_strict_reading() -> None:
    orchestrator, llama, *_ = three(quorum="all")
    llama.fail(RuntimeError("down"), times=3)
    with pytest.raises(QuorumNotReached):
        await orchestrator.process_responses("Q")


async def test_a_model_that_is_too_late_is_left_behind(autojump_clock: trio.testing.MockClock) -> None:
    orchestrator, *_ = three()
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator.register_model("slow", slow, weight=10)

    results = await orchestrator.process_responses("Q", timeout=10)

    assert results["status"] == "degraded"
    assert results["response_time"] <= 10
    assert list(results["initial_responses"]) == ["chatgpt", "gemini", "llama"]
    assert results["final_synthesis"].model_name == "chatgpt"
    assert slow.cancelled >= 1


async def test_cancelling_a_call_cancels_the_models() -> None:
    orchestrator = MultiLLMOrchestrator()
    gated = FakeModel(name="gated", gated=True)
    orchestrator.register_model("gated", gated)
    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.process_responses, "Q")
        await gated.asked.wait()
        nursery.cancel_scope.cancel()
    assert gated.cancelled == 1


# --- caching ----------------------------------------------------------------------------------------


async def test_the_cache_can_be_disabled_and_bypassed() -> None:
    fake = FakeModel()
    off = MultiLLMOrchestrator(cache_enabled=False)
    off.register_model("one", fake)
    await off.get_model_response("one", "Q")
    await off.get_model_response("one", "Q")
    assert len(fake.calls) == 2

    on = MultiLLMOrchestrator()
    on.register_model("one", fake)
    await on.get_model_response(model=fake, prompt="Q", stage="initial", use_cache=True)
    response = await on.get_model_response(model=fake, prompt="Q", stage="initial", use_cache=True)
    assert response.cached
    assert len(fake.calls) == 3
    response = await on.get_model_response(model=fake, prompt="Q", stage="initial", use_cache=False)
    assert not response.cached
    assert len(fake.calls) == 4


async def test_a_client_that_was_never_registered_can_be_asked_as_in_the_guide() -> None:
    orchestrator = MultiLLMOrchestrator(cache_enabled=False)
    fake = FakeModel(name="stranger")

    response = await orchestrator.get_model_response(
        model=fake, prompt="Your prompt", stage="initial", use_cache=True
    )

    assert response.content == "stranger: Your prompt"
    assert orchestrator.get_prioritized_models() == []


async def test_equal_requests_at_once_share_one_call() -> None:
    orchestrator = MultiLLMOrchestrator()
    gated = FakeModel("same", gated=True)
    orchestrator.register_model("gated", gated)
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await orchestrator.get_model_response("gated", "Q")).content)

    async with orchestrator:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            gated.gate.set()
        assert orchestrator.get_metrics()["gated"].joined == 9
    assert answers == ["same"] * 10
    assert len(gated.calls) == 1


# --- metrics ----------------------------------------------------------------------------------------


async def test_metrics_have_times_rates_tokens_and_quality_for_each_model() -> None:
    orchestrator, *_ = three()

    results = await orchestrator.process_responses("What is the capital of France?")

    for name in ("llama", "chatgpt", "gemini"):
        metrics = results["metrics"][name]
        assert metrics["success_rate"] == 1.0
        assert len(metrics["response_times"]) >= 2
        assert metrics["input_tokens"] > 0
        assert metrics["output_tokens"] > 0
        assert metrics["tokens_estimated"]
        assert 0 <= metrics["average_quality"] <= 1


# --- streaming --------------------------------------------------------------------------------------


async def test_a_stream_tells_all_and_ends_once_and_agrees_with_the_plain_result() -> None:
    orchestrator, *_ = three()
    orchestrator.register_model("stream", FakeModel(FakeAnswer("to", "ken", "s"), name="stream"), weight=5)
    async with orchestrator:
        async with orchestrator.stream_responses("Q", stages=["initial", "synthesis"]) as run:
            events = [event async for event in run]
            streamed = await run.result()
        plain = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    kinds = [type(event).__name__ for event in events]
    assert kinds[0] == "StageStarted"
    assert kinds[-1] == "RunCompleted"
    assert sum(kind in {"RunCompleted", "RunFailed"} for kind in kinds) == 1
    assert [event.seq for event in events] == list(range(len(events)))
    assert str(streamed.final_synthesis) == str(plain.final_synthesis)
    assert {n: str(r) for n, r in streamed.initial_responses.items()} == {
        n: str(r) for n, r in plain.initial_responses.items()
    }


async def test_leaving_a_stream_early_cancels_the_calls() -> None:
    orchestrator = MultiLLMOrchestrator()
    gated = FakeModel(name="gated", gated=True)
    orchestrator.register_model("gated", gated)
    async with orchestrator:
        async with orchestrator.stream_responses("Q"):
            await gated.asked.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert gated.cancelled == 1


async def test_a_failed_run_ends_its_stream_with_run_failed_and_result_raises() -> None:
    orchestrator, *fakes = three()
    for fake in fakes:
        fake.fail(RuntimeError("down"), times=3)
    async with orchestrator, orchestrator.stream_responses("Q") as run:
        events = [event async for event in run]
        with pytest.raises(QuorumNotReached):
            await run.result()
    assert type(events[-1]).__name__ == "RunFailed"
