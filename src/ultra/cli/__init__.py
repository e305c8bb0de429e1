"""The command `ultra`. Importing this does not import typer and rich, which are in the extra ``cli``."""

from __future__ import annotations

import os
import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["STDOUT_CLOSED", "discard_stdout", "main"]

INTERRUPTED = 128 + signal.SIGINT
STDOUT_CLOSED = 141
"""The exit code of a program that SIGPIPE has ended."""


def main() -> int:
    """Run the command line and return the exit code.

    0: done, perhaps degraded, which the output says. 1: it failed. 2: it was called wrongly, or the extra is
    missing. 130: interrupted (143: by SIGTERM). 141: stdout was closed by its reader.
    """
    # A program may be started without these streams; then they are None.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123 - for as long as the program runs
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123 - as above
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt_once)
        return _run(sys.argv[1:])
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        # Only Python's own shutdown follows, which would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupt_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """Raise KeyboardInterrupt; a second Ctrl-C must not interrupt what the first one began."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def _run(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # without typer, which takes long to import, and may be missing
        from ultra.cli.version import version_line  # noqa: PLC0415 - only now needed

        return _write(f"{version_line()}\n")
    if find_spec("typer") is None or find_spec("rich") is None:
        from ultra.errors import MissingExtra  # noqa: PLC0415 - as above

        sys.stderr.write(f"ultra: {MissingExtra('the command line', 'cli')}\n")
        return 2
    from ultra.cli.app import run  # noqa: PLC0415 - the extra is there

    return run(arguments)


def _write(text: str) -> int:
    """Write to stdout, and return the exit code; as `ultra.cli.app` does, which needs the extra."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        discard_stdout()
        if isinstance(error, BrokenPipeError):
            return STDOUT_CLOSED
        sys.stderr.write(f"ultra: the operating system reports: {error}\n")
        return 1
    return 0


def discard_stdout() -> None:
    """Discard what stdout still holds: Python flushes it at its end, and would report an error."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
