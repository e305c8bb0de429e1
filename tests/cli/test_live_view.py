"""What a run looks like on terminals of several sizes, drawn into memory."""

from __future__ import annotations

import io
import re
from typing import Literal

import pytest
from msgspec.structs import replace
from rich.console import Console

from ultra.cli.columns import Columns
from ultra.cli.live_view import LiveView
from ultra.cli.panes import StepPanes
from ultra.cli.waiting_line import WaitingLine
from ultra.messages.chat import ReasoningPart
from ultra.messages.events import (
    Chunk,
    Event,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    StageCompleted,
    StageStarted,
)
from ultra.messages.results import ModelFailure, ModelMetrics, ModelResponse, OrchestrationResult, Step, Usage

NAMES = ("careful", "creative", "concise")


def console(width: int, height: int = 30, *, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(
        file=file, width=width, height=height, force_terminal=True, markup=False, emoji=False, highlight=False
    )


def stage_started(*names: str, stage: str = "initial") -> StageStarted:
    asks: Literal["all", "first"] = "first" if stage == "synthesis" else "all"
    return StageStarted(run_id="run", seq=0, time=0.0, stage=stage, models=names, asks=asks)


def model_started(name: str, stage: str = "initial", *, sample: int = 0) -> ModelStarted:
    return ModelStarted(run_id="run", seq=0, time=0.0, stage=stage, model_name=name, sample=sample)


def stage_completed(*names: str, stage: str = "initial") -> StageCompleted:
    return StageCompleted(run_id="run", seq=0, time=0.0, stage=stage, answered=names, failed=())


def chunk(name: str, text: str, *, stage: str = "initial", restart: bool = False) -> Event:
    return Chunk(run_id="run", seq=0, time=0.0, stage=stage, model_name=name, text=text, restart=restart)


def stage_of(*names: str, stage: str = "initial") -> StepPanes:
    """A stage that has asked these models."""
    panes = StepPanes(stage_started(*names, stage=stage))
    for name in names:
        panes.apply(model_started(name, stage))
    return panes


def answered(name: str, text: str, stage: str = "initial") -> Event:
    response = ModelResponse(model_name=name, stage=stage, content=text, response_time=1.25)
    return ModelResponded(run_id="run", seq=0, time=0.0, stage=stage, model_name=name, response=response)


def failed(name: str, message: str) -> Event:
    failure = ModelFailure(model_name=name, stage="initial", message=message, error="ModelError")
    return ModelFailed(run_id="run", seq=0, time=0.0, stage="initial", model_name=name, failure=failure)


def retrying(name: str, message: str, *, at: float, wait: float) -> Event:
    return ModelRetrying(
        run_id="run",
        seq=0,
        time=at,
        stage="initial",
        model_name=name,
        attempt=1,
        wait=wait,
        kind="rate_limit",
        message=message,
    )


def lines(width: int, stage: StepPanes, *, height: int = 30, now: float | None = None) -> list[str]:
    drawing = console(width, height)
    columns = Columns(drawing)
    with drawing.capture() as capture:
        drawing.print(columns.settled(stage) if now is None else columns.moving(stage, now))
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", capture.get()).splitlines()]


@pytest.mark.parametrize(("width", "rows"), [(140, 1), (80, 1), (60, 2), (50, 3), (20, 3)])
def test_models_stand_side_by_side_where_there_is_room_and_else_below_each_other(
    width: int, rows: int
) -> None:
    heads = [line for line in lines(width, stage_of(*NAMES)) if "○" in line]

    assert len(heads) == rows
    assert "".join(heads).count("○") == 3


@pytest.mark.parametrize(("models", "rows"), [(4, [2, 2]), (5, [3, 2]), (7, [3, 3, 1])])
def test_more_models_than_fit_in_a_row_are_spread_over_rows(models: int, rows: list[int]) -> None:
    names = [f"model-{number}" for number in range(models)]

    heads = [line.count("○") for line in lines(80, stage_of(*names)) if "○" in line]

    assert heads == rows


@pytest.mark.parametrize("width", [20, 50, 80, 140])
def test_no_line_is_longer_than_the_terminal(width: int) -> None:
    stage = stage_of(*NAMES, "a-model-with-a-name-that-is-longer-than-any-column-could-ever-be")
    for name in NAMES:
        stage.apply(chunk(name, "word " * 50 + "unbreakable" * 20 + "\n漢字" * 30))

    assert max(map(len, lines(width, stage, now=1.0))) <= width


def test_what_moves_fits_the_terminal_and_shows_the_ends_of_the_texts() -> None:
    stage = stage_of(*NAMES)
    for name in NAMES:
        stage.apply(chunk(name, "\n".join(f"{name} {number}" for number in range(1000))))

    moving = lines(50, stage, height=24, now=1.0)

    assert len(moving) < 24
    assert all(f"{name} 999" in moving for name in NAMES)


def test_what_has_settled_is_there_in_full() -> None:
    stage = stage_of("careful")
    stage.apply(answered("careful", "\n".join(f"line {number}" for number in range(1000))))

    assert [line for line in lines(80, stage, height=24) if line.startswith("line")] == [
        f"line {number}" for number in range(1000)
    ]


def test_a_restart_begins_the_text_anew() -> None:
    stage = stage_of("careful")
    stage.apply(chunk("careful", "The wrong"))
    stage.apply(chunk("careful", "The right", restart=True))

    assert [pane.text for pane in stage] == ["The right"]


def thinks(name: str, words: str, *, restart: bool = False) -> Event:
    part = ReasoningPart(words)
    return ReasoningChunk(stage="initial", model_name=name, part=part, restart=restart)


def test_a_model_that_thinks_has_one_line_with_its_last_words() -> None:
    stage = stage_of("careful")
    stage.apply(thinks("careful", "First this. " * 100))
    stage.apply(thinks("careful", "Then\nthat."))
    _, line = lines(60, stage, now=1.0)
    assert line.startswith("thinks: ")
    assert line.rstrip().endswith("Then that.")
    stage.apply(thinks("careful", "Anew.", restart=True))
    assert lines(60, stage, now=1.0)[1].rstrip() == "thinks: Anew."
    stage.apply(chunk("careful", "It is 4."))
    stage.apply(thinks("careful", "And more."))
    assert lines(60, stage, now=1.0)[1].rstrip() == "It is 4."


def test_what_a_model_thought_stays_above_its_answer_where_it_is_shown() -> None:
    stage = stage_of("careful", "bold")
    event = answered("careful", "Paris.")
    assert isinstance(event, ModelResponded)
    thought = replace(event.response, reasoning_parts=(ReasoningPart("France, so Paris."),))
    stage.apply(replace(event, response=thought))
    stage.apply(answered("bold", "Paris."))
    for reasoning in (False, True):
        target = console(60)
        with target.capture() as capture:
            target.print(Columns(target, reasoning=reasoning).settled(stage))
        rows = [row.rstrip() for row in capture.get().splitlines()]
        assert ("France, so Paris." in capture.get()) == reasoning
        assert rows[-1].split() == (["Paris."] if reasoning else ["Paris.", "Paris."])


def test_reasoning_after_a_retry_takes_the_place_of_the_error() -> None:
    stage = stage_of("careful")
    stage.apply(thinks("careful", "Wrong."))
    stage.apply(retrying("careful", "busy", at=1.0, wait=2.0))
    assert "busy" in lines(60, stage, now=1.5)[1]
    stage.apply(thinks("careful", "Right."))
    assert lines(60, stage, now=4.0)[1].rstrip() == "thinks: Right."


def test_the_line_below_says_who_thinks_and_who_writes() -> None:
    line = WaitingLine()
    line.apply(stage_started("careful", "concise"))
    for name in ("careful", "concise"):
        line.apply(model_started(name))
        line.apply(thinks(name, "Hm."))
    line.apply(chunk("concise", "4"))
    line.apply(thinks("concise", "Hm."))
    assert "careful (thinks) and concise (writes)" in line.text(1.0, 100)


def test_markup_and_control_characters_of_a_model_change_nothing_on_the_terminal() -> None:
    stage = stage_of("careful")
    stage.apply(answered("careful", "[bold]no[/bold] :smile: \x1b[2J\x9b2J https://example.org"))

    assert lines(100, stage)[1] == "[bold]no[/bold] :smile: ␛[2J\ufffd2J https://example.org"


def test_markdown_keeps_every_sign_in_columns() -> None:
    text = "# Title\n**strong** `code` 2*3*4 __init__ <b> \\[x\\]\n```python\nprint('[red]')\n```"
    stage = stage_of("careful", "concise")
    stage.apply(answered("careful", text))

    assert [line.rstrip() for line in lines(200, stage)[1:]] == text.splitlines()


def test_a_failure_is_shown_in_the_place_of_what_was_streamed() -> None:
    stage = stage_of("careful")
    stage.apply(chunk("careful", "The capital"))
    stage.apply(failed("careful", "All attempts\nfailed"))

    head, body = lines(80, stage)
    assert head.startswith("✗ careful")
    assert head.endswith("failed")
    assert body == "All attempts failed"


def test_a_retry_is_shown_with_its_reason_and_the_time_until_it_begins() -> None:
    stage = stage_of("careful")
    stage.apply(chunk("careful", "The capital"))
    stage.apply(retrying("careful", "too many\nrequests", at=1.0, wait=4.0))

    head, body = lines(80, stage, now=2.0)
    assert head.endswith("retry in 3.0 s")
    assert body == "too many requests"

    assert lines(80, stage, now=6.0)[0].endswith("attempt 2, 6.0 s")
    stage.apply(chunk("careful", "Par", restart=True))
    stage.apply(chunk("careful", "is"))
    head, body = lines(80, stage, now=7.0)
    assert head.endswith("attempt 2, 7.0 s")
    assert body == "Paris"


def test_the_first_text_after_a_retry_takes_the_place_of_the_error() -> None:
    stage = stage_of("careful")
    stage.apply(retrying("careful", "too many requests", at=1.0, wait=4.0))
    stage.apply(chunk("careful", "Paris"))

    assert [pane.text for pane in stage] == ["Paris"]


def test_a_terminal_without_unicode_gets_none() -> None:
    stage = stage_of(*NAMES)
    drawing = console(80, encoding="ascii")
    with drawing.capture() as capture:
        drawing.print(Columns(drawing).settled(stage))

    assert capture.get().isascii()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def result_of(**fields: object) -> OrchestrationResult:
    answer = ModelResponse(
        model_name="careful", stage="initial", content="Paris.", usage=Usage(output=3), response_time=1.25
    )
    made: dict[str, object] = {
        "run_id": "run",
        "prompt": "?",
        "steps": [Step(name="initial", responses=(answer,))],
        "metrics": {"careful": ModelMetrics()},
        "response_time": 1.5,
    }
    return OrchestrationResult(**(made | fields))  # type: ignore[arg-type]


def test_a_run_leaves_its_stages_on_the_terminal_once_and_the_cursor_visible() -> None:
    drawing = console(80)
    with drawing.capture() as capture:
        with LiveView(drawing, clock=Clock()) as view:
            view.show(stage_started("careful"))
            view.show(model_started("careful"))
            view.refresh()
            view.show(answered("careful", "Paris."))
            view.show(stage_completed("careful"))
            view.refresh()
        view.conclude(result_of())

    shown = capture.get()
    assert shown.count("Paris.") == 1
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "Done in 1.5 s" in shown


def test_samples_of_one_model_have_panes_of_their_own() -> None:
    step = StepPanes(stage_started("careful"))
    for sample, text in enumerate(("Paris.", "Lyon.")):
        step.apply(model_started("careful", sample=sample))
        step.apply(Chunk(stage="initial", model_name="careful", sample=sample, text=text))

    assert [(pane.name, pane.text) for pane in step] == [("careful", "Paris."), ("careful#1", "Lyon.")]


def test_a_model_that_fails_before_it_is_asked_has_a_pane() -> None:
    step = StepPanes(stage_started("careful"))

    step.apply(failed("careful", "its window is too small"))

    assert lines(80, step)[1] == "its window is too small"


def test_a_step_of_any_name_has_its_name_and_its_round_as_a_title() -> None:
    drawing = console(80)
    with drawing.capture() as capture, LiveView(drawing, clock=Clock()) as view:
        for number in range(2):
            view.show(StageStarted(stage="two\nlines", round=number, models=("careful",), asks="all"))
            view.show(StageCompleted(stage="two\nlines", round=number, answered=(), failed=()))

    titles = [line for line in capture.get().splitlines() if "two lines" in line]
    assert len(titles) == 2
    assert "round" not in titles[0]
    assert "two lines, round 2" in titles[1]


def test_a_run_that_starts_again_leaves_the_step_that_a_crash_has_ended() -> None:
    drawing = console(80)
    with drawing.capture() as capture, LiveView(drawing, clock=Clock()) as view:
        for text in ("The capital", "Paris."):
            view.show(stage_started("careful"))
            view.show(model_started("careful"))
            view.show(chunk("careful", text))

    shown = capture.get()
    assert shown.index("The capital") < shown.index("Paris.")
    assert shown.count("Answers") == 2


@pytest.mark.parametrize(
    ("width", "head", "line"),
    [
        (60, "model                 time   tokens   calls   agreement",
         "a-long-name-indeed   0.0 s        -       1        1.00"),
        (46, "model              time tokens calls agreement",
         "a-long-name-inde… 0.0 s      -     1      1.00"),
        (42, "model          time tokens calls agreement",
         "a-long-name-… 0.0 s      -     1      1.00"),
        (30, "model              time tokens",
         "a-long-name-inde… 0.0 s      -"),
        (20, "model           time",
         "a-long-name-i… 0.0 s"),
    ],
)  # fmt: skip
def test_the_table_of_models_fits_a_narrow_terminal(width: int, head: str, line: str) -> None:
    answer = ModelResponse(model_name="a-long-name-indeed", stage="initial", content="x", quality=1.0)
    target = console(width)
    with target.capture() as capture, LiveView(target, clock=lambda: 0.0) as view:
        view.conclude(
            replace(
                result_of(),
                steps=[Step(name="initial", responses=(answer,))],
                metrics={"a-long-name-indeed": ModelMetrics()},
                final_synthesis=answer,
                quality_basis="votes",
            )
        )

    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", capture.get()).splitlines()
    start = next(number for number, row in enumerate(shown) if row.startswith("model "))
    assert [row.rstrip() for row in shown[start : start + 2]] == [head, line]
    assert all(len(row) <= width for row in shown)


def test_an_answer_that_the_strategy_selected_is_shown_with_its_confidence() -> None:
    answers = tuple(
        ModelResponse(model_name=name, stage="initial", content=text)
        for name, text in (("careful", "Paris."), ("concise", "Lyon."))
    )
    result = result_of(
        steps=[Step(name="initial", responses=answers)],
        final_synthesis=answers[0],
        synthesis_source="selected",
        confidence=0.75,
    )
    drawing = console(80)
    with drawing.capture() as capture:
        LiveView(drawing, clock=Clock()).conclude(result)

    shown = re.sub(r"\x1b\[[\d;]*m", "", capture.get())
    assert "The answer, by careful" in shown
    assert "Paris." in shown
    assert "Done in 1.5 s, cost unknown for careful, concise, confidence 0.75" in shown


def test_a_run_that_breaks_off_leaves_what_it_had_and_the_cursor_visible() -> None:
    drawing = console(80)

    def break_off() -> None:
        with LiveView(drawing, clock=Clock()) as view:
            view.show(stage_started("careful"))
            view.show(model_started("careful"))
            view.show(chunk("careful", "The capital of"))
            raise KeyboardInterrupt

    with drawing.capture() as capture, pytest.raises(KeyboardInterrupt):
        break_off()

    shown = capture.get()
    assert re.search(r"careful.*stopped", shown)
    assert "The capital of" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_degraded_answer_says_so_and_why() -> None:
    failure = ModelFailure(model_name="creative", stage="initial", message="it\nbroke", error="ModelError")
    drawing = console(80)
    with drawing.capture() as capture:
        LiveView(drawing, clock=Clock()).conclude(result_of(status="degraded", failures=[failure]))

    shown = capture.get()
    assert "Degraded answer, in 1.5 s" in shown
    assert "initial: it broke" in shown


def test_samples_of_one_model_have_columns_of_their_own() -> None:
    panes = StepPanes(stage_started("careful"))
    for sample, text in enumerate(("Paris.", "Rome.")):
        panes.apply(ModelStarted(stage="initial", model_name="careful", sample=sample))
        panes.apply(Chunk(stage="initial", model_name="careful", sample=sample, text=text))
    drawing = console(80)
    with drawing.capture() as capture:
        drawing.print(Columns(drawing).settled(panes))

    shown = capture.get()
    assert re.search(r"careful.*careful#1", shown)
    assert re.search(r"Paris\. .*Rome\.", shown)


def test_an_answer_that_was_cut_off_is_shown_as_such() -> None:
    cut = ModelResponse(model_name="careful", stage="initial", content="The first", finish_reason="length")
    event = ModelResponded(stage="initial", model_name="careful", response=cut)
    drawing = console(80)
    with drawing.capture() as capture:
        view = LiveView(drawing, clock=Clock())
        with view:
            begin, end = stage_started("careful"), stage_completed("careful")
            for each in (begin, model_started("careful"), event, end):
                view.show(each)
        view.conclude(result_of(steps=[], final_synthesis=cut))

    shown = re.sub(r"\x1b\[[\d;]*m", "", capture.get())
    assert "cut off, 0.0 s" in shown
    assert "The answer, by careful, cut off" in shown
