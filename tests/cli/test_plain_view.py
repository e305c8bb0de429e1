from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from ultra.cli.plain_view import PlainView, _aligned
from ultra.messages.chat import ReasoningPart
from ultra.messages.events import ModelFailed, ModelResponded
from ultra.messages.results import ModelFailure, ModelMetrics, ModelResponse, OrchestrationResult, Step

if TYPE_CHECKING:
    import pytest


def response(text: str, *, sample: int = 0) -> ModelResponse:
    return ModelResponse(model_name="heavy", stage="debate", content=text, sample=sample)


def test_answers_are_headed_by_step_round_and_sample(capsys: pytest.CaptureFixture[str]) -> None:
    failure = ModelFailure(model_name="light", stage="debate", message="it\nbroke", error="ModelError")
    with PlainView() as view:
        view.show(
            ModelResponded(stage="debate", model_name="heavy", sample=1, response=response("No.", sample=1))
        )
        view.show(ModelFailed(stage="debate", round=1, model_name="light", failure=failure))

    assert capsys.readouterr().out.splitlines() == [
        "--- debate: heavy#1, 0.0 s",
        "No.",
        "",
        "--- debate, round 2: light, failed",
        "it broke",
        "",
    ]


def test_names_of_wide_characters_are_aligned_by_the_columns_that_they_take() -> None:
    rows = [("model", "time"), ("\u6a21\u578b", "1.0 s"), ("light", "12.0 s")]

    assert _aligned(rows) == ["model    time", "\u6a21\u578b    1.0 s", "light  12.0 s"]


def test_what_a_model_thought_stands_above_its_answer_where_it_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    thought = replace(
        response("No."), reasoning_parts=(ReasoningPart("Is it?\nIt is not."), ReasoningPart(""))
    )
    event = ModelResponded(stage="debate", model_name="heavy", response=thought)
    for shown in ((), ("reasoning",)):
        with PlainView(shown=shown) as view:
            view.show(event)

    head, *lines = capsys.readouterr().out.splitlines()
    assert lines == ["No.", "", head, "| Is it?", "| It is not.", "", "No.", ""]


def test_the_answer_that_a_strategy_selected_is_written_with_its_confidence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers = (response("Yes."), response("No.", sample=1))
    with PlainView() as view:
        pass
    view.conclude(
        OrchestrationResult(
            run_id="run",
            prompt="?",
            steps=[Step(name="debate", responses=answers)],
            final_synthesis=answers[1],
            synthesis_source="selected",
            confidence=0.5,
            metrics={"heavy": ModelMetrics()},
        )
    )

    written = capsys.readouterr().out
    assert written.startswith("--- answer: heavy#1\nNo.\n\nmodel ")
    assert written.endswith("\n\nDone in 0.0 s, cost unknown for heavy, confidence 0.50\n")


def test_an_answer_that_was_cut_off_is_shown_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    cut = ModelResponse(model_name="heavy", stage="synthesis", content="The first", finish_reason="length")
    with PlainView() as view:
        view.show(ModelResponded(stage="synthesis", model_name="heavy", response=cut))
    view.conclude(OrchestrationResult(run_id="run", prompt="?", final_synthesis=cut, metrics={}))

    written = capsys.readouterr().out
    assert "--- synthesis: heavy, 0.0 s, cut off\nThe first\n" in written
    assert "--- answer: heavy, cut off\nThe first\n" in written
