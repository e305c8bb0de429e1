from __future__ import annotations

from ultra.cli.report import HEADINGS, cost, degradations, model_lines
from ultra.messages.results import ModelFailure, ModelMetrics, ModelResponse, OrchestrationResult, Usage


def response(name: str, stage: str, **fields: object) -> ModelResponse:
    return ModelResponse(model_name=name, stage=stage, content="Paris.", **fields)  # type: ignore[arg-type]


def failure(name: str, stage: str, message: str = "it broke") -> ModelFailure:
    return ModelFailure(model_name=name, stage=stage, message=message, error="ModelError", attempts=4)


def result(**fields: object) -> OrchestrationResult:
    metrics = {name: ModelMetrics() for name in ("heavy", "light")}
    return OrchestrationResult(run_id="run", prompt="?", metrics=metrics, **fields)  # type: ignore[arg-type]


def test_each_model_has_a_line_with_all_its_stages_summed_up() -> None:
    stages = {
        "initial": {
            "heavy": response("heavy", "initial", usage=Usage(output=10), response_time=1.0, quality=0.875),
            "light": response("light", "initial", usage=Usage(output=7, estimated=True), response_time=0.5),
        },
        "synthesis": {
            "heavy": response("heavy", "synthesis", usage=Usage(output=20), response_time=2.0, attempts=2)
        },
    }

    lines = [dict(zip(HEADINGS, line.cells, strict=True)) for line in model_lines(result(stages=stages))]

    assert lines == [
        {"model": "heavy", "time": "3.0 s", "tokens": "30", "attempts": "3", "score": "0.88"},
        {"model": "light", "time": "0.5 s", "tokens": "~7", "attempts": "1", "score": "-"},
    ]


def test_a_model_that_never_answered_has_its_attempts_and_the_word_failed() -> None:
    (_, light) = model_lines(result(failures=[failure("light", "initial")]))

    assert light.cells == ("light", "-", "-", "4", "failed")
    assert light.failed


def test_the_same_failure_in_several_stages_is_told_once() -> None:
    failures = [failure("light", "initial"), failure("light", "meta"), failure("heavy", "meta", "too late")]

    assert degradations(result(failures=failures)) == ["initial, meta: it broke", "meta: too late"]


def test_a_synthesis_by_another_model_and_notices_are_told() -> None:
    told = degradations(
        result(
            synthesis_source="fallback",
            final_synthesis=response("light", "synthesis"),
            notices=["texts were cut"],
        )
    )

    assert told == ["synthesis: written by light in place of who failed", "texts were cut"]


def test_the_cost_names_the_models_that_have_no_price() -> None:
    stages = {
        "initial": {
            "heavy": response("heavy", "initial", cost=0.01),
            "light": response("light", "initial"),
            "stored": response("stored", "initial", cached=True),
        }
    }

    assert cost(result(stages=stages, cost=0.01234)) == "$0.0123, without light"
    assert cost(result(cost=0.00001)) == "less than $0.0001"
    assert cost(result(cost=0.0)) == "$0.0000"
    assert cost(result()) is None
