"""What shells complete, by the protocol of each."""

# ruff: noqa: ASYNC221 - small files of the test
from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.command_line import PATIENCE, environment, programs, run_ultra
from helpers.shells import shell_on_terminal
from ultra.messages.request import ModelRequest
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.journal_contract import RunRecord
from ultra.stores.journal_sqlite import SqliteJournal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helpers.screen import Screen

OWN = '[models.heavy]\nmodel = "openai:x"\n[models."a $(b)"]\nmodel = "openai:y"\n[ensembles.council]\n'
HOSTILE = (
    "a `b`",
    "$(b)",
    "a'b",
    'a"b',
    "a;b",
    "[a-z]",
    "{a,b}",
    "--config=x.toml",
    "a\nb",
    "a\tb",
    "a\u202eb",
)
"""Names that a shell takes for more than a word, or that a reader does."""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "ultra"
    (folder / "templates").mkdir(parents=True)
    (folder / "ultra.toml").write_text(OWN)
    (folder / "templates" / "review.toml").write_text('prompt = "x"\n')
    return {"XDG_CONFIG_HOME": str(tmp_path)}


def with_command(home: dict[str, str]) -> dict[str, str]:
    """The environment of a shell that finds `ultra` on its PATH."""
    env = environment(home)
    return {**env, "PATH": f"{programs()}:{env['PATH']}"}


def asking(shell: str, line: str) -> dict[str, str]:
    """What the script of a shell puts into the environment."""
    words = line.split(" ")
    if shell == "bash":
        asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    else:
        asked = {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    return {"_ULTRA_COMPLETE": f"complete_{shell}", **asked}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ultra as", "ask"),
        ("ultra ask --ens", "--ensemble"),
        ("ultra ask --ensemble co", "council"),
        ("ultra ask -t re", "review"),
        ("ultra ask --strategy syn", "synthesize"),
        ("ultra ask --models he", "heavy"),
        ("ultra chat -e co", "council"),
        ("ultra templates show re", "review"),
        ("ultra keys set mist", "mistral"),
        ("ultra strategies syn", "synthesize"),
        ("ultra ask --option top", "top_p="),
        ("ultra chat --option he", "heavy."),
        ("ultra ask --option heavy.se", "heavy.seed="),
    ],
)
async def test_commands_options_and_names_are_completed(
    shell: str, line: str, completed: str, home: dict[str, str]
) -> None:
    done = await run_ultra(env={**home, **asking(shell, line)})

    assert done.returncode == 0, done.stderr
    assert completed in done.stdout.decode()


async def test_options_that_the_api_of_a_model_does_not_have_are_not_completed(home: dict[str, str]) -> None:
    async def completed(line: str) -> list[str]:
        return (await run_ultra(env={**home, **asking("fish", line)})).stdout.decode().split()

    assert await completed("ultra ask -m anthropic:claude-x --option claude-x.se") == []
    assert await completed("ultra ask -m openai:o3-pro --option o3-pro.st") == []  # the Responses API
    assert await completed("ultra ask -m openai:gpt-4o --option gpt-4o.st") == ["gpt-4o.stop="]
    assert "gpt.5.temperature=" in await completed("ultra ask -m openai:gpt.5 --option gpt.5.")


async def test_names_that_a_shell_would_take_for_more_are_left_out(home: dict[str, str]) -> None:
    done = await run_ultra(env={**home, **asking("zsh", "ultra ask --models ")})

    assert b"heavy" in done.stdout
    assert b"$(b)" not in done.stdout


@pytest.mark.parametrize("line", ["ultra ask --models ", "ultra ask --ensemble ", "ultra ask --option "])
async def test_no_hostile_name_of_a_found_configuration_is_completed(
    line: str, home: dict[str, str], tmp_path: Path
) -> None:
    sections = (f"[models.{json.dumps(name)}]\n[ensembles.{json.dumps(name)}]\n" for name in HOSTILE)
    (tmp_path / "ultra" / "ultra.toml").write_text("[models.heavy]\n[ensembles.heavy]\n" + "".join(sections))
    completed = (await run_ultra(env={**home, **asking("fish", line)})).stdout.decode().splitlines()

    assert [name for name in completed if "heavy" in name]
    assert not {*HOSTILE, *(f"{name}." for name in HOSTILE), "a", "b", "b."} & {*completed}
    assert "-" not in {name[:1] for name in completed}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_run_is_completed_whatever_was_asked(
    shell: str, home: dict[str, str], tmp_path: Path
) -> None:
    asked = ("[/no] a [link=x]tag[/link]", "$(b) `c`:d\te\nf", "\x1b[31m\u202eg\\")
    env = {**home, **await journal_of_questions(tmp_path, asked), **asking(shell, "ultra runs show ")}
    done = await run_ultra(env=env)

    assert (done.returncode, done.stderr) == (0, b"")
    assert [f"{'bca'[number]}{number:031}" in done.stdout.decode() for number in range(3)] == [True] * 3
    assert b"\x1b" not in done.stdout
    if shell == "fish":
        assert "[/no] a [link=x]tag[/link]" in done.stdout.decode()


