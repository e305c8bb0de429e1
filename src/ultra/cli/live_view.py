"""The view of a run on a terminal: the answers of a step side by side, while they are written."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

import trio
from rich.cells import cell_len
from rich.console import Group
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ultra.cli.columns import Columns
from ultra.cli.markdown import drawn_markdown
from ultra.cli.panes import StepPanes
from ultra.cli.printable_text import one_line
from ultra.cli.report import (
    CUT_OFF,
    HIDDEN,
    REASONING,
    answer_name,
    answer_text,
    degradations,
    headings,
    is_hidden,
    model_lines,
    step_title,
    summary,
    unshown_answer,
)
from ultra.cli.resized_live import ResizedLive
from ultra.cli.terminal import silent_keyboard
from ultra.cli.waiting_line import WaitingLine
from ultra.messages.events import Event, StageCompleted, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from rich.console import Console, RenderableType

    from ultra.messages.results import OrchestrationResult

__all__ = ["LiveView"]

_GAP: Final = 3
"""Cells between the columns of the table of models, where there is room."""

_NAME: Final = 12
"""Cells that the name of a model has at least, if it is so long."""


class LiveView:
    """Draws the current step repeatedly, in at most as many lines as the terminal has; at its end, in full.

    The steps before it are not drawn again, so the user can scroll.
    """

    interval: float = 1 / 12

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = trio.current_time,
        shown: Collection[str] = tuple(HIDDEN),
    ) -> None:
        self._console = console
        self._shown = shown
        self._waiting = WaitingLine()
        self._clock = clock
        self._columns = Columns(console, reasoning=REASONING in shown)
        self._step: StepPanes | None = None
        self._live: ResizedLive | None = None
        self._began = 0.0
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        self._began = self._clock()
        self._closing.enter_context(silent_keyboard())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._closing:
            self._settle()

    def show(self, event: Event) -> None:
        """Take one event; what it changes is drawn by the next `refresh`."""
        self._waiting.apply(event)
        match event:
            case StageStarted():
                self._settle()  # of a run that starts again, the step that a crash has ended
                self._begin(StepPanes(event))
            case StageCompleted():
                self._settle()
            case _ if self._step is not None:
                self._step.apply(event)
            case _:
                pass

    def refresh(self) -> None:
        """Draw the current step as it is now."""
        if self._step is not None and self._live is not None:
            now = self._clock() - self._began
            line = Text(self._waiting.text(now, self._console.width - 1), style="dim", no_wrap=True)
            panes: list[RenderableType] = []
            if not self._is_folded(self._step):
                panes = [*_head(_title(self._step)), self._columns.moving(self._step, now)]
            self._live.draw(Group(*panes, line))

    def conclude(self, result: OrchestrationResult) -> None:
        """Draw the answer, unless the last step has shown it, a line for each model, and how the run went."""
        answer = unshown_answer(result)
        if answer is not None:
            best = "best answer" if result.synthesis_source == "best_candidate" else "answer"
            cut = "" if answer.is_whole else f", {CUT_OFF}"
            self._head(f"The {best}, by {one_line(answer_name(answer))}{cut}")
            self._console.print(drawn_markdown(answer_text(answer), self._console))
        self._head("Models")
        self._console.print(_table(result, self._console.width))
        self._console.print()
        for reason in degradations(result):
            self._console.print(Padding(Text(one_line(reason), style="dim"), (0, 0, 0, 2)))
        self._console.print(
            Text(summary(result), style="bold yellow" if result.status == "degraded" else "green")
        )

    def _begin(self, step: StepPanes) -> None:
        self._step = step
        # Logs that go to the same terminal are printed above; those that go to a file stay there.
        to_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._live = ResizedLive(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=to_terminal,
            vertical_overflow="crop",
        )
        self._live.start()

    def _settle(self) -> None:
        """Replace the live display of the step by the step in full."""
        step, self._step = self._step, None
        live, self._live = self._live, None
        if live is not None:
            live.draw(Text())
            live.stop()
        if step is None:
            return
        if self._is_folded(step):
            self._console.print()
            self._console.print(Text(_folded(step), style="dim"))
        else:
            self._head(_title(step))
            self._console.print(self._columns.settled(step))

    def _is_folded(self, step: StepPanes) -> bool:
        return is_hidden(step.name, self._shown)

    def _head(self, title: str) -> None:
        for part in _head(title):
            self._console.print(part)


def _title(step: StepPanes) -> str:
    return step_title(step.name, step.round)


def _head(title: str) -> list[RenderableType]:
    """Return an empty line, and one with a title."""
    return [Text(), Rule(Text(title, style="bold"), align="left", style="dim")]


def _folded(step: StepPanes) -> str:
    """Return the line that stands for a step that is not shown."""
    word = next(word for word, name in HIDDEN.items() if name == step.name)
    done = [one_line(pane.name) for pane in step if pane.state == "answered"]
    by = f" by {', '.join(done)}" if done else ""
    return f"{step_title(step.name, step.round)}{by} (--show {word} shows it)"


def _table(result: OrchestrationResult, width: int) -> Table:
    """Return a line for each model: in a narrow terminal with less space in it, and then fewer columns."""
    names, lines = headings(result), model_lines(result)
    cells = [[one_line(cell) for cell in line.cells] for line in lines]
    longest, *others = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    least = min(longest, _NAME)
    gap = _GAP if least + sum(_GAP + other for other in others) <= width else 1
    while others and least + sum(gap + other for other in others) > width:
        others.pop()
    room = width - sum(gap + other for other in others)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for number, cell in enumerate((min(longest, room), *others)):
        table.add_column(names[number], justify="right" if number else "left", width=cell, no_wrap=True)
    for line, row in zip(lines, cells, strict=True):
        given = (Text(cell) for cell in row[: 1 + len(others)])
        table.add_row(*given, style="red" if line.failed else None)
    return table
