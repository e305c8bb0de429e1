"""The vote: whose answer wins, when it stops asking, and what stands in for a majority."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from helpers.coordinator_runs import Recorder, by_weight, failing, run
from ultra import BadCall, MultiLLMOrchestrator, OrchestrationResult, Price, QuorumNotReached, Usage
from ultra.errors import ModelError
from ultra.strategies import Vote
from ultra.testing import FakeModel


async def vote(
    *fakes: FakeModel, weights: tuple[float, ...] = (), strategy: Vote | None = None, **fields: Any
) -> OrchestrationResult:
    """A vote of these, by default of equal weight."""
    pairs = zip(fakes, weights or (1.0,) * len(fakes), strict=True)
    return await run(by_weight(pairs), strategy=strategy or Vote(), **fields)


def saying(**answers: str) -> list[FakeModel]:
    return [FakeModel(answer, name=name) for name, answer in answers.items()]


# --- a majority --------------------------------------------------------------------------------------


async def test_the_answer_of_the_majority_stands_word_for_word() -> None:
    result = await vote(*saying(a="The answer is 41.", b="I count them.\n\n**42**", c="The answer is 42"))
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.strategy, result.synthesis_source, result.status) == ("vote", "selected", "success")
    assert result.confidence == pytest.approx(2 / 3)
    assert [step.name for step in result.steps] == ["initial"]


async def test_of_those_who_gave_the_same_answer_the_heaviest_is_quoted() -> None:
    result = await vote(*saying(a="The answer is 42.", b="42", c="7"), weights=(1.0, 2.0, 1.0))
    assert result.final_synthesis == result.initial_responses["b"]


async def test_votes_count_by_weight(autojump_clock: MockClock) -> None:
    heavy = FakeModel("1", name="a", seconds=1)
    result = await vote(heavy, *saying(b="2", c="2"), weights=(3.0, 1.0, 1.0))
    assert str(result.final_synthesis) == "1"
    assert result.confidence == pytest.approx(3 / 4)
    assert result.notices == ["the vote was certain without 'c', which had to answer nothing"]


async def test_half_of_the_weight_is_no_majority_though_its_sum_is_rounded_up() -> None:
    # 0.2 + 0.1 is 0.30000000000000004.
    fakes = [
        FakeModel({"Candidate": "3", "": answer}, name=name)
        for name, answer in zip("abc", "211", strict=True)
    ]
    result = await vote(*fakes, weights=(0.3, 0.2, 0.1))
    assert (str(result.final_synthesis), result.synthesis_source) == ("3", "primary")
    assert result.notices == ["the vote has no majority: a model read the whole answers and decided"]


@pytest.mark.parametrize("at_once", [False, True])
async def test_of_equal_sums_the_answer_of_the_heavier_model_stands(at_once: bool) -> None:  # noqa: FBT001 - a parameter
    result = await vote(
        *saying(a="2", b="1", c="1"),
        weights=(0.3, 0.2, 0.1),
        strategy=Vote(rule="plurality", at_once=at_once),
    )
    assert str(result.final_synthesis) == "2"
    assert result.confidence == pytest.approx(1 / 2)


async def test_where_all_weights_are_zero_every_model_has_one_vote() -> None:
    result = await vote(*saying(a="1", b="2", c="2"), weights=(0.0, 0.0, 0.0))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_model_of_weight_zero_has_no_vote_beside_others() -> None:
    result = await vote(*saying(a="1", b="2", c="2"), weights=(1.0, 0.0, 0.0))
    assert (str(result.final_synthesis), result.confidence) == ("1", 1.0)


async def test_those_who_failed_have_no_vote() -> None:
    result = await vote(failing("a"), *saying(b="3", c="2", d="2"))
    assert (str(result.final_synthesis), result.status) == ("2", "degraded")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_text_without_a_final_answer_is_a_vote_for_nothing() -> None:
    rambling = "On the one hand this, on the other hand that.\n" * 3 + "So it depends on a great many things."
    result = await vote(*saying(a=rambling, b="2", c="2"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_single_model_agrees_with_itself() -> None:
    result = await vote(FakeModel("7", name="a"))
    assert (str(result.final_synthesis), result.confidence) == ("7", 1.0)


async def test_the_same_number_in_different_units_is_no_majority() -> None:
    result = await vote(*saying(a="5 km", b="5 m", c="6 km"))
    assert result.synthesis_source == "primary"


async def test_samples_of_one_model_vote_too() -> None:
    result = await vote(FakeModel(["8", "7", "7"], name="a"), samples=3)
    assert str(result.final_synthesis) == "7"
    assert result.confidence == pytest.approx(2 / 3)
    assert [response.sample for response in result.steps[0].responses] == [0, 1, 2]


# --- stopping early ----------------------------------------------------------------------------------


async def test_it_stops_asking_when_the_outcome_cannot_change(autojump_clock: MockClock) -> None:
    slow = [FakeModel("9", name="d", seconds=1000), FakeModel("9", name="e", seconds=1000)]
    sink = Recorder()
    quick = [FakeModel("1", name=name, seconds=1) for name in "abc"]
    result = await vote(*quick, *slow, strategy=Vote(at_once=True), sink=sink)
    assert (str(result.final_synthesis), result.confidence) == ("1", 1.0)
    assert (result.status, result.failures) == ("success", [])
    assert result.response_time == pytest.approx(1)
    assert sink.of("ModelFailed") == []
    assert [event.failed for event in sink.of("StageCompleted")] == [()]
    assert [fake.cancelled for fake in slow] == [1, 1]
    assert [result.metrics[name].failures for name in "de"] == [0, 0]


async def test_as_long_as_the_outcome_can_change_it_waits(autojump_clock: MockClock) -> None:
    slow = FakeModel("2", name="d", seconds=10)
    result = await vote(*saying(a="1", b="1", c="2"), slow)
    assert result.response_time == pytest.approx(10)
    assert slow.cancelled == 0


async def test_it_asks_no_more_than_could_settle_the_outcome_and_then_the_rest() -> None:
    agreeing = saying(a="1", b="1", c="2")
    result = await vote(*agreeing)
    assert [len(fake.calls) for fake in agreeing] == [1, 1, 0]
    assert (str(result.final_synthesis), result.status, result.confidence) == ("1", "success", 1.0)
    assert result.notices == ["the vote was certain without 'c', which had to answer nothing"]
    splitting = saying(a="1", b="2", c="2")
    result = await vote(*splitting)
    assert [len(fake.calls) for fake in splitting] == [1, 1, 1]
    assert (str(result.final_synthesis), result.notices) == ("2", [])


async def test_where_no_majority_can_come_about_any_more_all_answers_are_there_to_be_read() -> None:
    fakes = [deciding(name, str(number)) for number, name in enumerate("abcde")]
    result = await vote(*fakes)
    assert [len(fake.calls) for fake in fakes] == [2, 1, 1, 1, 1]
    assert len(result.steps[0].responses) == 5


async def test_a_model_that_hangs_takes_half_of_the_time_while_others_could_vote(
    autojump_clock: MockClock,
) -> None:
    hangs = FakeModel("2", name="b", seconds=1000)
    result = await vote(*saying(a="1"), hangs, *saying(c="1"), timeout=10)
    assert (str(result.final_synthesis), result.status) == ("1", "degraded")
    assert [failure.model_name for failure in result.failures] == ["b"]
    assert result.response_time == pytest.approx(4)  # and a fifth is kept for who would have to decide
    assert hangs.cancelled == 1


async def test_with_grace_a_straggler_is_cancelled_and_the_next_one_votes(autojump_clock: MockClock) -> None:
    hangs = FakeModel("2", name="b", seconds=1000)
    result = await vote(*saying(a="1"), hangs, *saying(c="1"), grace=3)
    assert (str(result.final_synthesis), result.status) == ("1", "degraded")
    assert result.response_time == pytest.approx(3)
    assert hangs.cancelled == 1


async def test_nobody_is_asked_for_a_vote_once_the_budget_is_used_up() -> None:
    orchestrator = MultiLLMOrchestrator(strategy="vote")
    for name, answer in (("a", "1"), ("b", "2"), ("c", "2")):
        client = FakeModel(answer, name=name, usage=Usage(1_000_000, 0))
        orchestrator.register_model(name, client, price=Price(input=1.0, output=0.0))
    result = await orchestrator.process_responses("Q", max_cost=1.5)
    assert result.cost == pytest.approx(2.0)
    assert result.status == "degraded"
    assert "the budget is used up: not asked for a vote: 'c'" in result.notices


async def test_one_model_decides_nothing_before_another_has_answered(autojump_clock: MockClock) -> None:
    result = await vote(FakeModel("1", name="a"), FakeModel("2", name="b", seconds=3), weights=(5.0, 1.0))
    assert result.response_time == pytest.approx(3)
    assert str(result.final_synthesis) == "1"
    assert result.confidence == pytest.approx(5 / 6)


async def test_it_waits_for_the_quorum_although_the_outcome_is_clear(autojump_clock: MockClock) -> None:
    slow = [FakeModel("9", name="d", seconds=5), FakeModel("9", name="e", seconds=9)]
    result = await vote(*saying(a="1", b="1", c="1"), *slow, quorum=4, strategy=Vote(at_once=True))
    assert result.response_time == pytest.approx(5)
    assert [fake.cancelled for fake in slow] == [0, 1]


# --- weights of one's own, rules ---------------------------------------------------------------------


async def test_weights_of_the_option_stand_in_place_of_those_of_the_models() -> None:
    fakes = saying(a="1", b="2", c="2")
    result = await vote(*fakes, strategy=Vote(weights={"a": 3.0, "b": 1.0, "c": 1.0}), weights=(1, 9, 9))
    assert (str(result.final_synthesis), result.confidence) == ("1", 3 / 4)


async def test_a_model_without_weight_is_not_asked() -> None:
    fakes = saying(a="1", b="1", c="2")
    result = await vote(*fakes, strategy=Vote(weights={"a": 2.0, "b": 1.0, "c": 0.0}))
    assert [len(fake.calls) for fake in fakes] == [1, 1, 0]
    assert str(result.final_synthesis) == "1"


async def test_with_plurality_the_most_votes_win_without_a_majority() -> None:
    result = await vote(*saying(a="1", b="2", c="3", d="2", e="4"), strategy=Vote(rule="plurality"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert result.confidence == pytest.approx(2 / 5)


async def test_a_named_judge_decides_without_a_majority() -> None:
    fakes = [deciding("a", "1"), deciding("b", "2"), deciding("c", "3")]
    result = await vote(*fakes, strategy=Vote(judge="c"))
    assert str(result.final_synthesis) == "c decides"


async def test_without_any_final_answer_a_model_reads_them_and_it_is_told() -> None:
    rambling = "On the one hand this, on the other hand that.\n" * 3 + "So it depends on a great many things."
    fakes = [FakeModel({"Candidate": "It depends.", "": rambling}, name=name) for name in "ab"]
    result = await vote(*fakes)
    assert str(result.final_synthesis) == "It depends."
    assert result.notices == [
        "the vote found no final answer in what the models wrote: a model read the whole answers and decided"
    ]


async def test_one_usable_answer_stands_without_a_vote_and_it_is_told() -> None:
    answering = deciding("b", "2")
    result = await vote(failing("a"), answering, failing("c"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert len(answering.calls) == 1
    assert result.notices == ["only 'b' gave a usable answer: it stands, without a vote"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"a": -1}}, "the weight of 'a' is -1; it must be a number, 0 or more"),
        ({"weights": {"a": 0}}, "weights are all 0"),
        ({"weights": [1]}, "weights is .*must be a mapping"),
        ({"rule": "most"}, "rule is 'most'; it must be one of majority, plurality"),
        ({"judge": 3}, "judge is 3; it must be the name of a model"),
        ({"at_once": "no"}, "at_once is 'no'; it must be True or False"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        Vote(**options)


# --- no majority -------------------------------------------------------------------------------------


def deciding(name: str, answer: str) -> FakeModel:
    """A model that decides by a text of its own when it reads what others wrote."""
    return FakeModel({"Candidate": f"{name} decides", "": answer}, name=name)


def mute(name: str, answer: str) -> FakeModel:
    """A model that answers, and fails when it is to read what others wrote."""
    return FakeModel({"Candidate": ModelError("no more", kind="bad_request"), "": answer}, name=name)


async def test_without_a_majority_the_heaviest_model_reads_all_answers_and_decides() -> None:
    fakes = [deciding("a", "1"), deciding("b", "2"), deciding("c", "3")]
    result = await vote(*fakes, weights=(1.0, 1.5, 1.0))
    assert str(result.final_synthesis) == "b decides"
    assert (result.synthesis_source, result.confidence) == ("primary", 0.0)  # nobody else says so
    assert result.notices == ["the vote has no majority: a model read the whole answers and decided"]
    assert result.status == "success"
    (_, prompt) = fakes[1].prompts
    assert all(f">{answer}</" in prompt for answer in "123")
    assert [step.name for step in result.steps] == ["initial", "synthesis"]


async def test_half_of_the_weight_is_no_majority() -> None:
    result = await vote(*saying(a="1", b="2"))
    assert result.synthesis_source == "primary"


async def test_if_the_heaviest_cannot_decide_the_next_one_does() -> None:
    result = await vote(mute("a", "1"), deciding("b", "2"), weights=(2.0, 2.0))
    assert (str(result.final_synthesis), result.synthesis_source) == ("b decides", "fallback")
    assert result.status == "degraded"
    undecided = await vote(mute("a", "1"), mute("b", "2"), weights=(1.0, 1.0))
    assert undecided.final_synthesis == undecided.initial_responses["a"]
    assert (undecided.synthesis_source, undecided.status) == ("best_candidate", "degraded")
    assert undecided.notices[-1] == "no model could decide; the best candidate stands in its place"


async def test_answers_of_models_without_a_vote_alone_are_decided_by_a_model() -> None:
    result = await vote(failing("a"), *saying(b="2", c="2"), weights=(1.0, 0.0, 0.0))
    assert result.synthesis_source == "primary"


async def test_if_all_fail_the_run_fails() -> None:
    with pytest.raises(QuorumNotReached, match=r"'initial' got 0 of the 1.*a is down.*b is down"):
        await vote(failing("a"), failing("b"))
