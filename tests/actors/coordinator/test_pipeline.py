"""Stages: what may be asked for, what each reads, and the words it makes of that."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from helpers.voices import Voice
from ultra import BadCall, ModelError, MultiLLMOrchestrator, Stage, StageFailed, StageResponses
from ultra.actors.coordinator.pipeline import BUILT_IN, plan_stages
from ultra.orchestrator.planning import stages_of
from ultra.prompts.fencing import Fencing


def planned(requested: Any, *own: Stage, **arguments: Any) -> Any:
    known = {**BUILT_IN, **{stage.name: stage for stage in own}}
    return plan_stages(requested, known, **{"system": None, "fencing": Fencing(b"s" * 32), **arguments})


def words(responses: StageResponses) -> str:
    return (
        f"{responses.name or 'nothing'} of {responses.prompt}: {', '.join(r.model_name for r in responses)}"
    )


def own(name: str, **fields: Any) -> Stage:
    return Stage(name=name, prompt=words, **fields)


def orchestrator_of(*voices: Voice, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0, **settings)
    for weight, voice in enumerate(reversed(voices)):
        orchestrator.register_model(voice.name, voice, weight=weight)
    return orchestrator


# --- what may be asked for --------------------------------------------------------------------------


def test_without_a_wish_the_built_in_stages_run() -> None:
    stages = planned(None)
    assert [(s.name, s.reads, s.asks, s.optional, s.final, s.scored) for s in stages] == [
        ("initial", None, "all", False, False, True),
        ("meta", "initial", "all", True, False, False),
        ("synthesis", "initial", "first", False, True, False),
    ]


def test_a_stage_reads_the_one_before_it_unless_it_says_otherwise() -> None:
    stages = planned(["initial", own("draft"), own("check", reads="initial"), own("final")])
    assert [stage.reads for stage in stages] == [None, "initial", "initial", "check"]


def test_time_for_scoring_is_kept_where_something_is_scored() -> None:
    assert [stage.scoring_share for stage in planned(None, scoring_share=0.1)] == [0.1, 0.0, 0.0]


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
        planned(requested, own("mine"))


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


# --- what is asked ----------------------------------------------------------------------------------


async def test_the_initial_stage_asks_the_question_under_the_system_prompt_of_the_run() -> None:
    asked = []

    async def generate(prompt: str, *, system: str | None = None) -> str:
        await trio.lowlevel.checkpoint()
        asked.append((prompt, system))
        return "answer"

    orchestrator = MultiLLMOrchestrator(system="Be brief.")
    orchestrator.register_model("a", generate)
    await orchestrator.process_responses("Q", stages=["initial"])
    await orchestrator.process_responses("Q", stages=["initial"], system="Be long.")
    await orchestrator.process_responses("Q", stages=[Stage(name="initial", system="Own.")])
    assert asked == [("Q", "Be brief."), ("Q", "Be long."), ("Q", "Own.")]


async def test_built_in_stages_read_what_they_are_told_to_read() -> None:
    voice = Voice("a")
    orchestrator = orchestrator_of(voice)
    stages: list[str | Stage] = ["initial", own("draft"), Stage(name="meta", reads="draft"), "synthesis"]
    await orchestrator.process_responses("Q", stages=stages)
    draft, meta, synthesis = voice.prompts[1:]
    assert draft == "initial of Q: a"
    assert "a: initial of Q: a" in meta
    assert "a: Q<" in synthesis
    assert "Analysis 1:" in synthesis


async def test_a_prompt_method_is_called_once_for_all_models_and_sees_all_stages_before() -> None:
    seen = []

    def write(responses: StageResponses) -> str:
        seen.append([response.content for response in responses])
        return f"{len(responses.stage('initial'))} answers to {responses.prompt}"

    a, b = Voice("a"), Voice("b")
    results = await orchestrator_of(a, b).process_responses(
        "Q", stages=["initial", "meta", Stage(name="last", prompt=write, reads="initial")]
    )
    assert seen == [["a: Q", "b: Q"]]
    assert results["last_responses"]["b"].content == "b: 2 answers to Q"


async def test_a_first_stage_of_ones_own_is_given_the_question() -> None:
    voice = Voice("a")
    await orchestrator_of(voice).process_responses("Q", stages=[own("first")])
    assert voice.prompts == ["nothing of Q: "]


@pytest.mark.parametrize("given", [None, "", "  ", 7])
async def test_a_prompt_method_that_gives_no_text_ends_the_run(given: Any) -> None:
    stage = Stage(name="mine", prompt=lambda _responses: given)
    with pytest.raises(StageFailed, match=r"the prompt of stage 'mine' failed.*must give the text"):
        await orchestrator_of(Voice("a")).process_responses("Q", stages=["initial", stage])


async def test_a_built_in_stage_about_answers_that_nobody_gave_is_a_failure_of_that_stage() -> None:
    class NoDraft(Voice):
        async def generate(self, prompt: str) -> Any:
            if prompt.startswith("initial of"):
                raise ModelError("no", kind="bad_request")
            return await super().generate(prompt)

    stages: list[str | Stage] = [
        "initial",
        own("draft", optional=True),
        Stage(name="meta", reads="draft", optional=True),
    ]
    results = await orchestrator_of(NoDraft("a")).process_responses("Q", stages=stages)
    assert results.status == "degraded"
    assert [failure.message for failure in results.failures][1] == (
        "stage 'meta' has no answers to read [bad_request]"
    )


async def test_texts_that_are_cut_to_fit_are_told() -> None:
    class Small(Voice):
        context_window = 700

    orchestrator = orchestrator_of(Small("small"), Voice("long", answer="word " * 3000))
    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])
    assert results.status == "success"
    assert results.final_synthesis is not None
    assert results.final_synthesis.model_name == "small"
    assert any("cut to fit the context window of 'small'" in notice for notice in results.notices)


async def test_a_window_too_small_for_the_texts_leaves_the_work_to_the_next_model() -> None:
    class Tiny(Voice):
        context_window = 20

    results = await orchestrator_of(Tiny("tiny"), Voice("b")).process_responses(
        "Q", stages=["initial", "synthesis"]
    )
    assert results.final_synthesis is not None
    assert (results.final_synthesis.model_name, results.synthesis_source) == ("b", "fallback")
