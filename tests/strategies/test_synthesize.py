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
from ultra import (
    BadCall,
    ModelError,
    MultiLLMOrchestrator,
    OrchestrationResult,
    QuorumNotReached,
    Stage,
    StageFailed,
    StageResponses,
    Timeouts,
)
from ultra.actors.model.breaker import BreakerPolicy
from ultra.messages.events import Event, ModelFailed, StageCompleted
from ultra.strategies import Synthesize
from ultra.testing import FakeAnswer, FakeModel


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
NEVER_OPEN = BreakerPolicy(consecutive_failures=None, failure_rate=None)


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
    hanging = register(
        FakeModel(name="hanging", seconds=math.inf), "hanging", 2.0, timeouts=PATIENT, breaker=NEVER_OPEN
    )
    judge = register(FakeModel(name="judge", seconds=math.inf), "judge", timeouts=PATIENT) if judged else None
    stages = [
        Stage(name=f"s{number}" if number else "initial", prompt=asks("Q"), optional=True, share=share)
        for number, share in enumerate(shares)
    ]
    sink = Timed()
    await run(
        [hanging, register(FakeModel(name="quick"), "quick", breaker=NEVER_OPEN)],
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


# --- unanimous answers, analysts, and what is cut off ------------------------------------------------


async def asked(*fakes: FakeModel, strategy: Synthesize, **fields: Any) -> OrchestrationResult:
    return await orchestrator_of(*fakes).process_responses("Q", strategy=strategy, **fields)


async def test_what_all_say_stands_word_for_word_where_that_is_wanted() -> None:
    fakes = [FakeModel("The answer is 42.", name="a"), FakeModel("**42**", name="b")]
    result = await asked(*fakes, strategy=Synthesize(keep_unanimous=True))
    assert result.final_synthesis == result.initial_responses["a"]
    assert (result.synthesis_source, result.confidence) == ("unanimous", 1.0)
    assert [step.name for step in result.steps] == ["initial"]
    assert (await asked(*fakes, strategy=Synthesize())).synthesis_source == "primary"


@pytest.mark.parametrize("other", ["41", "It is hard to say, and nobody really knows what to make of this."])
async def test_where_one_says_something_else_the_answers_are_merged(other: str) -> None:
    result = await asked(
        FakeModel("42", name="a"), FakeModel(other, name="b"), strategy=Synthesize(keep_unanimous=True)
    )
    assert result.synthesis_source == "primary"


@pytest.mark.parametrize(("analysts", "who"), [("all", ["a", "b"]), ("one", ["a"]), ("none", None)])
async def test_who_analyses_the_answers(analysts: Any, who: list[str] | None) -> None:
    result = await asked(
        FakeModel("1", name="a"), FakeModel("2", name="b"), strategy=Synthesize(analysts=analysts)
    )
    assert (list(result.stages["meta"]) if "meta" in result.stages else None) == who


def test_options_that_are_not_allowed_are_refused() -> None:
    with pytest.raises(BadCall, match="analysts is 'two'; it must be one of: all, one, none"):
        Synthesize(analysts="two")  # type: ignore[arg-type]
    with pytest.raises(BadCall, match="on_cut is 'stop'"):
        Synthesize(on_cut="stop")  # type: ignore[arg-type]


async def test_a_synthesiser_that_agrees_least_with_the_others_is_told() -> None:
    result = await asked(
        FakeModel("1", name="a"), FakeModel("2", name="b"), FakeModel("2", name="c"), strategy=Synthesize()
    )
    assert any("'a', which wrote the synthesis, agrees least" in notice for notice in result.notices) is False
    weights = MultiLLMOrchestrator(max_retries=0)
    for name, answer in (("a", "1"), ("b", "2"), ("c", "2")):
        weights.register_model(name, FakeModel(answer, name=name))
    told = await weights.process_responses("Q")
    assert any("'a', which wrote the synthesis, agrees least" in notice for notice in told.notices)


def cutting(name: str, *answers: FakeAnswer | str) -> FakeModel:
    return FakeModel(["4", *answers], name=name)


CUT = FakeAnswer("The first of", finish_reason="length")


async def test_a_synthesis_that_is_cut_off_is_told() -> None:
    result = await asked(cutting("a", CUT), FakeModel("4", name="b"), strategy=Synthesize(analysts="none"))
    assert (str(result.final_synthesis), result.status) == ("The first of", "degraded")
    assert "stopped at its limit of tokens" in result.notices[-1]


async def test_a_synthesis_that_is_cut_off_is_continued_where_that_is_wanted() -> None:
    a = cutting("a", CUT, FakeAnswer(" three.", finish_reason="stop"))
    result = await asked(a, strategy=Synthesize(analysts="none", on_cut="continue"))
    assert (str(result.final_synthesis), result.status) == ("The first of three.", "success")


async def test_a_synthesis_that_is_cut_off_is_asked_of_the_next_where_that_is_wanted() -> None:
    result = await asked(
        cutting("a", CUT), cutting("b", "whole"), strategy=Synthesize(analysts="none", on_cut="next")
    )
    assert (str(result.final_synthesis), result.status) == ("whole", "success")


async def test_a_cut_answer_is_not_in_the_quorum_and_nobody_reads_it() -> None:
    b = FakeModel("whole", name="b")
    result = await asked(FakeModel(CUT, name="a"), b, strategy=Synthesize(analysts="none"))
    assert result.status == "degraded"
    assert "the answers of 'a' stopped at their limit" in result.notices[0]
    assert "The first of" not in b.prompts[-1]
    assert list(result.initial_responses) == ["a", "b"]
    with pytest.raises(QuorumNotReached):
        await asked(FakeModel(CUT, name="a"), b, strategy=Synthesize(), quorum="all")


async def test_where_every_answer_is_cut_off_they_are_used_and_that_is_told() -> None:
    result = await asked(FakeModel(CUT, name="a"), strategy=Synthesize(stages=("initial",)))
    assert result.status == "degraded"
    assert "no other is there to be used" in result.notices[0]


async def test_a_reader_that_refuses_for_length_is_asked_once_more_with_a_shorter_prompt() -> None:
    long = ModelError("maximum context length is 100 tokens", kind="bad_request")
    a = FakeModel(["word " * 2000, long, "merged"], name="a")
    result = await asked(a, strategy=Synthesize(analysts="none"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("merged", "primary")
    first, second = a.prompts[1:]
    assert len(second) < 0.7 * len(first)
    assert result.failures == []
