"""The history of the command: what is kept of ask and chat, and how it is gone on with."""

# ruff: noqa: ASYNC240 - small files of the test
from __future__ import annotations

import json
import sqlite3
import stat
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

from helpers.chat_server import ChatServer, Script, chat_server
from helpers.command_line import ended, interrupt, run_ultra, ultra_running
from ultra.cli import history
from ultra.cli.kept_text import SecretFilter
from ultra.config.history import HistoryConfig
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import Retention, RunRecord
from ultra.stores.journal_sqlite import SqliteJournal

ONE = ("-m", "openai:first", "--strategy", "best_of")
TWO = ("-m", "openai:first@2", "-m", "openai:second")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "data"


def environment(server: ChatServer, home: Path) -> dict[str, str]:
    return {**server.environment, "XDG_DATA_HOME": str(home)}


def runs_db(home: Path) -> Path:
    return home / "ultra" / "runs.db"


async def rows(home: Path, *arguments: str) -> list[dict[str, Any]]:
    done = await run_ultra("log", *arguments, "--json", env={"XDG_DATA_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def asked(server: ChatServer, model: str = "first") -> list[list[tuple[str, str]]]:
    return [
        [(message["role"], message["content"]) for message in request["messages"]]
        for request in server.scripts[model].requests
    ]


async def test_each_question_is_kept_with_its_answer_in_a_file_of_the_user_alone(home: Path) -> None:
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", *ONE, env=environment(server, home))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"The capital of France is Paris.\n", b"")
    (row,) = await rows(home)
    assert (row["question"], row["answer"]) == ("Where?", "The capital of France is Paris.")
    assert (row["state"], row["asked"], row["strategy"]) == ("completed", "first", "best_of")
    assert stat.S_IMODE(runs_db(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(runs_db(home).parent.stat().st_mode) == 0o700


async def test_c_goes_on_with_the_last_conversation_and_with_whom_it_was(home: Path) -> None:
    async with chat_server() as server:
        env = environment(server, home)
        await run_ultra("ask", "Where?", *ONE, "--system", "Be brief.", "--temperature", "0.5", env=env)
        await run_ultra("ask", "Where else?", *ONE, "--no-log", env=env)
        done = await run_ultra("ask", "-c", "And why?", env=env)
        other = await run_ultra("ask", "-c", "And who?", *TWO, "--strategy", "vote", env=env)

    assert (done.returncode, done.stderr) == (0, b"")
    assert (other.returncode, other.stderr) == (0, b"")
    assert asked(server)[2] == [
        ("system", "Be brief."),
        ("user", "Where?"),
        ("assistant", "The capital of France is Paris."),
        ("user", "And why?"),
    ]
    assert server.scripts["first"].requests[2]["temperature"] == 0.5
    assert [text for _, text in asked(server, "second")[0]][-3:] == [
        "And why?",
        "The capital of France is Paris.",
        "And who?",
    ]
    third, second, first = await rows(home)
    assert third["conversation_id"] == second["conversation_id"] == first["run_id"]


async def test_an_older_run_is_gone_on_with_by_the_beginning_of_its_id(home: Path) -> None:
    async with chat_server() as server:
        env = environment(server, home)
        for question in ("Where?", "Who?"):
            await run_ultra("ask", question, *ONE, env=env)
        older = (await rows(home))[1]["run_id"]
        done = await run_ultra("ask", "And why?", "--conversation", older[:8], env=env)
        unknown = await run_ultra("ask", "And why?", "--conversation", "ffffffff", env=env)

    assert done.returncode == 0, done.stderr
    assert next(text for _, text in asked(server)[2]) == "Where?"
    assert (unknown.returncode, b"there is no run" in unknown.stderr) == (2, True)


async def test_again_asks_the_last_question_by_another_strategy_or_ensemble(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ultra.toml").write_text(
        '[models.a]\nmodel = "openai:first"\n[models.b]\nmodel = "openai:third"\n'
        '[ensembles.pair]\nmodels = ["a", "b"]\n'
    )
    async with chat_server() as server:
        env = environment(server, home)
        await run_ultra("ask", "Where?", *ONE, env=env)
        by_strategy = await run_ultra("ask", "--again", "vote", "--json", "--no-cache", env=env)
        by_ensemble = await run_ultra("ask", "--again", "pair", "--json", env=env)
        neither = await run_ultra("ask", "--again", "trio", env=env)
        with_prompt = await run_ultra("ask", "Who?", "--again", "vote", env=env)

    result = json.loads(by_strategy.stdout)
    assert (result["strategy"], list(result["initial_responses"])) == ("vote", ["first"])
    assert list(json.loads(by_ensemble.stdout)["initial_responses"]) == ["a", "b"]
    assert [text for _, text in asked(server, "third")[0]] == ["Where?"]
    assert neither.returncode == with_prompt.returncode == 2
    assert b"neither an ensemble nor a strategy; ensembles: pair; strategies: synthesize" in neither.stderr
    assert b"leave a prompt out" in with_prompt.stderr


async def test_an_empty_history_has_nothing_to_go_on_with(home: Path) -> None:
    env = {"XDG_DATA_HOME": str(home)}
    for arguments in (("-c", "And why?"), ("--again", "vote")):
        done = await run_ultra("ask", *arguments, env=env)
        assert (done.returncode, b"the history is empty" in done.stderr) == (2, True)
    assert not home.exists()


async def test_each_turn_of_a_chat_is_kept_and_a_chat_goes_on_later(home: Path) -> None:
    async with chat_server() as server:
        env = environment(server, home)
        await run_ultra("chat", *ONE, env=env, stdin=b"Where?\nAnd why?\n/new\nWho?\n")
        done = await run_ultra("chat", "-c", env=env, stdin=b"And when?\n")

    assert done.returncode == 0, done.stderr
    assert [text for _, text in asked(server)[3]] == ["Who?", "The capital of France is Paris.", "And when?"]
    found = await rows(home)
    assert [row["question"] for row in found] == ["And when?", "Who?", "And why?", "Where?"]
    conversations = [row["conversation_id"] for row in found]
    assert conversations[0] == conversations[1] != conversations[2] == conversations[3]


@pytest.mark.parametrize("how", ["flag", "own file", "own file beside --model"])
async def test_nothing_is_kept_where_the_user_wants_none(home: Path, tmp_path: Path, how: str) -> None:
    config = tmp_path / "config" / "ultra" / "ultra.toml"
    config.parent.mkdir(parents=True)
    if how != "flag":
        config.write_text('[history]\nenabled = false\n[models.a]\nmodel = "openai:first"\n')
        config.chmod(0o600)
    async with chat_server() as server:
        env = {**environment(server, home), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        arguments = {"flag": (*ONE, "--no-log"), "own file": (), "own file beside --model": ONE}[how]
        done = await run_ultra("ask", "Where?", *arguments, env=env)
        await run_ultra("chat", *arguments, env=env, stdin=b"Where?\n")

    assert done.returncode == 0, done.stderr
    assert not home.exists()


async def test_what_failed_and_what_was_stopped_is_kept_too(home: Path) -> None:
    script = Script(("Surely ", "never"), gate=trio.Event())
    async with chat_server(first=script, second=Script(status=400)) as server:
        env = environment(server, home)
        failed = await run_ultra("ask", "Who?", "-m", "openai:second", env=env)
        async with ultra_running("ask", "Where?", *ONE, env=env) as process:
            await script.asked.wait()
            interrupt(process)
            code, _ = await ended(process)

    assert (failed.returncode, code) == (1, 130)
    stopped, error = await rows(home)
    assert (stopped["state"], stopped["question"], stopped["answer"]) == ("cancelled", "Where?", None)
    assert error["state"] == "failed"
    assert error["error"].startswith("QuorumNotReached: ")


def _lock(home: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(runs_db(home), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def test_a_journal_that_does_not_work_costs_a_line_and_not_the_answer(home: Path) -> None:
    async with chat_server() as server:
        env = environment(server, home)
        await run_ultra("ask", "Where?", *ONE, env=env)
        lock = _lock(home)
        locked = await run_ultra("ask", "Where?", *ONE, env=env)
        lock.execute("ROLLBACK")
        lock.close()
        runs_db(home).write_bytes(b"no database at all, but something else" * 100)
        broken = await run_ultra("ask", "Where?", *ONE, "--json", env=env)
        nowhere = await run_ultra("ask", "Where?", *ONE, env={**env, "XDG_DATA_HOME": "/dev/null"})

    reasons = "another program has kept the file locked", "not a SQLite file", "/dev/null"
    for done, why in zip((locked, broken, nowhere), reasons, strict=True):
        assert done.returncode == 0
        assert b"The capital of France is Paris." in done.stdout
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("ultra: this run is not in the history: ")
        assert why in line
    assert json.loads(broken.stdout)["status"] == "success"


def _spec() -> RunSpec:
    return RunSpec(request=ModelRequest.of("?"), models=("a",), strategy=StrategySpec("vote"))


async def test_without_a_home_directory_nothing_is_kept_and_no_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # What platformdirs has for a user without a home.
    monkeypatch.setattr(history, "default_journal", lambda: Path("~/.local/share/ultra/runs.db"))
    kept = history.History(HistoryConfig(), by="ask", asked=history.Asked())
    kept.begin("1" * 32, _spec())
    await kept.write()

    assert capsys.readouterr().err == "ultra: this run is not in the history: there is no home directory\n"
    assert list(tmp_path.iterdir()) == []


async def test_a_file_system_that_hangs_is_left_after_two_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(history, "_PATIENCE", 0.01)
    let_go = threading.Event()

    async def hang(_history: object, _recording: object) -> None:
        let_go.wait(60)

    monkeypatch.setattr(history.History, "_write", hang)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    kept = history.History(HistoryConfig(), by="ask", asked=history.Asked())
    kept.begin("1" * 32, _spec())
    with trio.CancelScope() as cancelled:
        cancelled.cancel()  # as by Ctrl-C
        await kept.write()
    let_go.set()

    assert "did not answer within" in capsys.readouterr().err


async def test_no_key_is_in_the_file(home: Path) -> None:
    key, made_up = "not-a-real-key", "sk-" + "a1b2c3d4" * 4
    leaky = Script((f"The key is {key}, ", "is it not?"))
    async with chat_server(first=leaky) as server:
        env = environment(server, home)
        done = await run_ultra("ask", f"Is {made_up} a key?", *ONE, env=env)
        shown = await run_ultra("log", "show", "--json", env=env)

    assert key in done.stdout.decode()  # it is the user's own terminal
    data = b"".join(file.read_bytes() for file in runs_db(home).parent.iterdir())
    assert key.encode() not in data
    assert made_up.encode() not in data
    assert json.loads(shown.stdout)["result"]["final_synthesis"]["content"] == "The key is ***, is it not?"


def test_options_keep_no_text_under_the_name_of_a_key() -> None:
    options = SamplingOptions(
        max_tokens=5, extra={"extra_headers": {"Authorization": "Bearer x"}, "top_k": 3}
    )
    spec = replace(_spec(), request=ModelRequest.of("?", options=options))
    record = RunRecord(run_id="r", spec=replace(spec, options=RunOptions(sampling=options)))

    kept = SecretFilter([])(record)
    assert kept.spec.request.options.given() == {
        "max_tokens": 5,
        "top_k": 3,
        "extra_headers": {"Authorization": "***"},
    }
    assert "Bearer" not in msgspec.json.encode(kept).decode()


async def test_the_retention_of_the_configuration_holds(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    config = HistoryConfig(retention=Retention(bytes=1))
    kept = history.History(config, by="ask", asked=history.Asked())
    for run_id in ("1" * 32, "0" * 32):  # with the second one, old runs are looked for
        kept.begin(run_id, _spec())
        await kept.write()
    journal = SqliteJournal(runs_db(home))
    assert await journal.list_runs() == []
    await journal.aclose()


async def test_a_project_that_nobody_trusts_cannot_turn_the_history_on_or_off(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ultra.toml").write_text('[history]\nenabled = true\n[models.a]\nmodel = "openai:first"\n')
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", env=environment(server, home))

    assert done.returncode == 2
    assert b"the setting enabled" in done.stderr
