"""A command that goes on in a process of its own, after the one that started it has ended."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from ultra.cli.output import write

__all__ = ["run_in_background"]


def run_in_background(arguments: list[str]) -> int:
    """Run `ultra` with these arguments, write what it writes to stdout until it closes that, and leave it.

    Return 0, or the exit code of a command that ended before. Its errors up to then are written to stderr;
    later ones, and its log, go nowhere. Ctrl-C does not reach it.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, and this command
            [sys.executable, "-m", "ultra", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        written = process.stdout.read()
        # A command that fails closes stdout by its end, before it has said anything there.
        code = 0 if written else process.wait()
        errors.seek(0)
        write(*errors.read().decode(errors="replace").splitlines(), to_stderr=True)
    write(*written.decode(errors="replace").splitlines())
    process.returncode = code  # it is left on purpose, and needs no warning
    return code
