"""Several processes that answer requests on one socket."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from ultra.cli.output import tell, write
from ultra.cli.signals import SERVICE_SIGNALS
from ultra.errors import UltraError

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

__all__ = ["run_workers"]

_RELOAD: Final = getattr(signal, "SIGHUP", -1)
_AGAIN: Final = 5.0
_MOST_RESTARTS: Final = 5
_WITHIN: Final = 60.0
"""Seconds: more workers than that many which die in this time are no accident."""


def run_workers(arguments: list[str], listening: socket.socket, count: int) -> int:
    """Run `ultra` with these arguments in so many processes, until a signal ends them.

    Each gets `listening`, and says its address when it answers; that is written once all do. A process that
    dies is started again. Return the exit code.
    """
    return trio.run(_Workers(arguments, listening, count).run)


class _Workers:
    def __init__(self, arguments: list[str], listening: socket.socket, count: int) -> None:
        self._command = [sys.executable, "-m", "ultra", *arguments, "--fd", str(listening.fileno())]
        self._listening = listening
        self._count = count
        self._running: set[trio.Process] = set()
        self._ready: set[trio.Process] = set()  # those that can take SIGHUP; it would end the others
        self._reloads = 0
        self._ending = False
        self._stopped = trio.Event()
        self._restarts: deque[float] = deque(maxlen=_MOST_RESTARTS)
        self._failure: str | None = None

    async def run(self) -> int:
        urls: list[str] = []
        with trio.open_signal_receiver(*SERVICE_SIGNALS) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._forward, signals)
                async with trio.open_nursery() as workers:
                    async with trio.open_nursery() as starting:
                        for _ in range(self._count):
                            starting.start_soon(self._first_start, workers, urls)
                    if len(urls) == self._count:
                        write(urls[0])
                nursery.cancel_scope.cancel()
        self._listening.close()
        if self._failure is not None:
            raise UltraError(self._failure)
        return 0

    async def _first_start(self, nursery: trio.Nursery, urls: list[str]) -> None:
        url: str = await nursery.start(self._keep)
        if url:
            urls.append(url)

    async def _keep(self, *, task_status: trio.TaskStatus[str]) -> None:
        """Run one worker, and another one after it, until all are to end."""
        told = answers = False
        while not self._ending:
            reloads = self._reloads
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.PIPE,  # it ends when this process does, whatever ended that
                stdout=subprocess.PIPE,
                pass_fds=(self._listening.fileno(),),
                start_new_session=True,
            )
            self._running.add(process)
            if self._ending:
                self._end(signal.SIGTERM)
            try:
                url = await _first_line(process)
                if url:
                    self._ready.add(process)
                    if reloads != self._reloads:  # it may have read the file before it was changed
                        self._send(process, _RELOAD)
                if not told:
                    task_status.started(url)
                    told = True
                code = await process.wait()
            finally:
                self._running.discard(process)
                self._ready.discard(process)
                with suppress(ProcessLookupError):
                    process.kill()
            if self._ending:
                return
            answers = answers or bool(url)
            if not url and answers and self._ready:
                # The file may be wrong by now, and the others go on with what they have read.
                tell(f"a worker could not start (exit code {code}); in {_AGAIN:g} s it is tried again")
                with trio.move_on_after(_AGAIN):
                    await self._stopped.wait()
            elif not url:
                self._fail(f"a worker could not start; its exit code is {code}")
            elif self._too_often():
                self._fail(
                    f"workers have died {_MOST_RESTARTS} times within {_WITHIN:g} s; the last by {code}"
                )
            else:
                tell(f"a worker has died (exit code {code}); another one is started")

    def _too_often(self) -> bool:
        now = trio.current_time()
        full = len(self._restarts) == _MOST_RESTARTS and now - self._restarts[0] < _WITHIN
        self._restarts.append(now)
        return full

    def _fail(self, failure: str) -> None:
        self._failure = self._failure or failure
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        self._ending = True
        self._stopped.set()
        for process in self._running:
            self._send(process, number)

    def _send(self, process: trio.Process, number: int) -> None:
        with suppress(ProcessLookupError):
            process.send_signal(number)

    async def _forward(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != _RELOAD:
                self._end(number)
                continue
            self._reloads += 1
            for process in self._ready:
                self._send(process, _RELOAD)


async def _first_line(process: trio.Process) -> str:
    """Return the first line that a process writes; empty: it ends without one."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    text = b""
    async for data in process.stdout:
        text += data
        if b"\n" in text:
            break
    return text.partition(b"\n")[0].decode()
