"""What `ultra ask` writes where: to a pipe, to a file, to stderr; and what is piped in."""

# ruff: noqa: ASYNC240 - small files of the test
from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.chat_server import Script, chat_server
from helpers.command_line import run_ultra, ultra_on_terminal, ultra_running
from ultra.cli.answer_file import AnswerFile
from ultra.errors import BadCall

if TYPE_CHECKING:
    from pathlib import Path

TWO = ("--model", "openai:first@2", "--model", "openai:second")
ALL_STAGES = ("--stages", "initial,meta,synthesis")
PARIS = "The capital of France is Paris.\n"


def test_a_file_that_cannot_be_written_is_told_by_what_named_it(tmp_path: Path) -> None:
    for given, file in (("--output", AnswerFile(tmp_path)), ("/save", AnswerFile(tmp_path, "/save"))):
        with pytest.raises(BadCall, match=f"^{given} "), file:
            pass


async def test_one_model_is_asked_once_and_its_answer_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[models.a]\nmodel = "openai:first"\n[models.b]\nmodel = "openai:second"\n')
    of_configuration = ("--config", str(path), "--models", "a")
    async with chat_server() as server:
        for number, models in enumerate((("-m", "openai:first"), of_configuration), start=1):
            done = await run_ultra("ask", "Where?", *models, "--plain", "--no-cache", env=server.environment)
            assert len(server.scripts["first"].requests) == number
            assert done.stdout.count(b"The capital of France is Paris.") == 1
            assert b"confidence" not in done.stdout  # there is nothing that it could agree with
        both = await run_ultra(
            "ask", "Where?", "-m", "openai:first", "--samples", "2", env=server.environment
        )

    assert (both.returncode, "second" in server.scripts) == (0, False)


async def test_reasoning_is_asked_for_and_shown_where_the_user_wants_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    async with chat_server(first=Script(("<think>In France.</think>", "Paris."))) as server:
        url = server.environment["OPENAI_BASE_URL"]
        path.write_text(f'[models.a]\nmodel = "openrouter:first"\nbase_url = "{url}"\n')
        asked = ("ask", "Where?", "--config", str(path), "--plain", "--no-cache")
        env = {"OPENROUTER_API_KEY": "k"}
        without = await run_ultra(*asked, env=env)
        shown = await run_ultra(*asked, "--show", "reasoning", env=env)
        later = await run_ultra("log", "show", "--plain", "--show", "reasoning")

    requests = server.scripts["first"].requests
    assert (shown.returncode, b"In France." in without.stdout) == (0, False), shown.stderr
    assert b"| In France.\n\nParis.\n" in shown.stdout
    assert b"| In France.\n\nParis.\n" in later.stdout
    assert [request.get("reasoning") for request in (requests[0], requests[-1])] == [None, {"enabled": True}]


async def test_a_pipe_gets_the_answer_and_nothing_else() -> None:
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", *TWO, *ALL_STAGES, env=server.environment)
        loud = await run_ultra("ask", "Where?", *TWO, *ALL_STAGES, "-v", env=server.environment)

    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, PARIS, b"")
    assert loud.stdout.decode() == PARIS
    for part in (b"--- initial: first", b"--- meta: second", b"\nmodel ", b"\nDone in "):
        assert part in loud.stderr


@pytest.mark.parametrize(
    ("arguments", "piped", "sent"),
    [
        (("Review this",), "- old\n+ new\n", "- old\n+ new\n\nReview this"),
        (("-",), "Where?\n", "Where?\n"),
        ((), "Where?\n", "Where?\n"),
        (("Where?",), "", "Where?"),
    ],
)
async def test_piped_text_and_the_prompt_are_joined(
    arguments: tuple[str, ...], piped: str, sent: str
) -> None:
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", *arguments, "--model", "openai:first", "--stages", "initial"),
            env=server.environment,
            stdin=piped.encode(),
        )

    assert done.returncode == 0, done.stderr
    (request,) = server.scripts["first"].requests
    assert request["messages"] == [{"role": "user", "content": sent}]


async def test_an_answer_is_written_to_a_file_whole(tmp_path: Path) -> None:
    file, document = tmp_path / "answer.md", tmp_path / "answer.json"
    asked = ("ask", "Where?", *TWO)
    async with chat_server() as server:
        done = await run_ultra(*asked, "-o", str(file), env=server.environment)
        as_json = await run_ultra(*asked, "--json", "-o", str(document), env=server.environment)

    assert (done.returncode, done.stdout, file.read_text()) == (0, b"", PARIS)
    assert (as_json.returncode, as_json.stdout) == (0, b"")
    assert json.loads(document.read_text())["status"] == "success"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer.json", "answer.md"]


async def test_a_run_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "answer.md"
    file.write_text("before")
    async with chat_server(first=Script(status=400)) as server:
        done = await run_ultra("ask", "?", "-m", "openai:first", "-o", str(file), env=server.environment)

    assert (done.returncode, file.read_text()) == (1, "before")
    assert list(tmp_path.iterdir()) == [file]


