"""What stands on a terminal that is made narrower and wider while a run goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import ultra_on_terminal
from ultra.cli.wrapping import lines_taken

if TYPE_CHECKING:
    from helpers.screen import Screen

MODELS = ("first", "second", "third")
ASK = (
    "ask",
    "Where?",
    *(part for name in MODELS for part in ("-m", f"openai:{name}")),
    "--strategy",
    "best_of",
)
WORDS = "Many words about the towers of old cities, none of which is needed here, and yet they are. "


def counts(screen: Screen) -> list[int]:
    """How often the title of the step and the head of each answer stand there."""
    text = "\n".join(screen.all_rows)
    return [text.count("Answers ─"), *(len(re.findall(f"[⠁-⣿] {name} ", text)) for name in MODELS)]


def is_drawn(screen: Screen) -> bool:
    rule = next((row for row in screen.rows if row.startswith("Answers ─")), "")
    waiting = re.match("Answers: .*(0 of 3 done|first, second and third), ", "".join(screen.rows[-1:]))
    return len(rule) == screen.columns and waiting is not None


@pytest.mark.parametrize("wraps", [True, False])
async def test_panes_stand_there_once_however_often_the_terminal_is_resized(
    wraps: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    gate = trio.Event()
    scripts = {name: Script((WORDS * 2, f"The answer of {name}."), gate=gate) for name in MODELS}
    async with chat_server(**scripts) as server:
        env = server.environment if wraps else {**server.environment, "XTERM_VERSION": "XTerm(390)"}
        async with ultra_on_terminal(*ASK, env=env, columns=100, lines=30, wraps=wraps) as terminal:
            await terminal.wait_until(lambda screen: is_drawn(screen) and "towers" in "".join(screen.rows))
            for columns, lines in ((60, 30), (100, 30), (72, 24), (120, 40), (60, 40)):
                await terminal.resize(columns, lines)
                await terminal.wait_until(is_drawn)
                assert counts(terminal.screen) == [1, 1, 1, 1], "\n".join(terminal.screen.all_rows)
                assert terminal.screen.rows[0] == ""
            gate.set()
            assert await terminal.wait() == 0

    rows = terminal.screen.all_rows
    assert counts(terminal.screen)[0] == 1
    assert sum("done," in row for row in rows) == 0
    assert "Done in" in "".join(rows[-2:])  # it may be wrapped


async def test_the_line_that_waits_is_gone_after_the_terminal_was_made_narrower() -> None:
    gate = trio.Event()
    scripts = {name: Script(("Paris ", "it is."), gate=gate) for name in MODELS}
    async with (
        chat_server(**scripts) as server,
        ultra_on_terminal(*ASK, "--final", env=server.environment, columns=100, lines=20) as terminal,
    ):
        await terminal.wait_until(lambda screen: "and third (writes)" in "".join(screen.rows))
        await terminal.resize(40, 20)
        await terminal.wait_until(
            lambda screen: screen.rows[-1:] != [] and "Answers: 0 of 3" in screen.rows[-1]
        )
        assert len(terminal.screen.rows) == 1
        gate.set()
        assert await terminal.wait() == 0

    assert terminal.screen.rows[0] == "Paris it is."


def test_a_terminal_that_cuts_lines_off_has_as_many_as_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XTERM_VERSION", "TMUX"):
        monkeypatch.delenv(name, raising=False)
    for term, tmux, taken in (
        ("xterm-256color", None, 4),
        ("screen-256color", None, 3),
        ("screen-256color", "/tmp/tmux,1,0", 4),
        ("linux", None, 3),
    ):
        monkeypatch.setenv("TERM", term)
        if tmux is not None:
            monkeypatch.setenv("TMUX", tmux)
        assert lines_taken([0, 60, 40], 40) == taken
        monkeypatch.delenv("TMUX", raising=False)
