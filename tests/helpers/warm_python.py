"""A Python that has imported Ultra, and forks itself for each program it is asked for: `ultra`, or a script.

To start Python and import the command takes half a second of a processor; to fork, some milliseconds. The
run is a process of its own all the same, with its own arguments, variables, working directory and standard
streams, and its own paths to import from. What else is decided before Python runs anything, such as the seed
of hashes, is the same for all.

A command that is run to its end leaves its memory to the system. For Python to take all modules apart takes
longer than most commands, since the memory that is shared with the first Python is copied for that.

Run as a script, this is that Python. For each program it receives over the socket on its standard input the
length of a JSON text, with the program's standard streams and a pipe for its exit code, and then the text.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import CodeType

__all__ = ["ForkedProcess", "WarmPython"]

_LENGTH = struct.Struct("!I")


class WarmPython:
    """The side of the tests. `environment` has the variables of the process that is forked.

    Several threads may run programs at once.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,  # as those of its programs are
                stderr=subprocess.PIPE,
                env=self.environment,
                start_new_session=True,
            )

    async def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        """Run ``ultra`` with these arguments and variables, to its end."""
        return await self._run(["ultra", *arguments], "", environment, stdin)

    async def run_script(
        self, path: Path, source: str, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `source` as if the script at `path` had this text, to its end."""
        return await self._run([str(path)], source, environment, b"")

    def start(
        self, arguments: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]
    ) -> ForkedProcess:
        """Start ``ultra`` in a session of its own, on these three streams, which stay open here.

        Where the first of them is a terminal, it becomes the one that Ctrl-C is pressed on.
        """
        return self._start(["ultra", *arguments], "", environment, streams)

    def _start(
        self, command: list[str], source: str, environment: Mapping[str, str], streams: Sequence[int]
    ) -> ForkedProcess:
        report, reported = os.pipe()
        self._fork(command, source, environment, [*streams, reported], session=True)
        os.close(reported)
        return ForkedProcess(report)

    async def _run(
        self, command: list[str], source: str, environment: Mapping[str, str], stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        pipes = [os.pipe() for _ in range(4)]
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        given, *read = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
        try:
            self._fork(command, source, environment, theirs)
        finally:
            for stream in theirs:
                os.close(stream)
        output: dict[int, bytes] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, given, stdin)
            for number, stream in enumerate(read):
                nursery.start_soon(_read, stream, output, number)
        out, errors, report = (output[number] for number in range(3))
        _, code = report.split()
        return subprocess.CompletedProcess(command, int(code), out, errors)

    def _fork(
        self,
        command: list[str],
        source: str,
        environment: Mapping[str, str],
        streams: Sequence[int],
        *,
        session: bool = False,
    ) -> None:
        text = json.dumps([command, source, dict(environment), os.getcwd(), session]).encode()  # noqa: PTH109
        with self._lock:
            socket.send_fds(self._socket, [_LENGTH.pack(len(text))], streams)
            self._socket.sendall(text)

    def close(self) -> None:
        """End the process, and what may be left of its programs."""
        self._socket.close()
        with self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class ForkedProcess:
    """A program that was started: what tests use of `trio.Process`. Who has made its streams sets them."""

    def __init__(self, report: int) -> None:
        """`report`: a pipe that tells the number of the process, and when it has ended its exit code."""
        self.pid = int(os.read(report, 99))
        self.stdin: trio.abc.SendStream | None = None
        self.stdout: trio.lowlevel.FdStream | None = None
        self.stderr: trio.lowlevel.FdStream | None = None
        self.returncode: int | None = None
        self._report = report
        self._lock = threading.Lock()  # a thread may send a signal while another waits
        os.set_blocking(report, False)

    def poll(self) -> int | None:
        """Return its exit code; None: it has not ended."""
        with self._lock:
            if self.returncode is None:
                with suppress(BlockingIOError):
                    self.returncode = int(os.read(self._report, 99))
                    os.close(self._report)
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


# --- the process that is forked ----------------------------------------------------------------------


def _serve() -> tuple[CodeType | None, bool]:
    """Fork for each program; returns in the process of a program, and never in that which forks.

    Returns:
        the script to run, None: run ``ultra``; and whether the process has a session of its own. The text of
        a script is not kept in any frame below it: a script may look for what is in it in a traceback.
    """
    with socket.socket(fileno=os.dup(0)) as tests:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for programs
        while True:
            head, streams, _, _ = socket.recv_fds(tests, _LENGTH.size, 4)
            if not head:
                os._exit(0)
            (length,) = _LENGTH.unpack(head)
            text = b""
            while len(text) < length:
                text += tests.recv(length - len(text))
            command, source, environment, directory, session = json.loads(text)
            _import(_FOR_COMMANDS.get(command[1], ()) if command[1:] and not source else ())
            # Without this, each program would collect all that is here, at its end, and so copy it.
            gc.freeze()
            if not os.fork():
                break
            for stream in streams:
                os.close(stream)
    _become(command, environment, directory, streams, session=session)
    return compile(source, command[0], "exec") if source else None, session


def _become(
    command: list[str], environment: dict[str, str], directory: str, streams: list[int], *, session: bool
) -> None:
    """Fork once more: one process waits for the other to tell its exit code; this returns in the other."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, report = streams
    program = os.fork()
    if program:
        os.write(report, f"{program}\n".encode())
        for stream in (*standard, 0, 1, 2):
            os.close(stream)
        _, status = os.waitpid(program, 0)
        os.write(report, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(report)
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    if session:
        os.setsid()
    if os.isatty(0) and session:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    if os.isatty(1) and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # as Python does when it starts
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    sys.argv[:] = command


def _run_command(main: Callable[[], int]) -> None:
    """Run ``ultra``, and end this process as Python does, but without taking its modules apart."""
    try:
        sys.exit(main())
    except SystemExit as ended:
        if not isinstance(ended.code, int):
            raise
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        gc.collect()  # what is left in cycles may have something to say
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):  # of a stream that is broken or closed: Python's own end tells it
            raise ended from None
        os._exit(ended.code)


def _run_script(code: CodeType) -> None:
    main_module = ModuleType("__main__")
    main_module.__file__ = code.co_filename
    sys.modules["__main__"] = main_module
    sys.path[0] = str(Path(code.co_filename).parent)
    exec(code, vars(main_module))


_FOR_ALL = (
    *("httpcore", "httpx", "encodings.idna", "platformdirs", "pydantic.type_adapter", "sysconfig"),
    *("sqlite3", "typer", "typer._adapters", "typer._click.decorators"),
    *("encodings.utf_8_sig", "pydantic.plugin._loader", "zoneinfo"),
    *("ultra.cli.app", "ultra.cli.configured_models", "ultra.cli.default_models", "ultra.cli.session"),
    *("ultra.cli.stored_keys", "ultra.cli.templates"),
    *("ultra.clients.http.dialect_clients", "ultra.clients.http.pools", "ultra.clients.local.embedded"),
    *("ultra.config.layers", "ultra.config.loading"),
    *("ultra.durable.runs", "ultra.stores.journal_sqlite", "ultra.stores.sqlite"),
)
_FOR_COMMANDS = {
    "eval": ("scipy.stats", "trio.testing", "ultra.cli.eval_session"),
    "chaos": ("multiprocessing.spawn", "trio.testing", "ultra.simulation.campaign"),
    "serve": (
        "hypercorn.trio",
        "ultra.cli.served_configuration",
        "ultra.service.app",
        "ultra.service.server",
    ),
    "mcp": (
        "anyio._backends._trio",
        "hypercorn.trio",
        "mcp",
        "ultra.cli.served_configuration",
        "ultra.mcp.http",
        "ultra.mcp.server",
        "ultra.mcp.stdio",
    ),
    "provider": ("hypercorn.trio", "ultra.faults.provider"),
}
"""What takes long to import, and only these commands need: imported when the first of them is run."""


def _import(modules: Sequence[str]) -> None:
    for module in modules:
        with suppress(ImportError):  # an extra that is not installed
            import_module(module)


if __name__ == "__main__":
    # Threads of libraries for numbers would not be there in a process that is forked.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from ultra.cli import main
    from ultra.cli.commands import COMMANDS

    _import([*_FOR_ALL, *(command.module for command in COMMANDS)])
    script, has_session = _serve()
    if script is not None:
        _run_script(script)
    else:
        sys.argv[0] = "-c"
        sys.path[0] = ""  # as for python -c
        if has_session:
            sys.exit(main())
        _run_command(main)
