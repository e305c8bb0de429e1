"""A Python that has imported Ultra, and forks itself for each program it is asked for: `ultra`, or a script.

To start Python and import the command takes half a second of a processor; to fork, some milliseconds. The
run is a process of its own all the same, with its own arguments, variables, working directory and standard
streams, and its own paths to import from. What else is decided before Python runs anything, such as the seed
of hashes, is the same for all.

This is the side of the tests. `warm_server.py` is the Python that forks, and `warm_program.py` is what shells
and other programs start in place of `ultra` or Python.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ForkedProcess", "WarmPython", "started_with"]

_HERE = Path(__file__).parent


def started_with(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that Python reads when it starts, but for those that can be followed later."""
    later = {"PYTHONPATH", "PYTHON_KEYRING_BACKEND", "PYTHONUNBUFFERED"}
    return {
        name: value for name, value in variables.items() if name.startswith("PYTHON") and name not in later
    }


class WarmPython:
    """The side of the tests. `environment` has the variables of the process that is forked.

    Several threads may run programs at once.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._folder = TemporaryDirectory(prefix="ultra-python-")
        self._address = os.path.join(self._folder.name, "socket")  # noqa: PTH118 - what a socket takes
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(self._address)
            listening.listen(100)
            self._process = subprocess.Popen(
                [sys.executable, str(_HERE / "warm_server.py"), str(listening.fileno())],
                stdin=subprocess.PIPE,  # whose end tells it that the tests have ended
                stdout=subprocess.PIPE,  # as those of its programs are
                stderr=subprocess.PIPE,
                env=self.environment,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        self.programs = Path(self._folder.name, "bin")
        """A folder for the PATH, with what stands in for `ultra` and for `python`."""
        self.programs.mkdir()
        for name in ("ultra", "python"):
            self._write_program(self.programs / name)

    def _write_program(self, path: Path) -> None:
        given = (self._address, sys.executable, started_with(self.environment))
        source = (_HERE / "warm_program.py").read_text("utf-8")
        path.write_text(f"#!{sys.executable} -IS\n{source}\n\nmain(*{given!r})\n", "utf-8")
        path.chmod(0o755)

    async def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``ultra`` with these arguments and variables, to its end."""
        return await self._run(["ultra", *arguments], None, environment, stdin, None)

    async def run_script(
        self, path: Path, source: str, environment: Mapping[str, str], *, starts_others: bool = False
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `source` as if the script at `path` had this text, to its end.

        `starts_others`: what it starts with `sys.executable` is forked too, and the `ultra` beside that.
        """
        executable = self.programs / "python" if starts_others else None
        return await self._run([str(path)], source, environment, b"", executable)

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
    ) -> ForkedProcess:
        """Start ``ultra`` in a session of its own, on these three streams, which stay open here.

        Where the first of them is a terminal, it becomes the one that Ctrl-C is pressed on.
        """
        return ForkedProcess(self._fork(["ultra", *arguments], None, environment, streams, session=True))

    async def _run(
        self,
        command: list[str],
        source: str | None,
        environment: Mapping[str, str],
        stdin: bytes,
        executable: Path | None,
    ) -> subprocess.CompletedProcess[bytes]:
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        given, *read = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
        try:
            report = self._fork(command, source, environment, theirs, executable=executable)
        finally:
            for stream in theirs:
                os.close(stream)
        output: dict[int, bytes] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, given, stdin)
            for number, stream in enumerate((*read, report.detach())):
                nursery.start_soon(_read, stream, output, number)
        out, errors, told = (output[number] for number in range(3))
        _, code = told.split()
        return subprocess.CompletedProcess(command, int(code), out, errors)

    def _fork(
        self,
        command: list[str],
        source: str | None,
        environment: Mapping[str, str],
        streams: Sequence[int],
        *,
        session: bool = False,
        executable: Path | None = None,
    ) -> socket.socket:
        directory = os.getcwd()  # noqa: PTH109 - a text
        python = None if executable is None else str(executable)
        told = marshal.dumps((command, source, dict(environment), directory, session, python))
        report = socket.socket(socket.AF_UNIX)
        report.connect(self._address)
        socket.send_fds(report, [len(told).to_bytes(4, "big")], streams)
        report.sendall(told)
        return report

    def close(self) -> None:
        """End the process, and what may be left of its programs."""
        with self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._folder.cleanup()


class ForkedProcess:
    """A program that was started: what tests use of `trio.Process`. Who has made its streams sets them."""

    def __init__(self, report: socket.socket) -> None:
        """`report`: tells the number of the process, and when it has ended its exit code."""
        told = b""
        while not told.endswith(b"\n"):
            told += report.recv(1)
        self.pid = int(told)
        self.stdin: trio.abc.SendStream | None = None
        self.stdout: trio.lowlevel.FdStream | None = None
        self.stderr: trio.lowlevel.FdStream | None = None
        self.returncode: int | None = None
        self._report = report
        self._lock = threading.Lock()  # a thread may send a signal while another waits
        report.settimeout(0)

    def poll(self) -> int | None:
        """Return its exit code; None: it has not ended."""
        with self._lock:
            if self.returncode is None:
                with suppress(BlockingIOError):
                    self.returncode = int(self._report.recv(99))
                    self._report.close()
            return self.returncode

    async def wait(self) -> int:
        """Wait until it has ended, and return its exit code."""
        while (code := self.poll()) is None:
            await trio.lowlevel.wait_readable(self._report)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Kill it, and close the streams."""
        with suppress(ProcessLookupError):
            self.kill()
        await self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                await stream.aclose()


async def _write(stream: int, data: bytes) -> None:
    async with trio.lowlevel.FdStream(stream) as pipe:
        with suppress(trio.BrokenResourceError):  # the program ended without reading all
            await pipe.send_all(data)


async def _read(stream: int, output: dict[int, bytes], number: int) -> None:
    async with trio.lowlevel.FdStream(stream) as pipe:
        output[number] = b"".join([piece async for piece in pipe])
