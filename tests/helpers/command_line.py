"""Runs `ultra` as a real process: with pipes, or on a terminal of its own."""

from __future__ import annotations

import atexit
import codecs
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import asynccontextmanager, suppress
from fcntl import ioctl
from functools import cache
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio

from helpers.screen import Screen
from helpers.warm_python import ForkedProcess, WarmPython, started_with

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

ULTRA = (sys.executable, "-c", "import sys; from ultra.cli import main; sys.exit(main())")
"""`ultra` in a Python of its own. What tests start again and again is in `programs()`."""

PATIENCE = 60
"""Seconds after which a test gives up: far more than anything takes, on a machine that is busy."""

_KEPT = (
    *("PATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV"),
    *("PYTHONPATH", "PYTHONPYCACHEPREFIX"),
)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that the program sees: no keys, proxies or terminal settings of the developer's."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    nowhere = dict.fromkeys(("XDG_CONFIG_HOME", "XDG_STATE_HOME"), "/dev/null")  # nor their own files
    own = {"XDG_DATA_HOME": data_folder(), **nowhere}
    return {"PYTHONUTF8": "1", "TERM": "xterm-256color", **own, **kept, **(extra or {})}


@cache
def data_folder() -> str:
    """The folder of the journal of programs that are given no other: of this run of the tests, and empty."""
    folder = TemporaryDirectory(prefix="ultra-tests-")
    atexit.register(folder.cleanup)
    return folder.name


async def run_ultra(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `ultra` with pipes, to its end; in a Python that is forked, where that makes no difference."""
    variables = environment(env)
    python = warm_python()
    with trio.fail_after(PATIENCE):
        if started_with(variables) == started_with(python.environment):
            return await python.run(arguments, variables, stdin)
        return await trio.run_process(
            [*ULTRA, *arguments],
            env=variables,
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@cache
def warm_python() -> WarmPython:
    """Return the Python that is forked, in `environment()`; the first call starts it."""
    python = WarmPython(environment())
    atexit.register(python.close)
    return python


def programs() -> Path:
    """Return a folder for the PATH, whose `ultra` and `python` are forked, for others to start."""
    return warm_python().programs


@asynccontextmanager
async def ultra_running(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
) -> AsyncIterator[ForkedProcess]:
    """Run `ultra` beside the test, with pipes or these streams; in a Python that is forked."""
    variables = environment(env)
    python = warm_python()
    assert started_with(variables) == started_with(python.environment)
    streams = [_stream(stdin, 0), _stream(stdout, 1), _stream(subprocess.PIPE, 2)]
    try:
        process = python.start(arguments, variables, [theirs for theirs, _ in streams])
    finally:
        for theirs, _ in streams:
            if theirs != stdout:
                os.close(theirs)
    process.stdin, process.stdout, process.stderr = (
        None if ours is None else trio.lowlevel.FdStream(ours) for _, ours in streams
    )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            await process.aclose()


def _stream(given: int, number: int) -> tuple[int, int | None]:
    """Return the end of a standard stream that the program gets, and the other end if it is a pipe."""
    if given == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR), None
    if given != subprocess.PIPE:
        return given, None
    reading, writing = os.pipe()
    return (writing, reading) if number else (reading, writing)


async def ended(process: ForkedProcess) -> tuple[int, str]:
    """The exit code of a process and what it wrote to stderr."""
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        errors = b"".join([data async for data in process.stderr])
        return await process.wait(), errors.decode()


def interrupt(process: ForkedProcess, number: int = signal.SIGINT) -> None:
    """Send a signal to the program and all that belongs to it, as a terminal does at Ctrl-C."""
    os.killpg(process.pid, number)


class Terminal:
    """`ultra` on a pseudo-terminal; `output` is all that it has written to it, `screen` what stands there."""

    def __init__(self, process: ForkedProcess, master: int, screen: Screen) -> None:
        self.process = process
        self.screen = screen
        self.output = ""
        self._master = trio.lowlevel.FdStream(master)
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    async def wait_for(self, text: str) -> None:
        """Wait until the program has written `text`; fails if it ends before."""
        with trio.fail_after(PATIENCE):
            while text not in self.output:
                assert await self._read(), f"it ended without writing {text!r}, but:\n{self.output}"

    async def wait_until(self, shows: Callable[[Screen], bool]) -> None:
        """Wait until ``shows(screen)``; fails if the program ends before."""
        with trio.fail_after(PATIENCE):
            while not shows(self.screen):
                assert await self._read(), "it ended without showing that, but:\n" + "\n".join(
                    self.screen.rows
                )

    async def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size, while the program stands still."""
        os.kill(self.process.pid, signal.SIGSTOP)
        state = trio.Path(f"/proc/{self.process.pid}/stat")
        with trio.fail_after(PATIENCE):
            while (await state.read_text()).rpartition(")")[2].split()[0] != "T":  # noqa: ASYNC110 - no event
                await trio.sleep(0.001)
        with trio.move_on_after(0.1):  # what it has written has arrived by then, on any machine
            while await self._read():
                pass
        self.screen.resize(columns, lines)
        ioctl(self._master.fileno(), termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.process.pid, signal.SIGCONT)

    async def type(self, text: str) -> None:
        """Press keys; ``\\x03`` is Ctrl-C."""
        await self._master.send_all(text.encode())

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._master.fileno())[3] & termios.ECHO)

    async def wait(self) -> int:
        """Wait until it has ended and return its exit code; fails if a process of its is left."""
        with trio.fail_after(PATIENCE):
            while await self._read():
                pass
            code = await self.process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, 0)
            raise AssertionError("a process of the program has outlived it")
        return code

    async def _read(self) -> bool:
        try:
            data = await self._master.receive_some()
        except trio.BrokenResourceError:  # EIO: what Linux says when the other side is closed
            return False
        text = self._decoder.decode(data)
        self.output += text
        self.screen.feed(text)
        return bool(data)

    async def aclose(self) -> None:
        """End the program, if the test has not, and the terminal."""
        await self._master.aclose()
        await self.process.aclose()


@asynccontextmanager
async def ultra_on_terminal(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    columns: int = 100,
    lines: int = 40,
    wraps: bool = True,
) -> AsyncIterator[Terminal]:
    """Run `ultra` on a terminal of this size; `wraps`: see `Screen`."""
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = warm_python().start(arguments, environment(env), [slave] * 3)
    os.close(slave)
    terminal = Terminal(process, master, Screen(columns, lines, wraps=wraps))
    try:
        yield terminal
    finally:
        with trio.CancelScope(shield=True):
            await terminal.aclose()
