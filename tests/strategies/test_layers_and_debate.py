"""Rounds in which models read each other: mixture of agents, and debate."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.coordinator_runs import Recorder, by_weight, failing, run
from helpers.panel_members import candidates_in, member, task_of
from ultra import BadCall, OrchestrationResult
from ultra.errors import ModelError
from ultra.strategies import Debate, Layers
from ultra.testing import FakeModel

DOWN = ModelError("no more", kind="bad_request")


async def held(
    strategy: Any, *fakes: FakeModel, weights: tuple[float, ...] = (), **fields: Any
) -> OrchestrationResult:
    pairs = zip(fakes, weights or (1.0,) * len(fakes), strict=True)
    return await run(by_weight(pairs), strategy=strategy, **fields)


# --- layers --------------------------------------------------------------------------------------------


async def test_each_layer_reads_the_one_before_and_the_last_is_merged() -> None:
    fakes = [
        member(name, f"first of {name} and so on", improve=f"second of {name} and so on") for name in "ab"
    ]
    sink = Recorder()
    result = await held(Layers(), *fakes, sink=sink)
    assert (str(result.final_synthesis), result.synthesis_source) == ("merged by a", "primary")
    assert [(step.name, step.round) for step in result.steps] == [
        ("initial", 0),
        ("layer", 0),
        ("synthesis", 0),
    ]
    assert [(event.stage, event.round) for event in sink.of("StageStarted")] == [
        ("initial", 0),
        ("layer", 0),
        ("synthesis", 0),
    ]
    improving = next(call.request for call in fakes[0].calls if task_of(call.request) == "improve")
    assert set(candidates_in(improving).values()) == {"first of a and so on", "first of b and so on"}
    merging = next(call.request for call in fakes[0].calls if task_of(call.request) == "merge")
    assert set(candidates_in(merging).values()) == {"second of a and so on", "second of b and so on"}


async def test_rounds_are_numbered_and_counted() -> None:
    fakes = [member(name, f"text of {name} that is long enough to be one") for name in "abc"]
    result = await held(Layers(rounds=3, writer="c"), *fakes)
    assert [(step.name, step.round) for step in result.steps[1:3]] == [("layer", 0), ("layer", 1)]
    assert [len(fake.calls) for fake in fakes] == [3, 3, 4]
    assert str(result.final_synthesis) == "merged by c"


async def test_a_layer_in_which_nobody_answers_is_left_out_and_told() -> None:
    fakes = [member(name, f"text of {name} that is long enough to be one", improve=DOWN) for name in "ab"]
    result = await held(Layers(), *fakes)
    assert (str(result.final_synthesis), result.status) == ("merged by a", "degraded")
    assert "nobody answered in layer 2; the answers before it stand" in result.notices


async def test_where_nobody_can_merge_the_best_answer_stands() -> None:
    fakes = [member(name, f"text of {name} that is long enough to be one", merge=DOWN) for name in "ab"]
    result = await held(Layers(rounds=1), *fakes)
    assert (result.synthesis_source, result.status) == ("best_candidate", "degraded")


async def test_an_answer_on_which_all_agree_stands_unless_it_is_to_be_worked_on() -> None:
    fakes = [member(name, "The answer is 4.") for name in "ab"]
    assert (await held(Layers(), *fakes)).synthesis_source == "unanimous"
    assert str((await held(Layers(keep_unanimous=False), *fakes)).final_synthesis) == "merged by a"


# --- debate --------------------------------------------------------------------------------------------


async def test_models_revise_until_all_agree() -> None:
    fakes = [member("a", "4"), member("b", "5", revise="The answer is 4."), member("c", "4")]
    result = await held(Debate(rounds=5), *fakes)
    assert (str(result.final_synthesis), result.synthesis_source, result.confidence) == (
        "4",
        "unanimous",
        1.0,
    )
    assert [(step.name, step.round) for step in result.steps] == [("initial", 0), ("debate", 0)]
    revising = next(call.request for call in fakes[1].calls if task_of(call.request) == "revise")
    assert sorted(candidates_in(revising).values()) == ["4", "4", "5"]


async def test_after_the_last_round_the_majority_stands() -> None:
    result = await held(Debate(rounds=2), member("a", "4"), member("b", "5"), member("c", "5"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("5", "selected")
    assert result.confidence == pytest.approx(2 / 3)
    assert [(step.name, step.round) for step in result.steps[1:]] == [("debate", 0), ("debate", 1)]


async def test_without_a_majority_or_if_wanted_a_judge_decides() -> None:
    fakes = [member(name, str(number)) for number, name in enumerate("abc")]
    assert str((await held(Debate(rounds=1), *fakes)).final_synthesis) == "merged by a"
    agreeing = [member("a", "4"), member("b", "5"), member("c", "5")]
    result = await held(Debate(rounds=1, end="judge", judge="c"), *agreeing)
    assert str(result.final_synthesis) == "merged by c"


async def test_a_model_that_fails_in_a_round_keeps_its_answer() -> None:
    fakes = [member("a", "4", revise=DOWN), member("b", "5", revise="The answer is 4."), member("c", "7")]
    result = await held(Debate(rounds=1), *fakes)
    assert (str(result.final_synthesis), result.status) == ("4", "degraded")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_single_usable_answer_is_not_debated() -> None:
    for strategy, what in ((Debate(), "a debate"), (Layers(), "further layers")):
        fake = member("a", "4")
        result = await held(strategy, fake, failing("b"))
        assert len(fake.calls) == 1
        assert f"only 'a' gave a usable answer: it stands, without {what}" in result.notices


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Layers, {"rounds": 0}, "rounds is 0; it must be a whole number, 1 or more"),
        (Layers, {"keep_unanimous": 1}, "keep_unanimous is 1; it must be True or False"),
        (Layers, {"writer": 1}, "writer is 1"),
        (Debate, {"rounds": True}, "rounds is True"),
        (Debate, {"end": "fight"}, "end is 'fight'; it must be one of vote, judge"),
        (Debate, {"judge": 1}, "judge is 1"),
    ],
)
def test_a_wrong_option_is_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        kind(**options)