async def test_a_configuration_that_is_broken_completes_nothing_and_says_nothing(
    home: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "ultra" / "ultra.toml").write_text("[[[")
    done = await run_ultra(env={**home, **asking("bash", "ultra ask --ensemble co")})

    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"", b"")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "replies"),
    [
        (["ultra", "ask", "-m", "openai", ":", "gpt-4o-min"], ["gpt-4o-mini"]),
        (["ultra", "ask", '"two words"', "--ensemble", "co"], ["council"]),
        (["ultra", "ask", "--ensemble", "=", "co"], ["council"]),
    ],
)
async def test_the_script_of_bash_completes_across_its_own_word_breaks(
    words: list[str], replies: list[str], home: dict[str, str]
) -> None:
    script = (await run_ultra("completion", "bash")).stdout.decode()
    quoted = " ".join(f"'{word}'" for word in words)
    test = f"""{script}
    COMP_WORDBREAKS=$' \\t\\n:='
    COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
    _ultra_completion ultra
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    env = with_command(home)
    done = subprocess.run(
        ["bash", "--norc", "-c", test], env=env, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.stderr == ""
    assert set(replies) <= set(done.stdout.split())
    assert all(reply.startswith(replies[0]) for reply in done.stdout.split())


async def test_each_shell_has_a_script_and_others_have_none() -> None:
    for shell, part in (("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --command ultra")):
        done = await run_ultra("completion", shell)
        assert part in done.stdout.decode()
    other = await run_ultra("completion", "tcsh")

    assert (other.returncode, b"the shells are: bash, zsh, fish" in other.stderr) == (2, True)


QUESTIONS = ("Which is the first?", "Which is the second?", "Which is the third?")
"""In the order in which they are asked; the ids of their runs are in another order."""


async def journal_of_questions(folder: Path, questions: Sequence[str] = QUESTIONS) -> dict[str, str]:
    """Keep three runs, and return the variable that says where they are."""
    path = folder / "ultra" / "runs.db"
    path.parent.mkdir(exist_ok=True)
    journal = SqliteJournal(path)
    for number, question in enumerate(questions):
        spec = RunSpec(
            request=ModelRequest.of(question), models=("heavy",), strategy=StrategySpec(name="vote")
        )
        run_id = f"{'bca'[number]}{number:031}"
        await journal.add(RunRecord(run_id=run_id, spec=spec, created=1_000.0 + number))
    await journal.aclose()
    return {"XDG_DATA_HOME": str(folder)}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_lists_the_newest_run_first(shell: str, home: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    env = with_command({**home, **await journal_of_questions(tmp_path)})
    async with shell_on_terminal(shell, env, tmp_path, columns=60) as terminal:
        await terminal.type("ultra log show \t\t" if shell == "bash" else "ultra log show \t")
        await terminal.wait_until(lambda screen: screen_has(screen, f"b{0:031}"))
        listed = [
            each[-1] for row in terminal.screen.rows[1:] for each in re.findall(r"[abc]0{30}[012]", row)
        ]

    assert listed == ["2", "1", "0"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_a_shell_completes_files_and_models_with_a_colon(
    shell: str, home: dict[str, str], tmp_path: Path
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    (tmp_path / "photo.png").touch()
    env = with_command(home)
    async with shell_on_terminal(shell, env, tmp_path) as terminal:
        await terminal.type("ultra ask --image pho\t")
        await terminal.wait_until(lambda screen: screen.rows[-1].endswith("--image photo.png"))
        await terminal.type(" -m openai:gpt-4o-m\t")
        await terminal.wait_until(lambda screen: screen_has(screen, "openai:gpt-4o-mini"))


@pytest.mark.skipif(shutil.which("zsh") is None, reason="there is no zsh")
async def test_ctrl_c_ends_a_completion_of_zsh_without_a_word(home: dict[str, str], tmp_path: Path) -> None:
    env = with_command(home)
    command = tmp_path / "bin" / "ultra"
    command.parent.mkdir()
    real = f'#!/bin/sh\nexec {programs() / "ultra"} "$@"\n'
    command.write_text(real)
    command.chmod(0o755)
    env["PATH"] = f"{command.parent}:{env['PATH']}"
    async with shell_on_terminal("zsh", env, tmp_path) as terminal:
        pid = tmp_path / "pid"
        command.write_text(f"#!/bin/sh\necho $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60\n")
        await terminal.type("ultra log show \t")
        with trio.fail_after(PATIENCE):
            while not pid.exists():  # noqa: ASYNC110 - another process makes it
                await trio.sleep(0.01)
        await terminal.type("\x03")
        command.write_text(real)
        await terminal.type("\x15echo go''ne on\n")
        await terminal.wait_until(lambda screen: "gone on" in screen.rows[-2:][0])
        assert "Killed" not in terminal.output


def screen_has(screen: Screen, text: str) -> bool:
    return any(text in row for row in screen.rows[1:])
