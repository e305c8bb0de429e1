"""One run: whom it asks, when it goes on, and what it makes of failures."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from helpers.coordinator_runs import ALL, INITIAL, NOW, Recorder, failing, make_run, run, three
from ultra.actors.coordinator.run import Run
from ultra.errors import ModelError, QuorumNotReached
from ultra.messages.events import StageCompleted, StageStarted
from ultra.messages.request import ModelRequest
from ultra.orchestrator.tree import ModelTree
from ultra.strategies import Synthesize
from ultra.testing import FakeModel

# --- order -------------------------------------------------------------------------------------------


async def test_models_are_asked_in_weight_order_and_results_have_it_however_they_arrive(
    autojump_clock: MockClock,
) -> None:
    sink = Recorder()
    result = await run(three(a=FakeModel(name="a", seconds=3), b=FakeModel(name="b", seconds=1)), sink=sink)
    assert [e.model_name for e in sink.of("ModelStarted")] == ["a", "b", "c"] * 2 + ["a"]
    assert [e.model_name for e in sink.of("ModelResponded")][:3] == ["c", "b", "a"]
    assert list(result.initial_responses) == list(result.meta_responses) == ["a", "b", "c"]
    assert result.final_synthesis is not None
    assert (result.final_synthesis.model_name, result.synthesis_source) == ("a", "primary")


async def test_stages_run_one_after_the_other_and_each_tells_when_it_begins_and_ends() -> None:
    sink = Recorder()
    await run(three(), sink=sink)
    told = [
        (type(event).__name__, event.stage)
        for event in sink.events
        if isinstance(event, (StageStarted, StageCompleted))
    ]
    assert told == [
        (name, stage)
        for stage in ("initial", "meta", "synthesis")
        for name in ("StageStarted", "StageCompleted")
    ]
    assert [event.asks for event in sink.of("StageStarted")] == ["all", "all", "first"]
    assert sink.of("StageCompleted")[0] == StageCompleted(
        stage="initial", answered=("a", "b", "c"), failed=(), quality={}
    )


async def test_the_metrics_of_the_result_are_those_of_the_models_that_were_asked() -> None:
    result = await run(three())
    assert {name: metrics.requests for name, metrics in result.metrics.items()} == {"a": 3, "b": 2, "c": 2}


# --- quorum ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quorum", "enough"), [(1, True), (2, True), (3, False), ("all", False)])
async def test_a_stage_goes_on_if_as_many_answer_as_the_quorum(quorum: Any, enough: Any) -> None:
    models = three(a=failing("a"))
    if enough:
        result = await run(models, INITIAL, quorum=quorum)
        assert (result.status, list(result.initial_responses)) == ("degraded", ["b", "c"])
    else:
        with pytest.raises(QuorumNotReached, match=r"got 2 of the 3 answers.*a is down") as caught:
            await run(models, INITIAL, quorum=quorum)
        assert list(caught.value.failures) == ["a"]


async def test_an_optional_stage_may_fail_but_not_where_all_must_answer() -> None:
    error = ModelError("not again", kind="bad_request")
    models = three(**{name: FakeModel({"meta": error, "": "fine"}, name=name) for name in "abc"})
    result = await run(models, quorum=2)
    assert (result.status, result.meta_responses, result.synthesis_source) == ("degraded", {}, "primary")
    assert [failure.stage for failure in result.failures] == ["meta"] * 3
    with pytest.raises(QuorumNotReached, match="'meta' got 0 of the 3"):
        await run(models, quorum="all")


async def test_a_model_whose_key_or_account_is_refused_is_not_asked_again_in_this_run() -> None:
    for kind in ("auth", "quota"):
        refused = failing("a", kind)
        result = await run(three(a=refused))
        assert len(refused.calls) == 1
        assert [failure.kind for failure in result.failures] == [kind]
        assert result.final_synthesis is not None
        assert result.final_synthesis.model_name == "b"
        assert result.synthesis_source == "primary"  # of those that answered it has the highest weight


async def test_a_model_that_failed_otherwise_is_asked_again() -> None:
    unlucky = FakeModel(name="c", failures=[ModelError("busy", kind="overloaded") for _ in range(3)])
    result = await run(three(c=unlucky))
    assert list(result.initial_responses) == ["a", "b"]
    assert list(result.meta_responses) == ["a", "b", "c"]


# --- time --------------------------------------------------------------------------------------------


async def test_a_model_that_hangs_costs_its_stage_no_more_than_the_stages_time(
    autojump_clock: MockClock,
) -> None:
    begun = trio.current_time()
    sink = Recorder()
    result = await run(three(a=FakeModel(name="a", seconds=1000)), timeout=10, sink=sink)
    assert trio.current_time() == pytest.approx(begun + 7)
    assert result.status == "degraded"
    assert [(failure.model_name, failure.stage, failure.error) for failure in result.failures] == [
        ("a", "initial", "DeadlineExceeded"),
        ("a", "meta", "DeadlineExceeded"),
    ]
    assert "the run has 10 s in all" in result.failures[0].message
    assert sink.of("StageCompleted")[0].failed == ("a",)


async def test_all_too_late_is_a_missed_quorum(autojump_clock: MockClock) -> None:
    slow = {name: FakeModel(name=name, seconds=1000) for name in "abc"}
    with pytest.raises(QuorumNotReached, match="did not answer in time"):
        await run(three(**slow), timeout=10)
    assert [fake.cancelled for fake in slow.values()] == [1, 1, 1]


async def test_a_synthesiser_that_hangs_gets_half_of_the_time_while_there_is_another(
    autojump_clock: MockClock,
) -> None:
    async def answer(name: str, request: ModelRequest) -> str:
        if request.prompt == "synthesis":
            asked.append((name, trio.current_time() - begun))
            await trio.sleep_forever()
        return "fine"

    asked: list[tuple[str, float]] = []
    begun = trio.current_time()
    result = await run(three(**{name: FakeModel(partial(answer, name)) for name in "abc"}), timeout=80)
    assert [name for name, _ in asked] == ["a", "b", "c"]
    assert [time for _, time in asked] == pytest.approx([0, 40, 60])
    assert trio.current_time() == pytest.approx(begun + 80)
    assert result.synthesis_source == "best_candidate"


async def test_a_run_that_begins_anew_has_no_more_time_than_before(autojump_clock: MockClock) -> None:
    models = three(a=FakeModel(name="a", seconds=1000))
    async with ModelTree(models, random=Random(1), intensity=NOW) as tree:
        message, local = make_run(tree, models, Synthesize(stages=ALL), timeout=10)
        await trio.sleep(4)
        result = await Run(message, local).execute()
    assert result.response_time == pytest.approx(7)


async def test_cancelling_a_run_cancels_its_calls(autojump_clock: MockClock) -> None:
    slow = {name: FakeModel(name=name, seconds=1000) for name in "abc"}
    models = three(**slow)
    async with ModelTree(models, random=Random(1), intensity=NOW) as tree:
        with trio.move_on_after(1):
            await Run(*make_run(tree, models, Synthesize(stages=ALL))).execute()
        await trio.testing.wait_all_tasks_blocked()
        assert [fake.cancelled for fake in slow.values()] == [1, 1, 1]