async def test_a_run_that_is_interrupted_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "answer.md"
    script = Script(("Surely ", "never"), gate=trio.Event())
    async with (
        chat_server(first=script) as server,
        ultra_running("ask", "?", "-m", "openai:first", "-o", str(file), env=server.environment) as process,
    ):
        await script.asked.wait()
        process.terminate()
        assert await process.wait() == 143

    assert list(tmp_path.iterdir()) == []


async def test_a_file_that_cannot_be_written_is_told_of_before_anybody_is_asked(tmp_path: Path) -> None:
    async with chat_server() as server:
        for path in (tmp_path, tmp_path / "no" / "answer.md"):
            done = await run_ultra("ask", "?", "-m", "openai:first", "-o", str(path), env=server.environment)
            assert done.returncode == 2
            assert b"--output" in done.stderr

    assert "first" not in server.scripts


async def test_an_answer_that_its_file_cannot_take_is_written_to_stdout() -> None:
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", *TWO, "-o", "/dev/full", env=server.environment)

    assert (done.returncode, done.stdout.decode()) == (1, PARIS)
    assert b"/dev/full" in done.stderr


def test_a_file_keeps_its_mode_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("before")
    file.chmod(0o640)
    link.symlink_to(file)
    with AnswerFile(link) as opened:
        opened.write("after")

    assert link.is_symlink()
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("after", 0o640)


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCall, match="is a folder"), AnswerFile(tmp_path):
        pass


async def test_the_answer_alone_is_drawn_on_a_terminal_and_the_last_line_says_what_it_took() -> None:
    script = Script(("# Paris\n\n**It** is <b>`Paris`", "."), gate=trio.Event())
    async with (
        chat_server(first=script) as server,
        ultra_on_terminal("ask", "?", "-m", "openai:first", "--final", env=server.environment) as terminal,
    ):
        await terminal.wait_for("waiting for first (writes)")
        assert script.gate is not None
        script.gate.set()
        assert await terminal.wait() == 0

    assert "# Paris" not in terminal.output
    assert "**" not in terminal.output
    assert "<b>" in terminal.output
    assert "ultra: Done in " in terminal.output.splitlines()[-1]


async def test_the_analysis_is_folded_unless_it_is_asked_for() -> None:
    async with chat_server() as server:
        asked = ("ask", "?", *TWO, *ALL_STAGES, "--plain")
        folded = await run_ultra(*asked, env=server.environment)
        shown = await run_ultra(*asked, "--show", "analysis", env=server.environment)
        wrong = await run_ultra(*asked, "--show", "analyses", env=server.environment)
        async with ultra_on_terminal(*asked[:-1], env=server.environment) as terminal:
            assert await terminal.wait() == 0

    assert b"--- meta" not in folded.stdout
    assert b"--- meta: first" in shown.stdout
    assert (wrong.returncode, b"give one of: analysis" in wrong.stderr) == (2, True)
    assert "Analysis by first, second (--show analysis shows it)" in terminal.output


async def test_how_models_write_is_set_by_flags() -> None:
    asked = ("ask", "?", "-m", "openai:first", "--stages", "initial")
    flags = ("--temperature", "0.5", "--max-tokens", "70", "--option", "top_p=0.9", "--option", "seed=7")
    async with chat_server() as server:
        done = await run_ultra(*asked, *flags, env=server.environment)
        twice = await run_ultra(*asked, "--samples", "2", env=server.environment)

    assert (done.returncode, twice.returncode) == (0, 0), done.stderr
    request = server.scripts["first"].requests[0]
    assert (request["temperature"], request["top_p"], request["seed"]) == (0.5, 0.9, 7)
    assert 70 in {request.get("max_tokens"), request.get("max_completion_tokens")}
    assert len(server.scripts["first"].requests) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--option", "top_p"), "is not name=value"),
        (("--option", "seed=1", "--option", "seed=2"), "gives 'seed' twice"),
        (("--max-tokens", "0"), "max_tokens must be at least 1"),
        (("--judge", "third"), "--judge 'third' is not one of the models: first, second"),
        (("--analysts", "some"), "an option of strategy 'synthesize' is not allowed"),
        (("--strategy-option", "panl=2"), "has no option 'panl'"),
        (("--param", "a=b"), "--param gives values to a template"),
        (("--template", "review"), "there is no template 'review'; there are: none"),
    ],
)
async def test_flags_that_are_wrong_say_what_is_allowed(flags: tuple[str, ...], message: str) -> None:
    done = await run_ultra("ask", "?", *TWO, *flags, env={"OPENAI_API_KEY": "not-a-key"})

    assert (done.returncode, done.stdout) == (2, b"")
    assert message in done.stderr.decode()


async def test_no_cache_asks_anew_what_a_store_has_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    store = f'[cache]\nstore = "sqlite:///{tmp_path}/kept.db"\n[models.a]\nmodel = "openai:first"\n'
    path.write_text(store)
    asked = ("ask", "?", "--config", str(path), "--stages", "initial")
    async with chat_server() as server:
        for further in ((), (), ("--no-cache",)):
            done = await run_ultra(*asked, *further, env=server.environment)
            assert done.returncode == 0, done.stderr

    assert len(server.scripts["first"].requests) == 2
