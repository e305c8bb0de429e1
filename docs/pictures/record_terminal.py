"""Writes terminal.svg beside this file: what `ultra ask` shows of a run, from the command to the answer.

    uv run --extra cli docs/pictures/record_terminal.py [FILE]

The run is a real one, through the actors and the view of the command, in virtual time and with scripted
models: so the picture is the same each time. It moves once, by styles alone. Where nothing moves, or a reader
asked for no motion, it shows the last screen. tests/test_recorded_terminal.py holds that it is up to date.
"""

from __future__ import annotations

import io
import re
import sys
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import trio
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import SVG_EXPORT_THEME as THEME
from rich.text import Text

from ultra import ModelError, MultiLLMOrchestrator, Price, Synthesize, Usage
from ultra.cli.history import Asked, History
from ultra.cli.live_view import LiveView
from ultra.cli.logs import configure_logs
from ultra.cli.session import follow
from ultra.config.history import HistoryConfig
from ultra.faults import Simulation, simulate
from ultra.testing import FakeAnswer, FakeModel, ScriptedAnswer

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH, HEIGHT = 100, 30
QUESTION: Final = "Should a small team split its web shop into microservices?"
ADA: Final = (
    "No. Keep one deployable with clear modules. Split off a part when it has to scale, or to be "
    "released, on its own."
)
BEN: Final = (
    "Not yet. Keep one deployable: each service needs its own pipeline, monitoring and on-call. Split "
    "it when there are more than two teams."
)
CLEO: Final = (
    "No. Measure first: a shop of this size is slow in its database, where services do not help. Keep "
    "one deployable until then."
)
TOGETHER: Final = (
    "**No: start with one deployable that has clear modules.** All three advise it: each service costs "
    "a small team a pipeline, monitoring and on-call. Split off a part when it has to scale, or to be "
    "released, on its own.\n\nThey differ in when: ben names a number, *more than two teams*, and ada a "
    "need. The need is the better sign, since teams can share a code base."
)
SCRIPTS: Final[dict[str, list[ScriptedAnswer]]] = {
    "ada": [
        FakeAnswer(ADA, seconds=0.8, piece_seconds=0.09, usage=Usage(input=21, output=34)),
        FakeAnswer(TOGETHER, seconds=0.6, piece_seconds=0.05, usage=Usage(input=242, output=78)),
    ],
    "ben": [FakeAnswer(BEN, seconds=0.5, piece_seconds=0.12, usage=Usage(input=21, output=31))],
    "cleo": [
        ModelError("the server is overloaded", kind="overloaded", retry_after=1.5),
        FakeAnswer(CLEO, seconds=0.4, piece_seconds=0.1, usage=Usage(input=21, output=25)),
    ],
}
DESCRIPTION: Final = (
    "A terminal: ultra ask puts a question to three models. Their answers appear side by side; one "
    "model is overloaded and asked again. Then one answer is written from all three, and a table has "
    "the tokens, calls and agreement of each model."
)
PRICE: Final = Price(input=2.0, output=8.0)
TYPING: Final = 0.035  # seconds for a letter of the command
FRAME: Final = 0.2  # seconds between two screens that are kept, at least

_CELL, _LINE, _MARGIN = 8.4, 19, 16
_FONTS: Final = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace'
_ESCAPE: Final = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")

NO_HISTORY: Final = History(HistoryConfig(enabled=False), by="ask", asked=Asked())


class Screen(NamedTuple):
    """The lines of a terminal, with their colours, `at` a second."""

    at: float
    lines: list[str]


class Shown(NamedTuple):
    """A line of a screen, from the second `since` until `until`; None: to the end."""

    row: int
    text: str
    since: float
    until: float | None


class Recorder(LiveView):
    """The view of the command; it keeps a screen each time that it has drawn one."""

    def __init__(self, file: io.StringIO) -> None:
        console = Console(
            file=file,
            width=WIDTH,
            height=HEIGHT,
            force_terminal=True,
            color_system="standard",
            legacy_windows=False,
            markup=False,
            emoji=False,
            highlight=False,
            _environ={},  # the variables of whoever records would change it
        )
        super().__init__(console)
        self._file = file
        self.screens: list[Screen] = []

    def refresh(self) -> None:
        """Draw, and keep what is on the screen then."""
        super().refresh()
        if not self.screens or trio.current_time() - self.screens[-1].at >= FRAME:
            self.keep()

    def keep(self) -> None:
        """Keep what is on the screen now."""
        self.screens.append(Screen(trio.current_time(), screen_of(self._file.getvalue())))


async def record(_: Simulation) -> list[Screen]:
    """Ask, and return the screens with the seconds at which they stood."""
    async with MultiLLMOrchestrator() as orchestrator:
        for name, script in SCRIPTS.items():
            orchestrator.register_model(name, FakeModel(script, name=name), price=PRICE)
        view = Recorder(io.StringIO())
        way = Synthesize(keep_unanimous=True, analysts="none")  # that of the command
        result = await follow(orchestrator.stream_responses(QUESTION, strategy=way), view, NO_HISTORY)
        view.conclude(result)
        view.keep()
    return view.screens


def screen_of(written: str) -> list[str]:
    """Return the lines on the screen of a program that erases and writes whole lines."""
    lines, row = [""], 0
    position = 0
    for match in _ESCAPE.finditer(written):
        row = _put(lines, row, written[position : match.start()])
        position = match.end()
        match match[2]:
            case "A":
                row -= int(match[1] or 1)
            case "K":
                lines[row] = ""
            case "m":
                lines[row] += match[0]
            case _:
                pass  # the cursor is hidden and shown
    _put(lines, row, written[position:])
    return lines[-HEIGHT:]


