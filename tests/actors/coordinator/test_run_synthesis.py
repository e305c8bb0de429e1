"""One run: who writes the synthesis, and what stands in for it; what is asked."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.coordinator_runs import INITIAL, SYNTHESIS, Recorder, asks, failing, run, three
from ultra.actors.coordinator.reading import Reader
from ultra.actors.coordinator.written import Written
from ultra.errors import ModelError, QuorumNotReached, StageFailed
from ultra.messages.events import PromptFitted
from ultra.messages.request import ModelRequest
from ultra.strategies import Model, Stage
from ultra.strategies.stages import BUILT_IN
from ultra.testing import FakeModel

# --- the synthesis -----------------------------------------------------------------------------------


def refusing(stage: str, *names: str) -> dict[str, FakeModel]:
    """Models that answer every stage but this one."""
    error = ModelError("cannot", kind="bad_request")
    return {name: FakeModel({stage: error, "": f"{name}'s answer"}, name=name) for name in names}


async def test_the_synthesis_falls_back_in_weight_order() -> None:
    sink = Recorder()
    result = await run(three(**refusing("synthesis", *"ab")), sink=sink)
    assert result.final_synthesis is not None
    assert (result.final_synthesis.model_name, result.synthesis_source) == ("c", "fallback")
    assert result.status == "degraded"
    assert sink.of("StageCompleted")[-1].failed == ("a", "b")


async def test_if_none_can_write_it_the_best_candidate_stands_in() -> None:
    def score(_question: str, _answers: Any) -> dict[str, float]:
        return {"a": 0.2, "b": 0.9, "c": 0.5}

    models = three(**refusing("synthesis", *"abc"))
    result = await run(models, INITIAL, SYNTHESIS, scorer=score)
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.synthesis_source, result.status) == ("best_candidate", "degraded")
    assert "best candidate" in result.notices[0]
    assert [model.metrics.snapshot().average_quality for model in models] == [0.2, 0.9, 0.5]


async def test_without_scores_the_best_candidate_is_that_of_the_highest_weight() -> None:
    result = await run(three(**refusing("synthesis", *"abc")), INITIAL, SYNTHESIS)
    assert result.final_synthesis == result.initial_responses["a"]


async def test_only_who_answered_what_it_reads_writes_the_synthesis() -> None:
    late = FakeModel(name="a", failures=[ModelError("busy", kind="bad_request")])
    result = await run(three(a=late), INITIAL, SYNTHESIS)
    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert len(late.calls) == 1


async def test_a_synthesis_of_a_stage_that_nobody_answered_takes_another_stages_best() -> None:
    draft = Stage(name="draft", prompt=asks("draft"), optional=True, reads="initial")
    synthesis = Stage(name="synthesis", prompt=asks("x"), asks="first", reads="draft")

    result = await run(three(**refusing("draft", *"abc")), INITIAL, draft, synthesis)
    assert result.final_synthesis == result.initial_responses["a"]
    assert result.synthesis_source == "best_candidate"


async def test_without_any_candidate_a_run_that_needs_a_synthesis_fails() -> None:
    models = three(a=failing("a"), b=failing("b"), c=failing("c"))
    alone = Stage(name="synthesis", prompt=asks("x"), asks="first")
    with pytest.raises(QuorumNotReached, match="'synthesis' got 0 of the 1"):
        await run(models, alone)
    draft = Stage(name="draft", prompt=asks("draft"), optional=True)
    reads = Stage(name="synthesis", prompt=asks("x"), asks="first", reads="draft")
    with pytest.raises(QuorumNotReached, match="'synthesis' got 0 of the 1"):
        await run(models, draft, reads)


async def test_a_stage_that_asks_the_first_needs_one_answer_and_is_no_synthesis() -> None:
    critique = Stage(name="critique", prompt=asks("critique"), asks="first", reads="initial")
    result = await run(three(a=failing("a")), INITIAL, critique, quorum=2)
    assert list(result["critique_responses"]) == ["b"]
    assert (result.final_synthesis, result.synthesis_source) == (None, None)

    reluctant = three(**refusing("critique", *"abc"))
    with pytest.raises(QuorumNotReached, match="'critique' got 0 of the 1"):
        await run(reluctant, INITIAL, critique, quorum=2)
    optional = Stage(name="critique", prompt=asks("critique"), asks="first", reads="initial", optional=True)
    assert (await run(reluctant, INITIAL, optional)).status == "degraded"


# --- prompts -----------------------------------------------------------------------------------------


async def test_a_prompt_that_does_not_fit_one_model_fails_that_model_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def composer(*_arguments: Any) -> Any:
        def write(model: Model) -> Written:
            if model.name == "a":
                raise ModelError("too long for a", kind="bad_request")
            return Written(ModelRequest.of("Q"), {"b": 7})

        return write

    monkeypatch.setattr(Reader, "composer", composer)
    for stage in (Stage(name="meta", reads="initial"), Stage(name="meta", reads="initial", asks="first")):
        sink = Recorder()
        result = await run(three(), INITIAL, stage, sink=sink)
        assert next(iter(result.meta_responses)) == "b"
        assert [failure.message for failure in result.failures] == ["too long for a [bad_request]"]
        assert "about 7 tokens" in result.notices[0]
        assert sink.of("PromptFitted")[0] == PromptFitted(stage="meta", model_name="b", cut={"b": 7})


@pytest.mark.parametrize("stage", ["initial", "synthesis"])
@pytest.mark.parametrize("way", ["all", "first"])
async def test_a_prompt_that_cannot_be_made_ends_the_run(way: Any, stage: str) -> None:
    def broken(_responses: Any) -> str:
        raise ZeroDivisionError("mine")

    with pytest.raises(StageFailed, match="mine"):
        await run(three(), Stage(name=stage, prompt=broken, asks=way))


async def test_prompts_are_composed_once_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = Reader.composer
    composed = []

    def counted(self: Reader, *arguments: Any) -> Any:
        composed.append(arguments[0])
        return composer(self, *arguments)

    monkeypatch.setattr(Reader, "composer", counted)
    await run(three(), INITIAL, BUILT_IN["meta"], BUILT_IN["synthesis"])
    assert composed == ["meta", "synthesis"]
