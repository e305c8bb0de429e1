from __future__ import annotations

import pytest

from ultra.errors import BadCall
from ultra.messages.results import ModelResponse
from ultra.strategies.stage_responses import StageResponses


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
