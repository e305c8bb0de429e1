"""A live display that stays right when the terminal is made narrower or wider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.live import Live
from rich.segment import Segment

from ultra.cli.wrapping import lines_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["ResizedLive"]


class ResizedLive(Live):
    """Knows the lengths of the lines that it has drawn.

    Most terminals wrap lines when they are made narrower, and the display has more lines then than were
    drawn; rich would go up too few, and leave the upper ones standing.
    """

    def draw(self, renderable: RenderableType) -> None:
        """Draw `renderable` in place of what was drawn before."""
        console, shape = self.console, self._live_render._shape  # noqa: SLF001 - rich has no other way
        width = console.width
        if shape is not None and self._drawn and width < shape[0]:
            lines = lines_taken(self._drawn, width)
            # Of what has left the screen at its top nothing can be erased.
            self._live_render._shape = (width, min(lines, console.height))  # noqa: SLF001 - as above
        rendered = console.render_lines(renderable, console.options.update_width(width), pad=False)
        # Without the spaces at their ends, of which terminals do not agree whether they are wrapped.
        shown = [_stripped(line) for line in rendered[: console.height]]
        self._drawn = [sum(segment.cell_length for segment in line) for line in shown]
        self.update(_Lines(shown), refresh=True)
        if self._live_render._shape is not None:  # noqa: SLF001 - as above
            self._live_render._shape = (width, self._live_render._shape[1])  # noqa: SLF001 - as above

    _drawn: list[int] = []  # noqa: RUF012 - replaced, never changed


class _Lines:
    """Lines that were rendered."""

    def __init__(self, lines: Sequence[Sequence[Segment]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for number, line in enumerate(self._lines):
            if number:
                yield Segment.line()
            yield from line


def _stripped(line: Sequence[Segment]) -> list[Segment]:
    """Return the segments of a line without the spaces at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip(" "):
        kept.pop()
    if kept:
        last = kept[-1]
        kept[-1] = Segment(last.text.rstrip(" "), last.style)
    return kept