def _put(lines: list[str], row: int, text: str) -> int:
    for piece in re.findall(r"\n|[^\r\n]+", text):
        if piece != "\n":
            lines[row] += piece
        else:
            row += 1
            lines += [""] * (row + 1 - len(lines))
    return row


def with_command(screens: list[Screen]) -> list[Screen]:
    """Put the typing of the command, and the prompt, ahead of the screens."""
    command = f'ultra ask "{QUESTION}"'
    prompt = "\x1b[1;32m$\x1b[0m "
    letters = range(0, len(command), 6)
    typed = [Screen(TYPING * done, [f"{prompt}{command[:done]}\x1b[7m \x1b[0m"]) for done in letters]
    begin = TYPING * len(command) + 0.4
    return [*typed, *(Screen(begin + at, [prompt + command, *lines][-HEIGHT:]) for at, lines in screens)]


def lines_of(screens: list[Screen]) -> Iterator[Shown]:
    """Yield each line of the screens once for the whole time in which it stands unchanged."""
    for row in range(HEIGHT):
        texts = [(at, lines[row] if row < len(lines) else "") for at, lines in screens]
        changes = [texts[0], *(new for old, new in pairwise(texts) if new[1] != old[1])]
        ends = [*(at for at, _ in changes[1:]), None]
        for (since, text), until in zip(changes, ends, strict=True):
            if text:
                yield Shown(row, text, since, until)


def drawn(screens: list[Screen]) -> str:
    """Return the SVG."""
    seconds = screens[-1][0] + 0.1
    styles: dict[str, str] = {}
    keyframes: dict[tuple[float, float | None], str] = {}
    groups = []
    for line in lines_of(screens):
        name = keyframes.setdefault((line.since, line.until), f"k{len(keyframes)}")
        spans = "".join(_spans(line, styles))
        last = " z" if line.until is None else ""
        groups.append(f'<g class="{name}{last}" transform="translate(0 {line.row * _LINE})">{spans}</g>')
    rules = "".join(_keyframes(name, *span, seconds) for span, name in keyframes.items())
    colours = "".join(f".{name}{{{rule}}}" for rule, name in styles.items())
    rows = max(len(lines) for _, lines in screens)
    width, height = round(WIDTH * _CELL + 2 * _MARGIN), rows * _LINE + 2 * _MARGIN + 24
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="{DESCRIPTION}">
<title>ultra ask, recorded with scripted models</title>
<style>
text{{font:14px {_FONTS};white-space:pre;fill:{THEME.foreground_color.hex}}}
g[class]{{visibility:hidden;animation-duration:{seconds:.2f}s;animation-timing-function:step-end;\
animation-fill-mode:forwards}}
g.z{{visibility:visible}}
{rules}{colours}
@media (prefers-reduced-motion:reduce){{g[class]{{animation:none}}}}
</style>
<rect width="{width}" height="{height}" rx="8" fill="{THEME.background_color.hex}"/>
<circle cx="20" cy="18" r="6" fill="#ff5f57"/>
<circle cx="40" cy="18" r="6" fill="#febc2e"/>
<circle cx="60" cy="18" r="6" fill="#28c840"/>
<g transform="translate({_MARGIN} {_MARGIN + 36})">
{chr(10).join(groups)}
</g>
</svg>
"""


def _keyframes(name: str, since: float, until: float | None, seconds: float) -> str:
    begin = f"0%{{visibility:hidden}}{100 * since / seconds:.2f}%{{visibility:visible}}"
    end = "" if until is None else f"{100 * until / seconds:.2f}%{{visibility:hidden}}"
    last = "100%{visibility:visible}" if until is None else "100%{visibility:hidden}"
    return f".{name}{{animation-name:{name}}}@keyframes {name}{{{begin}{end}{last}}}\n"


def _spans(line: Shown, styles: dict[str, str]) -> Iterator[str]:
    column = 0
    for text, style, _ in Text.from_ansi(line.text).render(Console(width=WIDTH)):
        start, column = column, column + len(text)
        bare = text.strip()
        if style is not None and style.reverse:
            shape = f'y="-14" width="{_CELL:g}" height="18" fill="{THEME.foreground_color.hex}"'
            yield f'<rect x="{start * _CELL:g}" {shape}/>'
        elif bare:
            rule = _css(style or Style.null())
            name = f' class="{styles.setdefault(rule, f"s{len(styles)}")}"' if rule else ""
            begin = (start + len(text) - len(text.lstrip())) * _CELL
            # So the columns stand right in whatever font the reader has.
            length = f' textLength="{len(bare) * _CELL:g}"' if len(bare) > 1 else ""
            yield f'<text x="{begin:g}"{name}{length}>{escape(bare)}</text>'


def _css(style: Style) -> str:
    colour = style.color or Color.default()
    shade = colour.get_truecolor(THEME)
    background = THEME.background_color
    if style.dim:
        shade = type(shade)(*(round((a * 3 + b * 2) / 5) for a, b in zip(shade, background, strict=True)))
    rules = [f"fill:{shade.hex}"] if style.color or style.dim else []
    if style.bold:
        rules.append("font-weight:bold")
    if style.italic:
        rules.append("font-style:italic")
    return ";".join(rules)


def picture() -> str:
    """Return what terminal.svg has to be."""
    return drawn(with_command(simulate(record, seed=1).value))


if __name__ == "__main__":
    configure_logs(0)
    path = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).with_name("terminal.svg")
    path.write_text(picture(), encoding="utf-8")
