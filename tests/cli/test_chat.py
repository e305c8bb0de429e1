"""`ultra chat`: turns through a pipe, and on a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import run_ultra, ultra_on_terminal
from ultra.cli.arguments import Question, RequestedModel
from ultra.cli.chat_session import COMMANDS, Chat
from ultra.cli.session import Output

if TYPE_CHECKING:
    from pathlib import Path

ONE = ("chat", "-m", "openai:first", "--strategy", "vote")
TWO = ("chat", "-m", "openai:first@2", "-m", "openai:second", "--strategy", "vote")


async def test_a_conversation_goes_on_with_its_history() -> None:
    async with chat_server() as server:
        done = await run_ultra(*ONE, env=server.environment, stdin=b"Where?\n\nAnd why?\n")

    assert (done.returncode, done.stdout.count(b"The capital of France is Paris.\n")) == (0, 2)
    first, second = (request["messages"] for request in server.scripts["first"].requests)
    assert first == [{"role": "user", "content": "Where?"}]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[-1]["content"] == "And why?"


async def test_commands_choose_whom_to_ask_and_how_and_save_the_talk(tmp_path: Path) -> None:
    saved, document = tmp_path / "talk.md", tmp_path / "talk.json"
    lines = [
        *(
            "Where?",
            "/models second",
            "/strategy best_of",
            "/models",
            "/ensemble",
            "/nothing",
            "/models third",
        ),
        *(
            "/retry",
            f"/save {saved}",
            f"/save {document}",
            f"/save {saved}",
            "/new",
            "/retry",
            "/help",
            "/quit",
        ),
    ]
    async with chat_server() as server:
        done = await run_ultra(*TWO, env=server.environment, stdin="\n".join([*lines, "never"]).encode())

    output, errors = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0
    assert "asked: second\nothers: first\n" in output
    assert "strategy: best_of" in output
    assert "ensemble: none" in output
    for error in (
        "there is no command /nothing",
        "unknown model 'third'",
        "is there already",
        "nothing was asked",
    ):
        assert error in errors
    assert all(name in output for name in COMMANDS)
    turn = "## You\n\nWhere?\n\n## Answer\n\nThe capital of France is Paris.\n"
    assert saved.read_text() == turn  # what was retried stands once
    assert [message["role"] for message in json.loads(document.read_text())] == ["user", "assistant"]
    assert [len(server.scripts[name].requests) for name in ("first", "second")] == [1, 2]


async def test_an_error_ends_the_answer_and_not_the_chat() -> None:
    async with chat_server(first=Script(status=400)) as server:
        done = await run_ultra(*ONE, "--json", env=server.environment, stdin=b"Where?\nAnd why?\n")

    assert done.returncode == 0
    kinds = [json.loads(line)["error"]["type"] for line in done.stdout.splitlines()]
    assert len(kinds) == 2
    second = server.scripts["first"].requests[1]["messages"]
    assert [message["content"] for message in second] == ["And why?"]


async def test_on_a_terminal_ctrl_c_stops_the_answer_and_the_chat_goes_on(tmp_path: Path) -> None:
    script = Script(("Surely ", "never"), gate=trio.Event())
    async with chat_server(first=script) as server:
        env = {**server.environment, "XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
        async with ultra_on_terminal(*ONE, "--plain", env=env) as terminal:
            await terminal.wait_for("\x1b[?2004h")  # it reads
            await terminal.type("Where?\\\ris it?\r")
            await terminal.wait_for("waiting for first")
            await terminal.type("\x03")
            await terminal.wait_for("stopped; /retry asks again")
            script.gate = None
            await terminal.type("/retry\r")
            await terminal.wait_for("Surely never")
            await terminal.type("/quit\r")
            assert await terminal.wait() == 0

    assert "Traceback" not in terminal.output
    for request in script.requests:
        assert request["messages"][-1]["content"] == "Where?\nis it?"
    history = tmp_path / "ultra" / "chat_history"
    assert "+is it?" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("/re", ["/retry"]),
        ("/models car", ["/models careful"]),
        ("/models careful con", ["/models careful concise"]),
        ("/strategy syn", ["/strategy synthesize"]),
        ("/ensemble ", ["/ensemble none"]),
        ("Where", []),
        ("/save ", []),
    ],
)
def test_commands_and_their_names_are_completed(line: str, completed: list[str]) -> None:
    models = (RequestedModel("vllm:careful"), RequestedModel("vllm:concise"))

    assert list(Chat(Question(models=models), Output()).completions(line)) == completed
