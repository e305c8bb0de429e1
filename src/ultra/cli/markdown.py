"""Draws the Markdown of an answer: nothing that a model wrote is hidden, or has an effect on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from markdown_it import MarkdownIt
from markdown_it.rules_inline import emphasis, escape
from rich.markdown import Heading, Markdown
from rich.padding import Padding
from rich.text import Text

from ultra.cli.printable_text import block

if TYPE_CHECKING:
    from collections.abc import Iterable

    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType, RenderResult
    from rich.markdown import MarkdownElement

__all__ = ["drawn_markdown"]

_LONGEST: Final = 200_000
"""Characters; a longer text is shown as it is."""

_ESCAPED: Final = "*_`#~|\n"
"""Signs before which a backslash is one of Markdown's."""

_WIDEST: Final = 100
"""Cells; longer lines are hard to read."""


def drawn_markdown(text: str, console: Console) -> RenderableType:
    """Return what draws `text` on a console.

    HTML and images are shown as they were written, the address of a link stands behind its words, and lines
    end where the model ended them.
    """
    text = block(text)
    if len(text) > _LONGEST:
        return Text(text)
    return _Limited(_Answer(text), min(console.width, _WIDEST))


class _Limited:
    """A renderable in at most so many cells."""

    def __init__(self, inner: RenderableType, width: int) -> None:
        self._inner = inner
        self._width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._inner, options.update_width(min(self._width, options.max_width)))


class _LeftHeading(Heading):
    """A heading at the left, with an empty line before it."""

    LEVEL_ALIGN: ClassVar[dict[str, JustifyMethod]] = {}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        text = self.text.copy()
        text.stylize("bold")
        yield Padding(text, 0)


class _Answer(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme="ansi_dark", hyperlinks=False)
        # Without HTML: rich leaves it out, and with it what people write as `list<int>` or <thinking>.
        parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
        parser.disable(["image", "entity"])
        parser.inline.ruler.at("emphasis", _emphasis)
        parser.inline.ruler.at("escape", _escape)
        self.markup = text
        self.parsed = _with_line_ends(parser.parse(text))


def _emphasis(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the parser's interface
    """Take no stars between letters or numbers, as in 2*3*4, and no double underscores, as in __init__."""
    text, sign = state.src, state.src[state.pos]
    start, end = state.pos, state.pos
    while start > 0 and text[start - 1] == sign:
        start -= 1
    while end < len(text) and text[end] == sign:
        end += 1
    if sign == "_" and end - start > 1:
        return False
    inside = start > 0 and text[start - 1].isalnum() and end < len(text) and text[end].isalnum()
    return not inside and emphasis.tokenize(state, silent)


def _escape(state: StateInline, silent: bool) -> bool:  # noqa: FBT001 - the parser's interface
    """Leave the backslash of formulas, before a bracket; Markdown would take it away."""
    following = state.src[state.pos + 1 : state.pos + 2]
    return following in _ESCAPED and escape(state, silent)


def _with_line_ends(tokens: Iterable[Token]) -> list[Token]:
    """Return the tokens with each end of a line as it was written; Markdown joins lines to paragraphs."""
    kept = list(tokens)
    for token in kept:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type, child.tag = "hardbreak", "br"
    return kept
