"""Stages: what may be asked for, what each reads, and what the prompt of one's own is written from."""

from __future__ import annotations

from typing import Any

import pytest

from ultra.errors import BadCall
from ultra.messages.results import ModelResponse
from ultra.orchestrator.planning import stages_of
from ultra.strategies.stages import BUILT_IN, Stage, StageResponses, order_stages
from ultra.strategies.synthesize import Synthesize


def response(stage: str, model: str) -> ModelResponse:
    return ModelResponse(model_name=model, stage=stage, content=f"{model} in {stage}")


STAGES = {
    "initial": {model: response("initial", model) for model in ("b", "a")},
    "meta": {"a": response("meta", "a")},
}


def test_it_is_the_sequence_of_the_responses_in_the_order_given() -> None:
    responses = StageResponses("Q", "initial", STAGES)

    assert [each.model_name for each in responses] == ["b", "a"]
    assert len(responses) == 2
    assert responses[0].content == "b in initial"
    assert list(responses[:1]) == [STAGES["initial"]["b"]]
    assert STAGES["initial"]["a"] in responses


def test_the_question_and_the_other_stages_are_at_hand() -> None:
    responses = StageResponses("Q", "meta", STAGES)

    assert responses.prompt == "Q"
    assert responses.name == "meta"
    assert [str(each) for each in responses.stage("initial")] == ["b in initial", "a in initial"]
    assert responses.stage("initial").stage("meta")[0].stage == "meta"


def test_a_stage_that_has_not_run_is_refused_with_those_that_have() -> None:
    with pytest.raises(BadCall, match=r"'synthesis'.*initial, meta"):
        StageResponses("Q", "meta", STAGES).stage("synthesis")


def test_what_is_added_to_the_run_later_does_not_show() -> None:
    stages = dict(STAGES)
    responses = StageResponses("Q", "initial", stages)
    stages["late"] = {}

    with pytest.raises(BadCall):
        responses.stage("late")


def test_the_repr_names_the_models_and_none_of_the_text() -> None:
    assert repr(StageResponses("Q", "initial", STAGES)) == "<StageResponses of 'initial': b, a>"


# --- what may be asked for --------------------------------------------------------------------------


def words(responses: StageResponses) -> str:
    return f"{responses.name} of {responses.prompt}"


def own(name: str, **fields: Any) -> Stage:
    return Stage(name=name, prompt=words, **fields)


def ordered(requested: Any, *own: Stage) -> list[tuple[Stage, str | None]]:
    return order_stages(requested, {**BUILT_IN, **{stage.name: stage for stage in own}})


def test_without_a_wish_the_built_in_stages_run() -> None:
    assert [(stage.name, reads, stage.asks, stage.optional) for stage, reads in ordered(None)] == [
        ("initial", None, "all", False),
        ("meta", "initial", "all", True),
        ("synthesis", "initial", "first", False),
    ]


def test_a_stage_reads_the_one_before_it_unless_it_says_otherwise() -> None:
    stages = ordered(["initial", own("draft"), own("check", reads="initial"), own("final")])
    assert [reads for _, reads in stages] == [None, "initial", "initial", "check"]


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ([], "stages is empty; give at least one of: initial, meta, synthesis, mine"),
        ("initial", "give a list of names"),
        (Stage(name="mine", prompt=words), "give a list of names"),
        (7, "give a list of names"),
        ({"initial"}, "give a list of names"),
        (["initial", 7], "unknown stage 7; there are: initial, meta, synthesis, mine"),
        (["Initial"], "unknown stage 'Initial'"),
        (["initial", "initial"], "asked for twice"),
        (["initial", Stage(name="initial", prompt=words)], "asked for twice"),
        ([Stage(name="other")], "'other' has no prompt"),
        (["meta"], "reads stage 'initial', which must come before it"),
        (["synthesis", "initial"], "reads stage 'initial'"),
        (["initial", own("x", reads="meta")], "reads stage 'meta'.*before it come: initial"),
        ([own("x", reads="x")], "reads stage 'x'"),
    ],
)
def test_stages_that_make_no_sense_are_refused_with_the_choices(requested: Any, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        ordered(requested, own("mine"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "stage name ''"),
        ({"name": "two words"}, "letters, digits"),
        ({"name": 7}, "stage name 7"),
        ({"name": "x", "prompt": "text"}, "give a function that writes it"),
        ({"name": "x", "asks": "some"}, "'all' or 'first'"),
        ({"name": "x", "share": -0.1}, "between 0 and 1"),
        ({"name": "x", "share": 1.1}, "between 0 and 1"),
        ({"name": "x", "share": "much"}, "between 0 and 1"),
        ({"name": "x", "share": float("nan")}, "between 0 and 1"),
    ],
)
def test_a_stage_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        Stage(**fields)


def test_methods_make_stages_of_their_names_and_change_built_in_ones() -> None:
    class Base:
        def _create_draft_prompt(self, responses: StageResponses) -> str:
            return words(responses)

    class Owner(Base):
        def _create_synthesis_prompt(self, responses: StageResponses) -> str:
            return words(responses)

        def _create__prompt(self) -> None:
            """Makes nothing: the name is missing."""

    stages = stages_of(Owner())
    assert list(stages) == ["initial", "meta", "synthesis", "draft"]
    assert stages["synthesis"].asks == "first"
    assert stages["draft"].prompt is not None


def test_a_strategy_that_names_stages_is_given_those_that_are_known() -> None:
    mine = own("mine")
    known = {**BUILT_IN, "mine": mine}
    assert Synthesize(stages=("initial", "mine")).resolve(known).stages == (BUILT_IN["initial"], mine)
    assert Synthesize(stages=("initial",)).resolve(known, ["mine"]).stages == (mine,)
    with pytest.raises(BadCall, match="unknown stage 'other'; there are: initial, meta, synthesis, mine"):
        Synthesize(stages=("other",)).resolve(known)
