"""The command `ultra` itself: its help, its version, what it imports, and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

import msgspec
import pytest
import typer

from helpers.command_line import ended, run_ultra, ultra_running
from ultra.cli import app, commands
from ultra.errors import BadCall, UltraError


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_without_its_extra_the_command_names_it_in_one_line_and_ends_with_2() -> None:
    for missing in ("typer", "rich"):
        code = f"import sys; sys.modules[{missing!r}] = None; from ultra.cli import main; sys.exit(main())"

        done = run_python(code, "ask", "Why?")

        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"ultra: .*'cli'.*pip install \"ultra-llm\[cli\]\"\n", done.stderr)


def test_neither_ultra_nor_its_command_line_imports_typer_or_rich_before_it_runs() -> None:
    done = run_python("import sys; sys.modules.update(typer=None, rich=None); import ultra, ultra.cli")

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--version"], {"typer", "rich", "trio", "httpx", "structlog"}),
        (["--help"], {"rich", "trio", "httpx", "structlog", "ultra.cli.ask", "ultra.cli.models"}),
        (["ask", "--help"], {"rich", "trio", "httpx", "structlog", "ultra.cli.session"}),
        (["ask", "--typo"], {"rich", "trio", "httpx", "structlog", "ultra.cli.session"}),
        (["models", "--help"], {"rich", "trio", "httpx", "structlog", "ultra.clients.providers"}),
    ],
)
def test_what_needs_no_model_imports_nothing_for_one(arguments: list[str], never: set[str]) -> None:
    code = (
        "import sys; from ultra.cli import main; before = {*sys.modules}; main();"
        "print(*(sys.modules.keys() - before), sep='\\n', file=sys.stderr)"
    )

    done = run_python(code, *arguments)

    assert "ultra.cli.version" in done.stderr.splitlines()
    assert never & set(done.stderr.splitlines()) == set()


@pytest.mark.parametrize(
    ("arguments", "code", "told"), [("--version", 0, "ultra 0."), ("ask hello", 2, "needs the extra 'cli'")]
)
def test_without_its_extra_the_command_tells_its_version_and_what_it_needs(
    arguments: str, code: int, told: str
) -> None:
    program = "import sys; sys.modules['typer'] = None; from ultra.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == code
    assert told in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"ultra {version('ultra-llm')}\n"


def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "ultra", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, f"ultra {version('ultra-llm')}\n")


async def test_a_version_that_nobody_reads_ends_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with ultra_running("--version", stdout=writer) as process:
        os.close(writer)
        assert await ended(process) == (141, "")


def test_h_is_short_for_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["ask"], ["config", "init"]):
        assert app.run([*command, "-h"]) == 0
        short = capsys.readouterr().out
        assert app.run([*command, "--help"]) == 0
        assert short == capsys.readouterr().out


async def test_options_that_do_not_exist_are_told_in_json_where_json_is_wanted() -> None:
    done = await run_ultra("ask", "Why?", "--json", "--typo")

    error = msgspec.json.decode(done.stdout)["error"]
    assert (done.returncode, error["type"]) == (2, "UsageError")
    assert error["message"] in done.stderr.decode()


def test_the_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--help"]) == 0

    shown = capsys.readouterr().out
    for command in commands.COMMANDS:
        assert re.search(rf"^  {command.name} +{command.summary}$", shown, re.MULTILINE)


def test_every_command_has_its_app_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in commands.COMMANDS:
        assert isinstance(import_module(command.module).app, typer.Typer)
        assert app.run([command.name, "--help"]) == 0
        assert f"Usage: ultra {command.name} " in capsys.readouterr().out


def test_without_a_command_the_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("Usage: ultra ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aks"], r"No such command 'aks'\. Did you mean 'ask'\? \(see: ultra --help\)"),
        (["ask"], r"there is no question; give one: ultra ask .*"),
        (["ask", "Why?", "--jsn"], r"No such option: --jsn .*\(see: ultra ask --help\)"),
        (["ask", "Why?", "--timeout", "soon"], r"Invalid value for '--timeout': .*number.*"),
        (["ask", "Gr\udcfc\udcdfe?"], r"the argument 'Gr\\udcfc.*' has bytes that are not text.*"),
    ],
)
def test_what_the_command_line_gets_wrong_is_one_line_and_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(f"ultra: {message}\n", output.err), output.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (BadCall("this is\nnot allowed"), 2, "ultra: this is not allowed\n"),
        (UltraError("the model \x1b[2Jfailed"), 1, "ultra: the model ␛[2Jfailed\n"),
        (
            KeyError("oops"),
            1,
            "ultra: internal error, please report it (-vv shows where): KeyError: 'oops'\n",
        ),
    ],
)
def test_an_error_of_a_command_is_one_line_and_decides_the_exit_code(
    error: Exception,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(app, "_call", fail)

    assert app.run([]) == code
    assert capsys.readouterr().err == message
