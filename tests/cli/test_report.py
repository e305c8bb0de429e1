from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from ultra.cli.report import (
    answer_name,
    answer_text,
    confidence,
    cost,
    degradations,
    headings,
    model_lines,
    step_title,
    summary,
    unshown_answer,
)
from ultra.messages.chat import ToolCall
from ultra.messages.results import ModelFailure, ModelMetrics, ModelResponse, OrchestrationResult, Step, Usage


def response(name: str, stage: str, **fields: object) -> ModelResponse:
    fields.setdefault("content", "Paris.")
    return ModelResponse(model_name=name, stage=stage, **fields)  # type: ignore[arg-type]


def step(*responses: ModelResponse, number: int = 0) -> Step:
    return Step(name=responses[0].stage, round=number, responses=responses)


def failure(name: str, stage: str, message: str = "it broke") -> ModelFailure:
    return ModelFailure(model_name=name, stage=stage, message=message, error="ModelError", attempts=4)


def result(**fields: object) -> OrchestrationResult:
    metrics = {name: ModelMetrics() for name in ("heavy", "light")}
    return OrchestrationResult(run_id="run", prompt="?", metrics=metrics, **fields)  # type: ignore[arg-type]


def test_each_model_has_a_line_with_all_its_stages_summed_up() -> None:
    steps = [
        step(
            response("heavy", "initial", usage=Usage(output=10), response_time=1.0, quality=0.875),
            response("light", "initial", usage=Usage(output=7, estimated=True), response_time=0.5),
        ),
        step(response("heavy", "synthesis", usage=Usage(output=20), response_time=2.0, attempts=2)),
    ]

    done = result(steps=steps, quality_basis="votes")
    lines = [dict(zip(headings(done), line.cells, strict=True)) for line in model_lines(done)]

    assert lines == [
        {"model": "heavy", "time": "3.0 s", "tokens": "30", "calls": "2 + 1 retry", "agreement": "0.88"},
        {"model": "light", "time": "0.5 s", "tokens": "~7", "calls": "1", "agreement": "-"},
    ]


def test_samples_and_rounds_are_counted_in_the_line_of_their_model() -> None:
    steps = [
        step(
            response("heavy", "debate", usage=Usage(output=1), quality=0.5),
            response("heavy", "debate", sample=1, usage=Usage(output=2), quality=1.0),
        ),
        step(response("heavy", "debate", usage=Usage(output=4)), number=1),
    ]

    done = result(steps=steps, quality_basis="grade")
    (heavy, _) = model_lines(done)

    assert dict(zip(headings(done), heavy.cells, strict=True)) | {"time": ""} == {
        "model": "heavy",
        "time": "",
        "tokens": "7",
        "calls": "3",
        "grade": "0.75",
    }


def test_the_last_column_says_what_the_scores_are_and_is_left_out_without_any() -> None:
    scored = [step(response("heavy", "initial", quality=0.5))]

    assert headings(result(steps=scored, quality_basis="votes"))[-1] == "agreement"
    assert headings(result(steps=scored, quality_basis="similarity"))[-1] == "agreement"
    assert headings(result(steps=scored, quality_basis="grade"))[-1] == "grade"
    assert headings(result(steps=scored))[-1] == "score"  # of a strategy that scores in its own way
    assert headings(result(failures=[failure("light", "initial")]))[-1] == "outcome"
    assert headings(result()) == ("model", "time", "tokens", "calls")


def test_a_confidence_of_less_than_half_of_the_votes_is_put_in_words() -> None:
    assert (
        confidence(result(confidence=1 / 3, confidence_basis="votes")) == "0.33, most answers differ from it"
    )
    assert confidence(result(confidence=0.5, confidence_basis="votes")) == "0.50"
    assert confidence(result(confidence=0.3, confidence_basis="similarity")) == "0.30"
    assert confidence(result()) is None


def test_an_answer_from_the_cache_is_no_call() -> None:
    (heavy, _) = model_lines(result(steps=[step(response("heavy", "initial", attempts=0, cached=True))]))

    assert heavy.cells[-1] == "0"


def test_the_answer_is_shown_unless_the_last_step_has_shown_it_alone() -> None:
    one, other = response("heavy", "initial"), response("light", "initial", sample=2, content="Lyon.")
    last = response("heavy", "final")

    assert unshown_answer(result(steps=[step(one, other)], final_synthesis=other)) is other
    assert answer_name(other) == "light#2"
    assert unshown_answer(result(steps=[step(one, other), step(last)], final_synthesis=last)) is None
    assert unshown_answer(result(steps=[step(one, other)])) is None


