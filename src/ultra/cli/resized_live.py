"""A live display that stays right when the terminal is made narrower or wider."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.live import Live

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["ResizedLive"]


class ResizedLive(Live):
    """Knows the lengths of the lines that it has drawn.

    A terminal that is made narrower wraps them, and the display has more lines then than were drawn; rich
    would go up too few, and leave the upper ones standing.
    """

    def draw(self, renderable: RenderableType) -> None:
        """Draw `renderable` in place of what was drawn before."""
        console, shape = self.console, self._live_render._shape  # noqa: SLF001 - rich has no other way
        width = console.width
        if shape is not None and self._drawn and width < shape[0]:
            lines = sum(max(1, -(-length // width)) for length in self._drawn)
            # Of what has left the screen at its top nothing can be erased.
            self._live_render._shape = (width, min(lines, console.height))  # noqa: SLF001 - as above
        rendered = console.render_lines(renderable, console.options.update_width(width), pad=False)
        self._drawn = [sum(segment.cell_length for segment in line) for line in rendered[: console.height]]
        self.update(renderable, refresh=True)
        if self._live_render._shape is not None:  # noqa: SLF001 - as above
            self._live_render._shape = (width, self._live_render._shape[1])  # noqa: SLF001 - as above

    _drawn: list[int] = []  # noqa: RUF012 - replaced, never changed
