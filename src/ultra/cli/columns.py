"""Lays the texts of several models out side by side, or below each other where there is no room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ultra.cli.report import seconds
from ultra.cli.text import block, one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from ultra.cli.panes import Pane, StagePanes

__all__ = ["Columns"]

NARROWEST: Final = 24
"""The fewest cells that a column is readable with: three fit in a terminal of 80."""

WIDEST: Final = 100
"""The most cells that a line of text is comfortable to read with."""

GAP: Final = 3

FEWEST_LINES: Final = 3

ACCENTS: Final = ("cyan", "magenta", "yellow", "blue", "green")

# What makes Markdown easy to read, without its signs being taken away: what one sees is the answer.
_MARKDOWN: Final = (
    (r"(?m)^#{1,6} .+$", "bold"),
    (r"\*\*[^*\n]+\*\*", "bold"),
    (r"`[^`\n]+`", "cyan"),
    (r"(?ms)^```.*?(?:^```|\Z)", "cyan"),
)


class Columns:
    """Draws stages for one console; each model keeps its colour over all of them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._accents: dict[str, str] = {}
        ascii_only = not console.encoding.startswith("utf")
        self._spinner, self._done, self._failed, self._stopped = (
            ("|/-\\", "*", "x", "o") if ascii_only else ("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "●", "✗", "○")
        )

    def moving(self, stage: StagePanes, now: float) -> RenderableType:
        """Draw the stage `now` seconds into the run: the ends of the texts, as the terminal has lines."""
        return self._draw(stage, now)

    def settled(self, stage: StagePanes) -> RenderableType:
        """Draw the stage in full, as it will stay."""
        return self._draw(stage, None)

    def prose(self, text: str) -> Text:
        """Wrap `text` over the whole width, and style what looks like Markdown."""
        lines = _styled(text).wrap(self._console, min(self._console.width, WIDEST))
        return Text("\n").join(lines)

    def _draw(self, stage: StagePanes, now: float | None) -> RenderableType:
        panes = list(stage)
        most = 1 if stage.asks == "first" else max(1, (self._console.width + GAP) // (NARROWEST + GAP))
        rows = max(1, -(-len(panes) // most))
        in_row = max(1, -(-len(panes) // rows))  # five panes where four fit are three and two
        width = min((self._console.width + GAP) // in_row - GAP, WIDEST)
        # Of each row's share, its head and the blank line above the next row are taken already.
        lines = None if now is None else max(FEWEST_LINES, (self._console.height - 2) // rows - 2)
        drawn: list[RenderableType] = []
        for start in range(0, len(panes), in_row):
            cells = [self._cell(pane, width, lines, now) for pane in panes[start : start + in_row]]
            drawn += [Text(), _row(cells, width)] if drawn else [_row(cells, width)]
        return Group(*drawn)

    def _cell(self, pane: Pane, width: int, lines: int | None, now: float | None) -> RenderableType:
        text = block(pane.tail(None if lines is None else lines * width))
        match pane.state:
            case "failed":
                body = Text(one_line(text), "red")
            case "retrying":
                body = Text(one_line(text), "yellow")
            case _:
                body = _styled(text)
        wrapped = body.wrap(self._console, width)
        return Group(
            self._head(pane, width, now), Text("\n").join(wrapped if lines is None else wrapped[-lines:])
        )

    def _head(self, pane: Pane, width: int, now: float | None) -> Text:
        accent = self._accents.setdefault(pane.model_name, ACCENTS[len(self._accents) % len(ACCENTS)])
        match pane.state:
            case "answered":
                sign, status = self._done, seconds(pane.response_time or 0)
            case "failed":
                sign, accent, status = self._failed, "red", "failed"
            case _ if now is None:
                sign, status = self._stopped, "stopped"
            case _:
                sign, status = self._spinner[int(now * 12) % len(self._spinner)], _progress(pane, now)
        head = Text.assemble((f"{sign} ", accent), (one_line(pane.model_name), "bold"))
        head.truncate(width - len(status) - 1, overflow="ellipsis", pad=True)
        return head.append(f" {status}", "dim")


def _progress(pane: Pane, now: float) -> str:
    """How long the model has been at work; between two attempts, how long until the next."""
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
