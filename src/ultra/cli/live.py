"""A run on a terminal: the answers of a stage side by side, while they are being written."""

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
from ultra.cli.keyboard import silent_keyboard
from ultra.cli.panes import StagePanes
from ultra.cli.report import HEADINGS, STAGE_TITLES, cost, degradations, model_lines, seconds
from ultra.cli.text import block, one_line
from ultra.messages.events import Event, StageCompleted, StageStarted

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

    from ultra.messages.results import OrchestrationResult

__all__ = ["LiveView"]


class LiveView:
    """Draws the current stage over and over, and once more in full when it is over.

    Before that it takes no more lines than the terminal has. What stands above the current stage is
    never touched again, so it can be scrolled.
    """

    interval: float = 1 / 12

    def __init__(self, console: Console, *, clock: Callable[[], float] = trio.current_time) -> None:
        self._console = console
        self._clock = clock
        self._columns = Columns(console)
        self._stage: StagePanes | None = None
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
        """Take notice of `event`; what it changes is drawn by the next `refresh`."""
        match event:
            case StageStarted():
                self._begin(StagePanes(event))
            case StageCompleted():
                self._settle()
            case _ if self._stage is not None:
                self._stage.apply(event)
            case _:
                pass

    def refresh(self) -> None:
        """Draw the current stage as it is now."""
        if self._stage is not None and self._live is not None:
            now = self._clock() - self._began
            self._live.update(self._columns.moving(self._stage, now), refresh=True)

    def conclude(self, result: OrchestrationResult) -> None:
        """Draw a line for each model; say whether the answer is degraded, and its cost if that is known."""
        best = result.final_synthesis
        if result.synthesis_source == "best_candidate" and best is not None:
            self._head(f"The best answer, by {one_line(best.model_name)}")
            self._console.print(self._columns.prose(block(best.content)))
        self._head("Models")
        self._console.print(_table(result))
        self._console.print()
        amount = cost(result)
        reasons = degradations(result)
        spent = seconds(result.response_time) + (f" for {one_line(amount)}" if amount is not None else "")
        if result.status == "degraded":
            self._console.print(Text(f"Degraded answer, in {spent}", style="bold yellow"))
        else:
            self._console.print(Text(f"Done in {spent}", style="green"))
        for reason in reasons:
            self._console.print(Padding(Text(one_line(reason), style="dim"), (0, 0, 0, 2)))

    def _begin(self, stage: StagePanes) -> None:
        self._stage = stage
        self._head(STAGE_TITLES.get(stage.name, stage.name))
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
        """Put the stage, as it is, in the place of its live display."""
        stage, self._stage = self._stage, None
        live, self._live = self._live, None
        if live is not None:
            live.update(Text())
            live.stop()
        if stage is not None:
            self._console.print(self._columns.settled(stage))

    def _head(self, title: str) -> None:
        self._console.print()
        self._console.print(Rule(Text(title, style="bold"), align="left", style="dim"))


def _table(result: OrchestrationResult) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for line in model_lines(result):
        table.add_row(*(Text(one_line(cell)) for cell in line.cells), style="red" if line.failed else None)
    return table
