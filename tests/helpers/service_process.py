"""A process that serves kept runs, to be killed; it forks itself for each line on its standard input.

To start Python takes most of a second, to fork some milliseconds. All children answer on one socket, which
the test holds, so a client that comes between two of them waits.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from helpers.durable_process import STRATEGIES, orchestrator_of
from ultra.config.serving import ServeConfig
from ultra.service.core import Service
from ultra.service.server import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def service_in(folder: Path) -> Service:
    """A service whose ensembles ``s0``, ``s1`` … are the strategies of the tests."""
    orchestrator = orchestrator_of(folder)
    for number, arguments in enumerate(STRATEGIES):
        orchestrator.add_ensemble(f"s{number}", **arguments)
    return Service(orchestrator, ServeConfig(drain_grace=10.0, commit_after=0.01))


async def answer(folder: Path, listening: socket.socket) -> None:
    """Serve until SIGTERM comes."""
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        received: AsyncIterator[int] = signals
        await serve(
            service_in(folder),
            listening,
            announce=lambda _: print("started", flush=True),  # noqa: T201 - it is the protocol
            signals=received,
        )


def main() -> None:
    folder, descriptor = Path(sys.argv[1]), int(sys.argv[2])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that nobody need wait for the children
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            trio.run(answer, folder, socket.socket(fileno=descriptor))
            os._exit(0)
        print(child, flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main()
