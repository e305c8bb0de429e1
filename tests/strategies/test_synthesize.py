"""The guide's strategy: the words that its stages make of what they read, and how long each may take."""

from __future__ import annotations

import math
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from helpers.coordinator_runs import Recorder, asks, run
from helpers.model_actors import register
from ultra import ModelError, MultiLLMOrchestrator, Stage, StageFailed, StageResponses, Timeouts
from ultra.messages.events import Event, ModelFailed, StageCompleted
from ultra.testing import FakeModel


def words(responses: StageResponses) -> str:
    return (
        f"{responses.name or 'nothing'} of {responses.prompt}: {', '.join(r.model_name for r in responses)}"
    )


def own(name: str, **fields: Any) -> Stage:
    return Stage(name=name, prompt=words, **fields)


def orchestrator_of(*fakes: FakeModel, **settings: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0, **settings)
    for weight, fake in enumerate(reversed(fakes)):
        orchestrator.register_model(fake.name, fake, weight=weight)
    return orchestrator


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
    fake = FakeModel(name="a")
    orchestrator = orchestrator_of(fake)
    stages: list[str | Stage] = ["initial", own("draft"), Stage(name="meta", reads="draft"), "synthesis"]
    await orchestrator.process_responses("Q", stages=stages)
    draft, meta, synthesis = fake.prompts[1:]
    assert draft == "initial of Q: a"
    assert "a: initial of Q: a" in meta
    assert "a: Q<" in synthesis
    assert "Analysis 1:" in synthesis


async def test_a_prompt_method_is_called_once_for_all_models_and_sees_all_stages_before() -> None:
    seen = []

    def write(responses: StageResponses) -> str:
        seen.append([response.content for response in responses])
        return f"{len(responses.stage('initial'))} answers to {responses.prompt}"

    a, b = FakeModel(name="a"), FakeModel(name="b")
    results = await orchestrator_of(a, b).process_responses(
        "Q", stages=["initial", "meta", Stage(name="last", prompt=write, reads="initial")]
    )
    assert seen == [["a: Q", "b: Q"]]
    assert results["last_responses"]["b"].content == "b: 2 answers to Q"


async def test_a_first_stage_of_ones_own_is_given_the_question() -> None:
    fake = FakeModel(name="a")
    await orchestrator_of(fake).process_responses("Q", stages=[own("first")])
    assert fake.prompts == ["nothing of Q: "]


@pytest.mark.parametrize("text", [None, "", "  ", 7])
async def test_a_prompt_method_that_gives_no_text_ends_the_run(text: Any) -> None:
    stage = Stage(name="mine", prompt=lambda _responses: text)
    with pytest.raises(StageFailed, match=r"the prompt of stage 'mine' failed.*must give the text"):
        await orchestrator_of(FakeModel(name="a")).process_responses("Q", stages=["initial", stage])


async def test_a_built_in_stage_about_answers_that_nobody_gave_is_a_failure_of_that_stage() -> None:
    no_draft = FakeModel({"initial of": ModelError("no", kind="bad_request"), "": "fine"}, name="a")
    stages: list[str | Stage] = [
        "initial",
        own("draft", optional=True),
        Stage(name="meta", reads="draft", optional=True),
    ]
    results = await orchestrator_of(no_draft).process_responses("Q", stages=stages)
    assert results.status == "degraded"
    assert [failure.message for failure in results.failures][1] == (
        "stage 'meta' has no answers to read [bad_request]"
    )


async def test_texts_that_are_cut_to_fit_are_told() -> None:
    small = FakeModel(name="small", context_window=700)
    orchestrator = orchestrator_of(small, FakeModel("word " * 3000, name="long"))
    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])
    assert results.status == "success"
    assert results.final_synthesis is not None
    assert results.final_synthesis.model_name == "small"
    assert any("cut to fit the context window of 'small'" in notice for notice in results.notices)


async def test_a_window_too_small_for_the_texts_leaves_the_work_to_the_next_model() -> None:
    tiny = FakeModel(name="tiny", context_window=20)
    orchestrator = orchestrator_of(tiny, FakeModel(name="b"))
    results = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])
    assert results.final_synthesis is not None
    assert (results.final_synthesis.model_name, results.synthesis_source) == ("b", "fallback")


