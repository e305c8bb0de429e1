"""The line that says what a run waits for, on terminals of any width."""

from __future__ import annotations

import pytest

from ultra.cli.waiting_line import WaitingLine
from ultra.events import Chunk, ModelStarted, StageStarted

NAMES = ("openai", "anthropic", "gemini", "ollama")


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (100, "waiting for openai (writes), anthropic, gemini and ollama, 0 of 4 done, 1.5 s"),
        (65, "waiting for openai, anthropic, gemini and ollama, 1.5 s"),
        (60, "waiting for openai, anthropic and 2 more, 1.5 s"),
        (50, "waiting for openai and 3 more, 1.5 s"),
        (30, "0 of 4 done, 1.5 s"),
    ],
)
def test_it_names_as_many_models_as_there_is_place_for(width: int, shown: str) -> None:
    line = WaitingLine()
    line.apply(StageStarted(run_id="r", stage="initial", models=NAMES, asks="all"))
    for name in NAMES:
        line.apply(ModelStarted(run_id="r", stage="initial", model_name=name))
    line.apply(Chunk(run_id="r", stage="initial", model_name="openai", text="It"))

    text = line.text(1.5, width)

    assert text == f"Answers: {shown}"
    assert len(text) <= width


@pytest.mark.parametrize(
    ("names", "shown"),
    [(NAMES[:2], "openai and anthropic, 0 of 2 done, 1.5 s"), (NAMES[:1], "openai, 1.5 s")],
)
def test_it_counts_those_that_are_done_where_several_are_asked(names: tuple[str, ...], shown: str) -> None:
    line = WaitingLine()
    line.apply(StageStarted(run_id="r", stage="initial", models=names, asks="all"))
    for name in names:
        line.apply(ModelStarted(run_id="r", stage="initial", model_name=name))
    assert line.text(1.5, 100) == f"Answers: waiting for {shown}"
