"""A Redis server of the tests' own, which they may freeze, kill and start again."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["RedisProcess", "redis_process"]

DATABASES = 200


class RedisProcess:
    """A server on a port of 127.0.0.1, which stays the same when it is started again."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        pytest.importorskip("coredis", reason="the extra 'redis' is not installed")
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not on PATH")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{port}"
        self._command = [
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)),
            *("--databases", str(DATABASES), "--appendonly", "yes" if durable else "no"),
        ]
        self._process: subprocess.Popen[str] | None = None
        self._databases = iter(range(DATABASES))

    def database(self) -> str:
        """Return the URL of a database that no other test uses."""
        return f"{self.url}/{next(self._databases)}"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        if not any("Ready to accept connections" in line for line in self._process.stdout):
            self.kill()
            pytest.skip("redis-server does not start")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            assert self._process.stdout
            self._process.stdout.read()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def redis_process(folder: Path, *, durable: bool = False) -> Iterator[RedisProcess]:
    """Start a server; it is killed at the end of the block."""
    server = RedisProcess(folder, durable=durable)
    server.start()
    try:
        yield server
    finally:
        server.kill()
