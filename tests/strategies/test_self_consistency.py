"""Several samples of one model: which is asked, how often, and what becomes of it where it fails."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from helpers.coordinator_runs import by_weight, failing, run
from ultra import BadCall, OrchestrationResult, QuorumNotReached
from ultra.strategies import SelfConsistency
from ultra.testing import FakeModel


async def sampled(
    *fakes: FakeModel, strategy: SelfConsistency | None = None, **fields: Any
) -> OrchestrationResult:
    pairs = zip(fakes, range(len(fakes), 0, -1), strict=True)
    return await run(by_weight(pairs), strategy=strategy or SelfConsistency(), **fields)


async def test_the_model_of_highest_weight_alone_is_asked_and_its_most_frequent_answer_stands() -> None:
    first, second = FakeModel(["7", "8", "7", "8", "7"], name="a"), FakeModel("9", name="b")
    result = await sampled(first, second)
    assert (str(result.final_synthesis), result.synthesis_source) == ("7", "selected")
    assert result.confidence == pytest.approx(3 / 5)
    assert [response.sample for response in result.steps[0].responses] == [0, 1, 2, 3, 4]
    assert (len(first.calls), len(second.calls), result.status) == (5, 0, "success")


async def test_it_stops_when_the_outcome_is_certain() -> None:
    model = FakeModel("7", name="a")
    result = await sampled(model)
    assert (len(model.calls), result.confidence) == (3, 1.0)


async def test_the_most_frequent_answer_wins_without_a_majority_and_of_equals_the_first() -> None:
    result = await sampled(FakeModel(["1", "2", "3", "2", "4"], name="a"))
    assert str(result.final_synthesis) == "2"
    result = await sampled(FakeModel(["1", "2", "3"], name="a"), strategy=SelfConsistency(samples=3))
    assert str(result.final_synthesis) == "1"


async def test_a_named_model_is_sampled_as_often_as_the_run_says() -> None:
    first, second = FakeModel("1", name="a"), FakeModel(["1", "2", "3", "4", "5", "6", "7"], name="b")
    result = await sampled(first, second, strategy=SelfConsistency(model="b", samples=2), samples=7)
    assert (len(first.calls), len(second.calls)) == (0, 7)
    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"


async def test_where_the_model_is_down_the_next_one_stands_in_and_it_is_told() -> None:
    result = await sampled(failing("a"), FakeModel("7", name="b"))
    assert (str(result.final_synthesis), result.status) == ("7", "degraded")
    assert "'a' gave no answer; the next model is asked in its place" in result.notices
    with pytest.raises(QuorumNotReached):
        await sampled(failing("a"), failing("b"))


async def test_a_model_that_hangs_leaves_time_for_the_next_one(autojump_clock: MockClock) -> None:
    hangs = FakeModel("1", name="a", seconds=1000)
    result = await sampled(hangs, FakeModel("7", name="b"), timeout=10)
    assert (str(result.final_synthesis), result.status) == ("7", "degraded")
    assert hangs.running == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples is 0; it must be a whole number, 1 or more"),
        ({"model": 1}, "model is 1; it must be the name of a model"),
        ({"at_once": None}, "at_once is None; it must be True or False"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        SelfConsistency(**options)
