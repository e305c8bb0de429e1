"""`ultra chat`: turns through a pipe, and on a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import run_ultra, ultra_on_terminal
from ultra.cli.arguments import Question, RequestedModel
from ultra.cli.attachments import paths_from
from ultra.cli.chat_session import COMMANDS, Chat
from ultra.cli.session import Output

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + bytes(600)
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


@pytest.mark.parametrize("options", [("--all",), ("--show", "reasoning"), ("--show", "analysis")])
async def test_what_is_to_be_shown_is_shown_with_the_answers_of_all_models(options: tuple[str, ...]) -> None:
    async with chat_server() as server:
        env = {**server.environment, "TERM": "xterm-256color"}
        async with ultra_on_terminal(*ONE, *options, env=env) as terminal:
            await terminal.wait_for("\x1b[?2004h")  # it reads
            await terminal.type("Where?\r")
            await terminal.wait_for("Done in")
    assert any(row.startswith("Answers ") for row in terminal.screen.all_rows)


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


async def test_attachments_go_with_the_next_question_and_stay_in_the_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dot.png").write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("Paris is large.")
    (tmp_path / "program").write_bytes(b"\x7fELF\x00")
    lines = [
        *("/attach program", "/attach nothing.png", "/attach dot.png", "/attach none", "/attach"),
        *("/attach dot.png", "/attach notes.txt", "What is on it?", "And what not?", "/retry"),
        *("/save talk.md", "/quit"),
    ]
    async with chat_server() as server:
        command = ("chat", "-m", "openai:gpt-4o-mini", "--strategy", "best_of")
        done = await run_ultra(*command, env=server.environment, stdin="\n".join(lines).encode())

    assert b"no known type" in done.stderr
    assert b"nothing.png" in done.stderr
    assert b"with the next question: nothing\n" in done.stdout
    assert b"with the next question: dot.png (image, 1 kB), notes.txt (document, 1 kB)\n" in done.stdout
    first, second, third = (request["messages"] for request in server.scripts["gpt-4o-mini"].requests)
    assert [part["type"] for part in first[0]["content"]][:2] == ["text", "image_url"]
    assert first[0]["content"][2]["file"]["filename"] == "notes.txt"
    assert second[0] == third[0] == first[0]
    assert second[-1] == third[-1] == {"role": "user", "content": "And what not?"}
    assert "What is on it?\n\n(image, 1 kB, notes.txt)" in (tmp_path / "talk.md").read_text()


def test_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "new").mkdir(parents=True)
    for name in ("photos/one.png", "paper.pdf", ".hidden"):
        (tmp_path / name).touch()

    assert list(paths_from("")) == ["paper.pdf", "photos/"]
    assert list(paths_from("pho")) == ["photos/"]
    assert list(paths_from("photos/")) == ["photos/new/", "photos/one.png"]
    assert list(paths_from(".h")) == [".hidden"]
    assert list(paths_from("nowhere/")) == []


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


@pytest.mark.parametrize(("columns", "lines"), [(100, 30), (60, 20)])
async def test_on_a_terminal_the_help_breaks_between_words(tmp_path: Path, columns: int, lines: int) -> None:
    async with chat_server() as server:
        env = {**server.environment, "XDG_STATE_HOME": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
        async with ultra_on_terminal(*ONE, env=env, columns=columns, lines=lines) as terminal:
            await terminal.wait_for("\x1b[?2004h")  # it reads
            await terminal.type("/help\r")
            await terminal.wait_for("Ctrl-C stops")
            await terminal.type("/quit\r")
            assert await terminal.wait() == 0

    rows = terminal.screen.all_rows
    text = " ".join(" ".join(rows).split())
    assert "/strategy [NAME] how answers are merged; with 'default', as at the beginning" in text
    (row,) = [row for row in rows if row.startswith("/save")]
    assert len(row) < columns


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("/re", ["/retry"]),
        ("/models car", ["/models careful"]),
        ("/models careful con", ["/models careful concise"]),
        ("/strategy syn", ["/strategy synthesize"]),
        ("/ensemble ", ["/ensemble none"]),
        ("Where", []),
        ("/att", ["/attach"]),
    ],
)
def test_commands_and_their_names_are_completed(line: str, completed: list[str]) -> None:
    models = (RequestedModel("vllm:careful"), RequestedModel("vllm:concise"))

    assert list(Chat(Question(models=models), Output()).completions(line)) == completed
