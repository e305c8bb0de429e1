"""A Python that has imported Ultra, and forks itself for each program it is asked for: `ultra`, or a script.

To start Python and import the command takes half a second of a processor; to fork, some milliseconds. The
run is a process of its own all the same, with its own arguments, variables, working directory and standard
streams, and its own paths to import from. What else is decided before Python runs anything, such as the seed
of hashes, is the same for all.

Run as a script, this is that Python. For each program it receives over the socket on its standard input the
length of a JSON text, with the program's standard streams and a pipe for its exit code, and then the text.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType

__all__ = ["WarmPython"]

_LENGTH = struct.Struct("!I")


class WarmPython:
    """The side of the tests. `environment` has the variables of the process that is forked.

    Several threads may run programs at once.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._lock = Lock()
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

    async def _run(
        self, command: list[str], source: str, environment: Mapping[str, str], stdin: bytes
    ) -> subprocess.CompletedProcess[bytes]:
        pipes = [os.pipe() for _ in range(4)]
        theirs = [pipes[0][0], *(pipe[1] for pipe in pipes[1:])]
        given, *read = [pipes[0][1], *(pipe[0] for pipe in pipes[1:])]
        text = json.dumps([command, source, dict(environment), os.getcwd()]).encode()  # noqa: PTH109
        try:
            with self._lock:
                socket.send_fds(self._socket, [_LENGTH.pack(len(text))], theirs)
                self._socket.sendall(text)
        finally:
            for stream in theirs:
                os.close(stream)
        output: dict[int, bytes] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, given, stdin)
            for number, stream in enumerate(read):
                nursery.start_soon(_read, stream, output, number)
        out, errors, code = (output[number] for number in range(3))
        assert code, "the process that is forked has ended"
        return subprocess.CompletedProcess(command, int(code), out, errors)

    def close(self) -> None:
        """End the process, and what may be left of its programs."""
        self._socket.close()
        with self._process, suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


async def _write(stream: int, data: bytes) -> None:
    async with trio.lowlevel.FdStream(stream) as pipe:
        with suppress(trio.BrokenResourceError):  # the program ended without reading all
            await pipe.send_all(data)


async def _read(stream: int, output: dict[int, bytes], number: int) -> None:
    async with trio.lowlevel.FdStream(stream) as pipe:
        output[number] = b"".join([piece async for piece in pipe])


# --- the process that is forked ----------------------------------------------------------------------


def _serve() -> CodeType | None:
    """Fork for each program; returns in the process of a program, and never in that which forks.

    Returns:
        the script to run; None: run ``ultra``. The text of a script is not kept in any frame below it: a
        script may look for what is in it in a traceback.
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
            command, source, environment, directory = json.loads(text)
            _import(_FOR_COMMANDS.get(command[1], ()) if command[1:] and not source else ())
            # Without this, each program would collect all that is here, at its end, and so copy it.
            gc.freeze()
            if not os.fork():
                break
            for stream in streams:
                os.close(stream)
    _become(command, environment, directory, streams)
    return compile(source, command[0], "exec") if source else None


def _become(command: list[str], environment: dict[str, str], directory: str, streams: list[int]) -> None:
    """Fork once more: one process waits for the other to tell its exit code; this returns in the other."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, code = streams
    program = os.fork()
    if program:
        for stream in (*standard, 0, 1, 2):
            os.close(stream)
        _, status = os.waitpid(program, 0)
        os.write(code, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.close(code)
    for number, stream in enumerate(standard):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    sys.argv[:] = command


def _run_script(code: CodeType) -> None:
    main_module = ModuleType("__main__")
    main_module.__file__ = code.co_filename
    sys.modules["__main__"] = main_module
    sys.path[0] = str(Path(code.co_filename).parent)
    exec(code, vars(main_module))


_FOR_ALL = (
    *("httpcore", "httpx", "encodings.idna", "platformdirs", "pydantic.type_adapter", "sysconfig"),
    *("sqlite3", "typer", "typer._adapters", "zoneinfo"),
    *("ultra.cli.app", "ultra.cli.configured_models", "ultra.cli.default_models", "ultra.cli.session"),
    *("ultra.cli.stored_keys", "ultra.cli.templates"),
    *("ultra.clients.http.dialect_clients", "ultra.clients.http.pools", "ultra.clients.local.embedded"),
    *("ultra.config.layers", "ultra.config.loading"),
    *("ultra.durable.runs", "ultra.stores.journal_sqlite", "ultra.stores.sqlite"),
)
_FOR_COMMANDS = {
    "eval": ("scipy.stats", "trio.testing", "ultra.cli.eval_session"),
    "chaos": ("trio.testing", "ultra.simulation.campaign"),
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
    script = _serve()
    if script is None:
        sys.argv[0] = "-c"
        sys.path[0] = ""  # as for python -c
        sys.exit(main())
    _run_script(script)
