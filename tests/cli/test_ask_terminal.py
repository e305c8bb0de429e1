"""`ultra ask` on a terminal: what is drawn, and what is left of it after Ctrl-C."""

from __future__ import annotations

import re

import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import ultra_on_terminal

TWO = ("--model", "openai:first@2", "--model", "openai:second")
ALL_STAGES = ("--stages", "initial,meta,synthesis")

SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


def cursor_is_visible(output: str) -> bool:
    return output.rfind(SHOW_CURSOR) > output.rfind(HIDE_CURSOR) > -1


async def test_a_run_is_drawn_while_it_goes_on_and_stands_there_when_it_is_over() -> None:
    gate = trio.Event()
    async with (
        chat_server(first=Script(("Surely ", "Paris."), gate=gate)) as server,
        ultra_on_terminal("ask", "Where?", *TWO, *ALL_STAGES, env=server.environment) as terminal,
    ):
        await terminal.wait_for("Surely")
        assert "Paris." not in terminal.output.partition("Surely")[2].partition("The capital of France")[0]
        gate.set()

        assert await terminal.wait() == 0
        for title in ("Answers", "Analysis", "Synthesis", "Models", "Done in"):
            assert title in terminal.output
        assert re.search(r"first.*second", terminal.output)
        assert cursor_is_visible(terminal.output)


async def test_ctrl_c_keeps_the_text_gives_the_terminal_back_and_closes_the_calls() -> None:
    script = Script(("Surely ", "never"), gate=trio.Event())
    for presses in (1, 2):
        script.broken = trio.Event()
        async with (
            chat_server(first=script) as server,
            ultra_on_terminal("ask", "?", "--model", "openai:first", env=server.environment) as terminal,
        ):
            await terminal.wait_for("Surely")
            for _ in range(presses):
                await terminal.type("\x03")

            assert await terminal.wait() == 130
            assert terminal.echoes
            await script.broken.wait()
        assert "Traceback" not in terminal.output
        assert cursor_is_visible(terminal.output)
        kept = terminal.output.rpartition("stopped")[2]
        assert "Surely" in kept


async def test_what_is_typed_meanwhile_is_not_echoed_into_the_display_and_echo_is_back_in_the_end() -> None:
    gate = trio.Event()
    async with (
        chat_server(first=Script(("Surely ", "Paris."), gate=gate)) as server,
        ultra_on_terminal("ask", "?", "--model", "openai:first", env=server.environment) as terminal,
    ):
        await terminal.wait_for("Surely")
        assert not terminal.echoes
        await terminal.type("impatient\n")
        gate.set()

        assert await terminal.wait() == 0
        assert "impatient" not in terminal.output
        assert terminal.echoes


async def test_failed_attempts_do_not_spoil_the_display() -> None:
    async with (
        chat_server(first=Script(status=400)) as server,
        ultra_on_terminal("ask", "?", *TWO, env=server.environment) as terminal,
    ):
        assert await terminal.wait() == 0

    assert "attempt failed" not in terminal.output
    assert "✗" in terminal.output
    assert "Degraded answer" in terminal.output


async def test_a_model_cannot_command_the_terminal() -> None:
    async with (
        chat_server(first=Script(("Hello \x1b]0;", "owned\x07 \x1b[2J", "\x9b31m[red]"))) as server,
        ultra_on_terminal("ask", "?", "--model", "openai:first", env=server.environment) as terminal,
    ):
        assert await terminal.wait() == 0

    assert "\x1b]0;" not in terminal.output
    assert "\x1b[2J" not in terminal.output
    assert "\x9b" not in terminal.output
    assert "[red]" in terminal.output


async def test_plain_text_has_no_control_characters_on_a_terminal_either() -> None:
    async with (
        chat_server() as server,
        ultra_on_terminal("ask", "?", *TWO, *ALL_STAGES, "--plain", env=server.environment) as terminal,
    ):
        assert await terminal.wait() == 0

    assert "\x1b" not in terminal.output
    assert "--- synthesis: first" in terminal.output


async def test_a_terminal_that_cannot_draw_gets_plain_text_whose_words_are_whole() -> None:
    words = "Plain words of an answer that goes on over the end of the line of a narrow terminal."
    async with (
        chat_server(second=Script((words,))) as server,
        ultra_on_terminal(
            "ask", "?", *TWO, env=server.environment | {"TERM": "dumb"}, columns=30
        ) as terminal,
    ):
        assert await terminal.wait() == 0

    assert "\x1b" not in terminal.output
    rows = [row.strip() for row in terminal.screen.all_rows]
    assert words in " ".join(rows)
