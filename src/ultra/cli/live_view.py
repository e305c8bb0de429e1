"""The view of a run on a terminal: the answers of a step side by side, while they are written."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import trio
from rich.live import Live
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ultra.cli.columns import Columns
from ultra.cli.panes import StepPanes
from ultra.cli.printable_text import block, one_line
from ultra.cli.report import (
    CUT_OFF,
    answer_name,
    answer_text,
    confidence,
    cost,
    degradations,
    headings,
    model_lines,
    seconds,
    step_title,
    unshown_answer,
)
from ultra.cli.terminal import silent_keyboard
from ultra.messages.events import Event, StageCompleted, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

    from ultra.messages.results import OrchestrationResult

__all__ = ["LiveView"]


class LiveView:
    """Draws the current step repeatedly, in at most as many lines as the terminal has; at its end, in full.

    The steps before it are not drawn again, so the user can scroll.
    """

    interval: float = 1 / 12

    def __init__(self, console: Console, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._console = console
        self._clock = clock
        self._columns = Columns(console)
        self._step: StepPanes | None = None
        self._live: Live | None = None
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
            self._live.update(self._columns.moving(self._step, now), refresh=True)

    def conclude(self, result: OrchestrationResult) -> None:
        """Draw the answer, unless the last step has shown it, a line for each model, and how the run went."""
        answer = unshown_answer(result)
        if answer is not None:
            best = "best answer" if result.synthesis_source == "best_candidate" else "answer"
            cut = "" if answer.is_whole else f", {CUT_OFF}"
            self._head(f"The {best}, by {one_line(answer_name(answer))}{cut}")
            self._console.print(self._columns.prose(block(answer_text(answer))))
        self._head("Models")
        self._console.print(_table(result))
        self._console.print()
        amount = cost(result)
        reasons = degradations(result)
        spent = seconds(result.response_time) + (f" for {one_line(amount)}" if amount is not None else "")
        if (sure := confidence(result)) is not None:
            spent += f", confidence {sure}"
        if result.status == "degraded":
            self._console.print(Text(f"Degraded answer, in {spent}", style="bold yellow"))
        else:
            self._console.print(Text(f"Done in {spent}", style="green"))
        for reason in reasons:
            self._console.print(Padding(Text(one_line(reason), style="dim"), (0, 0, 0, 2)))

    def _begin(self, step: StepPanes) -> None:
        self._step = step
        self._head(step_title(step.name, step.round))
        # Logs that go to the same terminal are printed above; those that go to a file stay there.
        to_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._live = Live(
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
            live.update(Text())
            live.stop()
        if step is not None:
            self._console.print(self._columns.settled(step))

    def _head(self, title: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left", style="dim"))


def _table(result: OrchestrationResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for number, heading in enumerate(headings(result)):
        table.add_column(heading, justify="right" if number else "left")
    for line in model_lines(result):
        table.add_row(*(Text(one_line(cell)) for cell in line.cells), style="red" if line.failed else None)
    return table