def test_an_answer_is_shown_with_the_tools_that_it_calls() -> None:
    calls = (ToolCall("1", "weather", '{"city":"Paris"}'), ToolCall("2", "time"))

    assert answer_text(response("a", "tools", content="", tool_calls=calls)) == (
        'calls weather({"city":"Paris"})\ncalls time({})'
    )
    assert (
        answer_text(response("a", "tools", content="I look.", tool_calls=calls[1:]))
        == "I look.\ncalls time({})"
    )
    assert answer_text(response("a", "initial", content="42")) == "42"


def test_a_step_has_the_title_of_its_stage_or_its_name_and_the_round_after_the_first() -> None:
    assert [step_title("meta", 0), step_title("debate", 0), step_title("debate", 1)] == [
        "Analysis",
        "Debate",
        "Debate, round 2",
    ]


def test_all_samples_of_a_model_are_in_its_line() -> None:
    answers = [
        response("heavy", "initial", usage=Usage(output=3), response_time=1.0, sample=n) for n in (0, 1)
    ]

    (heavy, _) = model_lines(result(steps=[step(*answers)]))

    assert heavy.cells == ("heavy", "2.0 s", "6", "2")


def test_a_model_that_never_answered_has_its_calls_and_the_word_failed() -> None:
    (_, light) = model_lines(result(failures=[failure("light", "initial")]))

    assert light.cells == ("light", "-", "-", "1 + 3 retries", "failed")
    assert light.failed


def test_tokens_of_failed_attempts_are_tokens_of_their_model() -> None:
    lost = Usage(output=2, estimated=True)
    answer = response("heavy", "initial", usage=Usage(output=5), lost_usage=lost)
    failed = replace(failure("light", "initial"), usage=Usage(output=3))

    heavy, light = model_lines(result(steps=[step(answer)], failures=[failed]))

    assert (heavy.cells[2], light.cells[2]) == ("~7", "3")


def test_the_same_failure_in_several_stages_is_told_once() -> None:
    failures = [failure("light", "initial"), failure("light", "meta"), failure("heavy", "meta", "too late")]

    assert degradations(result(failures=failures)) == ["initial, meta: it broke", "meta: too late"]


def test_the_same_failure_of_several_samples_is_told_once() -> None:
    assert degradations(result(failures=[failure("light", "initial")] * 3)) == ["initial: it broke"]


def test_a_synthesis_by_another_model_and_notices_are_told() -> None:
    told = degradations(
        result(
            synthesis_source="fallback",
            final_synthesis=response("light", "synthesis"),
            notices=["texts were cut"],
        )
    )

    assert told == ["answer: written by light in place of a model that failed", "texts were cut"]


def test_the_cost_names_the_models_that_have_no_price() -> None:
    steps = [
        step(
            response("heavy", "initial", cost=0.01),
            response("light", "initial"),
            response("stored", "initial", cached=True),
        )
    ]

    assert cost(result(steps=steps, cost=0.01234)) == "$0.0123, cost unknown for light"
    lost = replace(failure("lost", "initial"), usage=Usage(output=3))
    assert cost(result(steps=steps, failures=[lost], cost=0.01)) == "$0.0100, cost unknown for light, lost"
    assert cost(result(cost=0.00001)) == "less than $0.0001"
    assert cost(result(cost=0.0)) == "$0"
    assert cost(result()) is None


def test_the_last_line_says_so_where_no_cost_is_known() -> None:
    def asked(*names: str, **fields: object) -> OrchestrationResult:
        answers = step(*(response(name, "initial") for name in names))
        return result(steps=[answers], response_time=1.0, **fields)

    assert summary(asked("heavy", "light")) == "Done in 1.0 s, cost unknown for heavy, light"
    assert summary(asked("heavy", cost=0.5)) == "Done in 1.0 s for $0.5000, cost unknown for heavy"
    assert summary(asked(*(f"gpt-{n}.5-turbo" for n in range(4)), confidence=0.5)) == (
        "Done in 1.0 s, cost unknown for 4 models, confidence 0.50"
    )
    assert summary(result(response_time=1.0)) == "Done in 1.0 s"  # nothing was asked


@pytest.mark.parametrize("source", ["selected", "best_candidate", None])
def test_an_answer_that_was_chosen_among_others_is_shown_at_the_end(source: Any) -> None:
    heavy, light = response("heavy", "initial"), response("light", "initial")
    chosen = result(steps=[step(heavy, light)], final_synthesis=light, synthesis_source=source)

    assert unshown_answer(chosen) is light


@pytest.mark.parametrize("source", ["primary", "fallback", "selected"])
def test_an_answer_that_came_last_is_not_shown_again(source: Any) -> None:
    heavy, light = response("heavy", "initial"), response("light", "final")
    steps = [step(heavy), step(light)]

    assert unshown_answer(result(steps=steps, final_synthesis=light, synthesis_source=source)) is None


def test_another_sample_is_called_by_its_number() -> None:
    assert [answer_name(response("heavy", "initial", sample=number)) for number in (0, 1)] == [
        "heavy",
        "heavy#1",
    ]
