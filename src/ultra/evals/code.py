"""Running a program that a model wrote against tests, in a process with limits.

The process has an empty directory of its own, no variables of the environment, and limits of processor time,
memory, and size of files. It is not a sandbox: it runs as this user, and reaches the network. So it
is off unless the user allows it.

The tests run in the process of the program, since they call its functions. They are read when the program
was loaded. It has passed if they ran to their end and gave back a number that was drawn for this run and
came with them: to print, to write files, to end the process, or to replace functions of Python proves
nothing. A program that was made to deceive this grader still can: it may read the open file with the tests
and the number, search its own process for them, or return objects that are equal to everything. It may also
leave processes behind in a session of their own. Where programs may be hostile, grade them elsewhere.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["passes", "program_of"]

SECONDS: Final = 10
MEMORY: Final = 1 << 30
_FILE_SIZE: Final = 16 << 20
_FENCED: Final = re.compile(r"```[ \t]*+(?:python|py)?+[ \t]*+\n(.*?)(?:\n```|\Z)", re.DOTALL | re.IGNORECASE)

# After the program was run, nothing is looked up that it can have replaced, and no code of Python's own runs.
_LIMITED: Final = """\
import os, resource, sys, types
def limit(what, value):
    most = resource.getrlimit(what)[1]
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(what, (value, value))
def grade(read=os.read, write=os.write, compile=compile, exec=exec, str=str):
    given, verdict, nothing = os.dup(0), os.dup(1), os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    size = os.fstat(given).st_size
    limit(resource.RLIMIT_CPU, {seconds})
    limit(resource.RLIMIT_AS, {memory})
    limit(resource.RLIMIT_FSIZE, {file_size})
    limit(resource.RLIMIT_CORE, 0)
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__, sys.argv = "program.py", ["program.py"]
    names = module.__dict__
    with open("program.py", encoding="utf-8") as file:
        program = file.read()
    exec(compile(program, "program.py", "exec"), names)
    content = b""
    while piece := read(given, size):
        content += piece
    exec(compile(str(content[{digits}:], "utf-8"), "tests.py", "exec"), names)
    write(verdict, content[:{digits}])
grade()
"""
_DIGITS: Final = 32


def program_of(text: str) -> str:
    """Return the program in an answer: its last block of Python, or all of it where there is no block."""
    blocks = _FENCED.findall(text)
    return blocks[-1] if blocks else text


def passes(text: str, tests: str, *, seconds: float = SECONDS, memory: int = MEMORY) -> bool:
    """Return whether the program in `text`, followed by `tests`, runs to its end without an error.

    A program that ends the process by itself has not passed. This waits for the process, which is killed with
    all that it started after `seconds`. `memory` is bytes of addresses.
    """
    if sys.platform == "win32":
        raise NotImplementedError("the grader 'code' needs the limits of a POSIX system")
    with (
        tempfile.TemporaryDirectory(prefix="ultra-code-") as folder,
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as verdict,
    ):
        Path(folder, "program.py").write_text(program_of(text), "utf-8", "replace")
        number = secrets.token_hex(_DIGITS // 2).encode()
        given.write(number + tests.encode("utf-8", "replace"))
        given.seek(0)
        limited = _LIMITED.format(
            seconds=int(seconds) + 1, memory=memory, file_size=_FILE_SIZE, digits=_DIGITS
        )
        process = subprocess.Popen(  # noqa: S603 - this interpreter; the program is what the user allowed
            [sys.executable, "-I", "-c", limited],
            cwd=folder,
            env={},
            stdin=given,
            stdout=verdict,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
        finally:
            _kill_group(process)
        verdict.seek(0)
        return process.returncode == 0 and verdict.read(len(number) + 1) == number


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the process and all that it has started."""
    import os  # noqa: PLC0415 - `killpg` is not on Windows
    import signal  # noqa: PLC0415 - as above

    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
