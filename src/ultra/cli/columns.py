"""Draws the answers of a step in columns, or below each other on a narrow terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ultra.cli.markdown import drawn_markdown
from ultra.cli.printable_text import block, one_line
from ultra.cli.report import CUT_OFF, seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from ultra.cli.panes import Pane, StepPanes

__all__ = ["Columns"]

NARROWEST: Final = 24
"""Cells; narrower columns are hard to read. Three columns fit in a terminal of 80 cells."""

WIDEST: Final = 100
"""Cells; longer lines are hard to read."""

GAP: Final = 3

FEWEST_LINES: Final = 3

_THINKS: Final = "thinks:"

ACCENTS: Final = ("cyan", "magenta", "yellow", "blue", "green")

# Styles of Markdown. Its signs stay, so that the text shown is the text of the answer.
_MARKDOWN: Final = (
    (r"(?m)^#{1,6} .+$", "bold"),
    (r"\*\*[^*\n]+\*\*", "bold"),
    (r"`[^`\n]+`", "cyan"),
    (r"(?ms)^```.*?(?:^```|\Z)", "cyan"),
)


class Columns:
    """Draws steps on one console; each model has the same colour in all of them.

    `reasoning`: above a whole answer stands what the model thought before.
    """

    def __init__(self, console: Console, *, reasoning: bool = False) -> None:
        self._console = console
        self._reasoning = reasoning
        self._accents: dict[str, str] = {}
        ascii_only = not console.encoding.startswith("utf")
        self._spinner, self._done, self._failed, self._stopped = (
            ("|/-\\", "*", "x", "o") if ascii_only else ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "●", "✗", "○")
        )

    def moving(self, step: StepPanes, now: float) -> RenderableType:
        """Draw the step `now` seconds after the beginning of the run: the ends of the texts that fit."""
        return self._draw(step, now)

    def settled(self, step: StepPanes) -> RenderableType:
        """Draw the step in full, as it stays on the terminal."""
        return self._draw(step, None)

    def _draw(self, step: StepPanes, now: float | None) -> RenderableType:
        panes = list(step)
        most = 1 if step.asks == "first" else max(1, (self._console.width + GAP) // (NARROWEST + GAP))
        rows = max(1, -(-len(panes) // most))
        in_row = max(1, -(-len(panes) // rows))  # of five panes where four fit, three and two
        width = min((self._console.width + GAP) // in_row - GAP, WIDEST)
        # Each row has a head, and a blank line before the next row. Above all stands the title of the step,
        # behind an empty line, and below all the line of what is awaited.
        lines = None if now is None else max(FEWEST_LINES, (self._console.height - 5) // rows - 2)
        drawn: list[RenderableType] = []
        for start in range(0, len(panes), in_row):
            cells = [
                self._cell(pane, width, lines, now, alone=len(panes) == 1)
                for pane in panes[start : start + in_row]
            ]
            drawn += [Text(), _row(cells, width)] if drawn else [_row(cells, width)]
        return Group(*drawn)

    def _cell(
        self, pane: Pane, width: int, lines: int | None, now: float | None, *, alone: bool
    ) -> RenderableType:
        text = block(pane.tail(None if lines is None else lines * width))
        match pane.state:
            case "failed":
                body = Text(one_line(text), "red")
            case "retrying":
                body = Text(one_line(text), "yellow")
            case "thinking":
                body = Text(_thinks(pane, width), "dim")
            case _:
                body = _styled(text)
        parts: list[RenderableType] = [self._head(pane, width, now)]
        if lines is None and self._reasoning and pane.reasoning:
            parts += [Text(block(pane.reasoning), "dim italic"), Text()]
        if lines is None and alone and pane.state == "answered":
            return Group(*parts, drawn_markdown(text, self._console))
        wrapped = body.wrap(self._console, width)
        return Group(*parts, Text("\n").join(wrapped if lines is None else wrapped[-lines:]))

    def _head(self, pane: Pane, width: int, now: float | None) -> Text:
        accent = self._accents.setdefault(pane.model_name, ACCENTS[len(self._accents) % len(ACCENTS)])
        match pane.state:
            case "answered":
                cut = f"{CUT_OFF}, " if pane.is_cut else ""
                sign, status = self._done, f"{cut}{seconds(pane.response_time or 0)}"
            case "failed":
                sign, accent, status = self._failed, "red", "failed"
            case _ if now is None:
                sign, status = self._stopped, "stopped"
            case _:
                sign, status = self._spinner[int(now * 12) % len(self._spinner)], _progress(pane, now)
        head = Text.assemble((f"{sign} ", accent), (one_line(pane.name), "bold"))
        head.truncate(width - len(status) - 1, overflow="ellipsis", pad=True)
        return head.append(f" {status}", "dim")


def _thinks(pane: Pane, width: int) -> str:
    """Return one line with the last words of what the model thinks."""
    room = width - len(_THINKS) - 1
    words = one_line(pane.thought)
    return f"{_THINKS} {words if len(words) <= room else words[-room:]}"


def _progress(pane: Pane, now: float) -> str:
    """Return the seconds since the model was asked or, between two attempts, until the next one."""
    if pane.state == "retrying" and now < pane.retry_at:
        return f"retry in {seconds(pane.retry_at - now)}"
    elapsed = seconds(now - pane.started)
    return elapsed if pane.attempt == 1 else f"attempt {pane.attempt}, {elapsed}"


def _row(cells: Sequence[RenderableType], width: int) -> Table:
    row = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for _ in cells:
        row.add_column(width=width)
    row.add_row(*cells)
    return row


def _styled(text: str) -> Text:
    styled = Text(text)
    for pattern, style in _MARKDOWN:
        styled.highlight_regex(pattern, style)
    return styled
