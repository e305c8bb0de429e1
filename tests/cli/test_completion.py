"""What shells complete, by the protocol of each."""

# ruff: noqa: ASYNC221 - small files of the test
from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers.command_line import environment, run_ultra

if TYPE_CHECKING:
    from pathlib import Path

OWN = '[models.heavy]\nmodel = "openai:x"\n[models."a $(b)"]\nmodel = "openai:y"\n[ensembles.council]\n'


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "ultra"
    (folder / "templates").mkdir(parents=True)
    (folder / "ultra.toml").write_text(OWN)
    (folder / "templates" / "review.toml").write_text('prompt = "x"\n')
    return {"XDG_CONFIG_HOME": str(tmp_path)}


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
    ],
)
async def test_commands_options_and_names_are_completed(
    shell: str, line: str, completed: str, home: dict[str, str]
) -> None:
    done = await run_ultra(env={**home, **asking(shell, line)})

    assert done.returncode == 0, done.stderr
    assert completed in done.stdout.decode()


async def test_names_that_a_shell_would_take_for_more_are_left_out(home: dict[str, str]) -> None:
    done = await run_ultra(env={**home, **asking("zsh", "ultra ask --models ")})

    assert b"heavy" in done.stdout
    assert b"$(b)" not in done.stdout


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
    words: list[str], replies: list[str], home: dict[str, str], tmp_path: Path
) -> None:
    script = (await run_ultra("completion", "bash")).stdout.decode()
    quoted = " ".join(f"'{word}'" for word in words)
    test = f"""{script}
    COMP_WORDBREAKS=$' \\t\\n:='
    COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}
    _ultra_completion ultra
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    command = tmp_path / "bin" / "ultra"
    command.parent.mkdir()
    from helpers.command_line import ULTRA  # noqa: PLC0415 - of this test alone

    command.write_text(f'#!/bin/sh\nexec {ULTRA[0]} -m ultra "$@"\n')
    command.chmod(0o755)
    env = environment(home)
    env["PATH"] = f"{command.parent}:{env['PATH']}"
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