# --- when each stage has to end ---------------------------------------------------------------------


PATIENT = Timeouts(attempt=1e9, first_token=1e9)


class Timed(Recorder):
    """A sink that keeps when each stage stopped waiting for answers, and when it had ended."""

    def __init__(self) -> None:
        super().__init__()
        self.started = trio.current_time()
        self.answered: list[float] = []
        self.ended: list[float] = []

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, ModelFailed) and event.model_name == "hanging":
            self.answered.append(trio.current_time() - self.started)
        elif isinstance(event, StageCompleted):
            self.ended.append(trio.current_time() - self.started)


async def moments(timeout: float, *shares: float, judged: bool = False) -> list[tuple[float, float]]:
    """When stages of these shares end while a model hangs: their answers, and all of it.

    If they are `judged`, the judge of the first one hangs, too.
    """
    hanging = register(FakeModel(name="hanging", seconds=math.inf), "hanging", 2.0, timeouts=PATIENT)
    judge = register(FakeModel(name="judge", seconds=math.inf), "judge", timeouts=PATIENT) if judged else None
    stages = [
        Stage(name=f"s{number}" if number else "initial", prompt=asks("Q"), optional=True, share=share)
        for number, share in enumerate(shares)
    ]
    sink = Timed()
    await run(
        [hanging, register(FakeModel(name="quick"), "quick")],
        *stages,
        timeout=timeout,
        judge=judge,
        sink=sink,
    )
    return list(zip(sink.answered, sink.ended, strict=True))


async def test_each_stage_may_take_what_the_later_ones_do_not_keep(autojump_clock: MockClock) -> None:
    assert await moments(10, 0, 0.2, 0.3) == [pytest.approx((end, end)) for end in (5, 7, 10)]


async def test_the_share_of_the_first_stage_is_what_is_left(autojump_clock: MockClock) -> None:
    assert await moments(10, 0.9, 0.2) == [pytest.approx((end, end)) for end in (8, 10)]


async def test_without_a_timeout_no_stage_has_to_end(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1e6)
    sink = Timed()
    await run([register(slow, timeouts=PATIENT)], sink=sink)
    assert sink.ended == pytest.approx([1e6, 2e6, 3e6])


async def test_a_single_stage_has_all_the_time(autojump_clock: MockClock) -> None:
    assert await moments(10, 0) == [pytest.approx((10, 10))]


async def test_scoring_has_its_share_between_the_answers_and_the_end_of_the_stage(
    autojump_clock: MockClock,
) -> None:
    assert await moments(10, 0, 0.2, 0.3, judged=True) == [
        pytest.approx((4, 5)),
        pytest.approx((7, 7)),
        pytest.approx((10, 10)),
    ]


async def test_time_for_scoring_is_kept_only_where_there_is_a_judge_and_an_initial_stage(
    autojump_clock: MockClock,
) -> None:
    hanging = register(FakeModel(name="hanging", seconds=math.inf), "hanging", 2.0)
    judge = register(FakeModel(name="judge", seconds=math.inf), "judge")
    stages = [Stage(name=name, prompt=asks("Q"), optional=True, share=0.3) for name in ("first", "second")]
    sink = Timed()
    await run([hanging], *stages, timeout=10, judge=judge, sink=sink)
    assert sink.ended == pytest.approx([7, 10])


@given(
    timeout=st.floats(0.001, 1e6),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=20),
    judged=st.booleans(),
)
def test_however_much_the_stages_keep_the_first_has_a_fifth_and_none_ends_before_another(
    *, timeout: float, shares: list[float], judged: bool
) -> None:
    async def go() -> list[tuple[float, float]]:
        return await moments(timeout, *shares, judged=judged)

    ends = trio.run(go, clock=MockClock(autojump_threshold=0))
    assert ends[-1][1] == pytest.approx(timeout)
    assert ends[0][0] >= timeout / 5 - 1e-6 * timeout - 1e-9
    assert [moment for pair in ends for moment in pair] == sorted(moment for pair in ends for moment in pair)
    for (_, before), (answered, _), share in zip(ends, ends[1:], shares[1:], strict=False):
        assert share < 1e-3 or answered > before
