"""`ultra log`: the list, one run, and searching."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from helpers.chat_server import Script, chat_server
from helpers.command_line import run_ultra, ultra_on_terminal

if TYPE_CHECKING:
    from pathlib import Path

TWO = ("-m", "openai:first@2", "-m", "openai:second", "--strategy", "vote")


@pytest.fixture
async def home(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has asked twice."""
    env = {"XDG_DATA_HOME": str(tmp_path)}
    rome = Script(("In the capital of Italy, ", "which is Rome, ", "where the **Forum** is."))
    async with chat_server(second=rome) as server:
        for question in ("Where is the tower, of which one hears so much?", "And the\nForum?"):
            model = "second" if "Forum" in question else "first"
            done = await run_ultra(
                *("ask", question, "-m", f"openai:{model}", "--strategy", "best_of"),
                env={**server.environment, **env},
            )
            assert done.returncode == 0
    return env


async def test_the_list_is_a_line_a_run_the_newest_first(home: dict[str, str]) -> None:
    done = await run_ultra("log", env=home)
    few = await run_ultra("log", "-n", "1", env=home)

    lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert [line[-1] for line in lines] == [
        "And the Forum?",
        "Where is the tower, of which one hears so much?",
    ]
    assert [line[2:4] for line in lines] == [["completed", "second"], ["completed", "first"]]
    assert few.stdout.count(b"\n") == 1


async def test_a_search_finds_words_of_question_and_answer_in_any_case(home: dict[str, str]) -> None:
    for words, found in (("TOWER paris", 1), ("rome", 1), ("capital", 2), ("tower Rome", 0)):
        done = await run_ultra("log", "search", *words.split(), env=home)
        assert (words, done.stdout.count(b"\n")) == (words, found)
        document = await run_ultra("log", "search", words, "--json", env=home)
        assert len(json.loads(document.stdout)) == found
    nothing = await run_ultra("log", "search", "nowhere", env=home)
    assert b"nothing is in the history" in nothing.stderr


async def test_a_pipe_gets_the_answer_of_a_run_and_plain_all_of_it(home: dict[str, str]) -> None:
    newest = await run_ultra("log", "show", env=home)
    run_id = (await run_ultra("log", env=home)).stdout.decode().splitlines()[1].split("\t")[0]
    older = await run_ultra("log", "show", run_id[:6], env=home)
    plain = await run_ultra("log", "show", run_id, "--plain", env=home)
    document = await run_ultra("log", "show", run_id, "--json", env=home)

    assert newest.stdout == b"In the capital of Italy, which is Rome, where the **Forum** is.\n"
    assert older.stdout == b"The capital of France is Paris.\n"
    for part in (run_id, "Where is the tower", "--- initial: first", "Done in"):
        assert part in plain.stdout.decode()
    shown = json.loads(document.stdout)
    assert (shown["run_id"], shown["result"]["status"]) == (run_id, "success")
    assert "secret" not in shown["spec"]


async def test_the_answer_goes_to_a_file(home: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "answer.md"
    done = await run_ultra("log", "show", "-o", str(file), env=home)

    assert (done.returncode, done.stdout) == (0, b"")
    assert file.read_text() == "In the capital of Italy, which is Rome, where the **Forum** is.\n"


async def test_a_run_that_is_not_there_is_an_error_in_json_too(home: dict[str, str], tmp_path: Path) -> None:
    unknown = await run_ultra("log", "show", "abcdef12", "--json", env=home)
    empty = {"XDG_DATA_HOME": str(tmp_path / "empty")}
    nothing = await run_ultra("log", env=empty)
    none = await run_ultra("log", "show", env=empty)

    assert (unknown.returncode, json.loads(unknown.stdout)["error"]["type"]) == (2, "UnknownRun")
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert b"the history is empty" in nothing.stderr
    assert none.returncode == 2
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(("columns", "shows_models"), [(100, True), (60, False)])
async def test_on_a_terminal_the_table_has_a_line_a_run_that_fits(
    home: dict[str, str],
    columns: int,
    shows_models: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    async with ultra_on_terminal("log", env=home, columns=columns, lines=20) as terminal:
        assert await terminal.wait() == 0

    assert len(terminal.screen.all_rows) == 3
    assert ("second" in terminal.output) is shows_models
    assert "And the Forum?" in terminal.output


async def test_on_a_terminal_a_run_is_drawn_as_it_was(home: dict[str, str]) -> None:
    async with ultra_on_terminal("log", "show", env=home, columns=80, lines=24) as terminal:
        assert await terminal.wait() == 0

    rows = terminal.screen.all_rows
    head = [rows[0].split()[0][:8], *rows[1:7]]
    assert re.fullmatch("[0-9a-f]{8}", head[0])
    assert head[1:6] == ["second", "", "And the", "Forum?", ""]
    assert head[6].startswith("Answers ─")
    assert "second" in terminal.output
    assert rows[-1].startswith("Done in")


async def test_the_runs_of_the_command_are_runs_of_the_journal(home: dict[str, str]) -> None:
    listed = await run_ultra("runs", "list", env=home)
    run_id = listed.stdout.decode().split()[0]
    replayed = await run_ultra("runs", "replay", run_id[:8], "--strategy", "vote", "--json", env=home)
    deleted = await run_ultra("runs", "delete", run_id[:8], env=home)

    assert listed.stdout.count(b"\n") == 2
    assert json.loads(replayed.stdout)["final_synthesis"]["content"].startswith("In the capital of Italy")
    assert deleted.returncode == 0
    assert (await run_ultra("log", env=home)).stdout.count(b"\n") == 1


async def test_ids_of_runs_are_completed(home: dict[str, str]) -> None:
    run_id = (await run_ultra("log", env=home)).stdout.decode().split("\t")[0]
    for line in ("log show", "runs show", "ask --conversation"):
        words = ["ultra", *line.split(), run_id[:3]]
        env = {
            **home,
            "_ULTRA_COMPLETE": "complete_bash",
            "COMP_WORDS": "\n".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
        done = await run_ultra(env=env)
        assert run_id in done.stdout.decode()
