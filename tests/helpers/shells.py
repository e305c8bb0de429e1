"""Shells on a terminal of their own, without the files of their user."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from contextlib import asynccontextmanager
from fcntl import ioctl
from typing import TYPE_CHECKING, Final

import trio

from helpers.command_line import Terminal
from helpers.screen import Screen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

__all__ = ["shell_on_terminal"]

_COMMANDS: Final = {
    "bash": (("bash", "--norc", "-i"), 'eval "$(ultra completion bash)"'),
    "zsh": (("zsh", "-f", "-i"), "autoload -Uz compinit; compinit -u -D; source <(ultra completion zsh)"),
    "fish": (("fish", "--no-config", "-i"), "ultra completion fish | source"),
}
_READY: Final = "it can complete"


class _Shell:
    """The process of a shell, as a terminal wants it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
        return await trio.to_thread.run_sync(self._process.wait)

    async def aclose(self) -> None:
        self._process.kill()
        await self.wait()


@asynccontextmanager
async def shell_on_terminal(
    shell: str, env: Mapping[str, str], folder: Path, *, columns: int = 100, lines: int = 30
) -> AsyncIterator[Terminal]:
    """Run a shell that completes `ultra`, which it finds on its PATH, with a clear screen."""
    command, prepared = _COMMANDS[shell]
    master, slave = pty.openpty()
    ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def belong() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
        command,
        env={**env, "HOME": str(folder)},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        preexec_fn=belong,  # noqa: PLW1509 - no lock is taken in it
    )
    os.close(slave)
    terminal = Terminal(_Shell(process), master, Screen(columns, lines))  # type: ignore[arg-type]
    try:
        await terminal.type(f"{prepared}; clear; printf '%s\\n' 'it can'' complete'\n")
        await terminal.wait_until(lambda screen: any(row.strip() == _READY for row in screen.rows))
        yield terminal
    finally:
        with trio.CancelScope(shield=True):
            await terminal.aclose()
