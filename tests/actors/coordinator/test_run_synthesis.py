"""One run: who writes the synthesis, and what stands in for it; what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.runs import INITIAL, SYNTHESIS, Recorder, asks, failing, run, three
from helpers.voices import Voice
from ultra.actors.coordinator.plan import ComposedPrompt, StagePlan, Write
from ultra.actors.coordinator.run import Run
from ultra.errors import ModelError, QuorumNotReached, StageFailed

if TYPE_CHECKING:
    from collections.abc import Mapping


# --- the synthesis -----------------------------------------------------------------------------------


class NoSynthesis(Voice):
    async def generate(self, prompt: str) -> Any:
        if prompt == "synthesis":
            raise ModelError(f"{self.name} cannot", kind="bad_request")
        return await super().generate(prompt)


async def test_the_synthesis_falls_back_in_weight_order() -> None:
    sink = Recorder()
    result = await run(three(a=NoSynthesis("a"), b=NoSynthesis("b")), sink=sink)
    assert result.final_synthesis is not None
    assert (result.final_synthesis.model_name, result.synthesis_source) == ("c", "fallback")
    assert result.status == "degraded"
    assert sink.of("StageCompleted")[-1]["failed"] == ("a", "b")


async def test_if_none_can_write_it_the_best_candidate_stands_in() -> None:
    async def score(_run: Run, _stage: StagePlan, _deadline: float) -> Mapping[str, float]:
        await trio.lowlevel.checkpoint()
        return {"a": 0.2, "b": 0.9, "c": 0.5}

    models = three(a=NoSynthesis("a"), b=NoSynthesis("b"), c=NoSynthesis("c"))
    scored = StagePlan(name="initial", compose=asks("initial"), scored=True)
    result = await run(models, scored, SYNTHESIS, score=score)
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.synthesis_source, result.status) == ("best_candidate", "degraded")
    assert "best candidate" in result.notices[0]
    assert [model.metrics.snapshot().average_quality for model in models] == [0.2, 0.9, 0.5]


async def test_without_scores_the_best_candidate_is_that_of_the_highest_weight() -> None:
    result = await run(three(a=NoSynthesis("a"), b=NoSynthesis("b"), c=NoSynthesis("c")), INITIAL, SYNTHESIS)
    assert result.final_synthesis == result.initial_responses["a"]


async def test_only_who_answered_what_it_reads_writes_the_synthesis() -> None:
    late = Voice("a", failures=[ModelError("busy", kind="bad_request")])
    result = await run(three(a=late), INITIAL, SYNTHESIS)
    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert late.calls == 1


async def test_a_synthesis_of_a_stage_that_nobody_answered_takes_another_stages_best() -> None:
    draft = StagePlan(name="draft", compose=asks("draft"), optional=True, reads="initial")
    synthesis = StagePlan(name="synthesis", compose=asks("x"), asks="first", reads="draft", final=True)

    class NoDraft(Voice):
        async def generate(self, prompt: str) -> Any:
            if prompt == "draft":
                raise ModelError("no", kind="bad_request")
            return await super().generate(prompt)

    result = await run(three(a=NoDraft("a"), b=NoDraft("b"), c=NoDraft("c")), INITIAL, draft, synthesis)
    assert result.final_synthesis == result.initial_responses["a"]
    assert result.synthesis_source == "best_candidate"


async def test_without_any_candidate_a_run_that_needs_a_synthesis_fails() -> None:
    models = three(a=failing("a"), b=failing("b"), c=failing("c"))
    alone = StagePlan(name="synthesis", compose=asks("x"), asks="first", final=True)
    with pytest.raises(QuorumNotReached, match="'synthesis' got 0 of the 1"):
        await run(models, alone)
    draft = StagePlan(name="draft", compose=asks("draft"), optional=True)
    reads = StagePlan(name="synthesis", compose=asks("x"), asks="first", reads="draft", final=True)
    with pytest.raises(QuorumNotReached, match="'synthesis' got 0 of the 1"):
        await run(models, draft, reads)


async def test_a_stage_that_asks_the_first_needs_one_answer_and_is_no_synthesis() -> None:
    critique = StagePlan(name="critique", compose=asks("critique"), asks="first", reads="initial")
    result = await run(three(a=failing("a")), INITIAL, critique, quorum=2)
    assert list(result["critique_responses"]) == ["b"]
    assert (result.final_synthesis, result.synthesis_source) == (None, None)

    class NoCritique(Voice):
        async def generate(self, prompt: str) -> Any:
            if prompt == "critique":
                raise ModelError("no", kind="bad_request")
            return await super().generate(prompt)

    reluctant = three(a=NoCritique("a"), b=NoCritique("b"), c=NoCritique("c"))
    with pytest.raises(QuorumNotReached, match="'critique' got 0 of the 1"):
        await run(reluctant, INITIAL, critique, quorum=2)
    optional = StagePlan(
        name="critique", compose=asks("critique"), asks="first", reads="initial", optional=True
    )
    assert (await run(reluctant, INITIAL, optional)).status == "degraded"


# --- prompts -----------------------------------------------------------------------------------------


async def test_a_prompt_that_does_not_fit_one_model_fails_that_model_only() -> None:
    def compose(_run: Run) -> Write:
        def write(target: Any) -> ComposedPrompt:
            if target.name == "a":
                raise ModelError("too long for a", kind="bad_request")
            return ComposedPrompt("Q", cuts={"b": 7})

        return write

    sink = Recorder()
    for stage in (
        StagePlan(name="initial", compose=compose),
        StagePlan(name="initial", compose=compose, asks="first"),
    ):
        result = await run(three(), stage, sink=sink)
        assert next(iter(result.initial_responses)) == "b"
        assert [failure.message for failure in result.failures] == ["too long for a [bad_request]"]
        assert "about 7 tokens" in result.notices[0]
    assert sink.of("PromptFitted")[0] == {"stage": "initial", "model_name": "b", "cut": {"b": 7}}


@pytest.mark.parametrize("way", ["all", "first"])
async def test_a_prompt_that_cannot_be_made_ends_the_run(way: Any) -> None:
    def compose(_run: Run) -> Write:
        raise StageFailed("initial", "the prompt", ZeroDivisionError("mine"))

    with pytest.raises(StageFailed, match="mine"):
        await run(three(), StagePlan(name="initial", compose=compose, asks=way, final=way == "first"))


async def test_prompts_are_composed_once_a_stage() -> None:
    composed = []

    def compose(one: Run) -> Write:
        composed.append(one)
        return lambda _target: ComposedPrompt("Q")

    await run(three(), StagePlan(name="initial", compose=compose))
    assert len(composed) == 1
