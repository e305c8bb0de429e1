"""The Python that is forked for each program: see `warm_python.py`.

Run as a script, with the number of a socket on which it listens. Who connects sends the length of a text with
the program's standard streams, and then the text; the connection then tells them the number of the process, a
line, and its exit code when it has ended. Who closes the connection before kills the program.

A program that is run to its end leaves its memory to the system. For Python to take all modules apart takes
longer than most commands, since the memory that is shared with the first Python is copied for that.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import io
import marshal
import os
import select
import signal
import socket
import sys
import termios
import threading
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType


def _serve() -> tuple[CodeType | None, bool]:
    """Fork for each program; returns in the process of a program, and never in that which forks.

    Returns:
        the script to run, None: run ``ultra``; and whether the process has a session of its own. The text of
        a script is not kept in any frame below it: a script may look for what is in it in a traceback.
    """
    listening = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for programs
    while True:
        readable, _, _ = select.select([0, listening.fileno()], [], [])
        if 0 in readable:  # the tests have ended
            os._exit(0)
        report, _ = listening.accept()
        head, streams, _, _ = socket.recv_fds(report, 4, 3)
        if len(head) < 4 or len(streams) < 3:  # who asked is gone
            report.close()
            continue
        with report.makefile("rb") as file:
            command, source, environment, directory, session, executable = marshal.loads(
                file.read(int.from_bytes(head, "big"))
            )
        _import(_FOR_COMMANDS.get(command[1], ()) if command[1:] else ())
        _import(_FOR_SCRIPTS.get(Path(command[0]).name, ()))
        # Without this, each program would collect all that is here, at its end, and so copy it.
        gc.freeze()
        if not os.fork():
            break
        for stream in (*streams, report.detach()):
            os.close(stream)
    listening.close()
    _become(command, environment, directory, [*streams, report.detach()], session=session)
    sys.executable = executable or sys.executable
    return None if source is None else compile(source, _file_of(command), "exec"), session


def _become(
    command: list[str], environment: dict[str, str], directory: str, streams: list[int], *, session: bool
) -> None:
    """Fork once more: one process waits for the other to tell its exit code; this returns in the other."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *standard, report = streams
    program = os.fork()
    if program:
        for stream in (*standard, 0, 1, 2):
            os.close(stream)
        with suppress(BrokenPipeError):
            os.write(report, f"{program}\n".encode())
        _kill_when_nobody_waits(program, report)
        _, status = os.waitpid(program, 0)
        with suppress(BrokenPipeError):
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
    if isinstance(sys.stdout, io.TextIOWrapper):  # as Python does when it starts
        if environment.get("PYTHONUNBUFFERED"):
            sys.stdout.reconfigure(write_through=True)
        elif os.isatty(1):
            sys.stdout.reconfigure(line_buffering=True)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [path for path in paths if path and path not in sys.path]
    sys.argv[:] = command


def _kill_when_nobody_waits(program: int, report: int) -> None:
    """Return when the program has ended, or kill it when the other side has closed the connection."""
    ended = os.pidfd_open(program)
    if ended not in select.select([ended, report], [], [])[0]:
        os.kill(program, signal.SIGKILL)


def _file_of(command: list[str]) -> str:
    return "<string>" if command[0] == "-c" else command[0]


def _run(main: Callable[[], object]) -> None:
    """Run a program, and end this process as Python does, but without taking its modules apart."""
    code = 0
    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            raise
        code = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()  # what is left in cycles may have something to say
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # of a stream that is broken or closed: Python's own end tells it
        sys.exit(code)
    os._exit(code)


def _run_script(code: CodeType) -> None:
    main_module = ModuleType("__main__")
    if code.co_filename == "<string>":
        sys.path[0] = ""
    else:
        main_module.__file__ = code.co_filename
        sys.path[0] = str(Path(code.co_filename).parent)
    sys.modules["__main__"] = main_module
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

_FOR_SCRIPTS = {
    "fastapi_service.py": ("fastapi", "uvicorn", "uvicorn.lifespan.on", "uvicorn.protocols.http.auto"),
    "trio_service.py": ("hypercorn.trio",),
}
"""The same of scripts of this name."""


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
        _run(partial(_run_script, script))
    else:
        sys.argv[0] = "-c"
        sys.path[0] = ""  # as for python -c
        if has_session:
            sys.exit(main())
        _run(lambda: sys.exit(main()))
