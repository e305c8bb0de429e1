"""Runs the scripts of public fault reports, each ahead of the test that looks at how it ended.

The scripts were written for the Ultra of their day. `MOVED` has what they import that has moved since, and
the server that one of them starts and that is not among them.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trio

from helpers.command_line import environment, warm_python

if TYPE_CHECKING:
    import subprocess
    from concurrent.futures import Future

_BIG_ANSWERS = Path(__file__).with_name("big_answers.py")

__all__ = ["MOVED", "CaseRuns", "with_moves"]

_REQUEST_OF = """\
def _request_of(client, prompt, options, *, stream):  # what the client would send
    from ultra import ModelRequest
    from ultra.clients.http.wording import Wording
    known, request = client._learned, ModelRequest.of(prompt)
    payload = known.dialect.encode(*known.quirks.conversation(request, options), stream=stream)
    return Wording(known, request, options, payload, client._headers, stream=stream).to_send()
"""

MOVED = {
    "from ultra.actors.limits import": "from ultra.actors.model.limits import",
    "from ultra.actors.timeouts import": "from ultra.actors.model.timeouts import",
    "from ultra.clients.embedded import": "from ultra.clients.local.embedded import",
    "from ultra.clients.rate_limits import": "from ultra.clients.wire.rate_limits import",
    "from ultra.clients.transport import Request, Hidden": (
        "from ultra.clients.http.connections import HTTPRequest, Hidden"
    ),
    "from ultra.config import load_configuration, DeploymentConfig, ModelConfig, CacheConfig": (
        "from ultra.config import load_configuration"
    ),
    "from ultra.pricing import": "from ultra.clients.pricing import",
    "from ultra.stores.sqlite_file import Contents": (
        "from ultra.stores.sqlite_file import FileContents as Contents"
    ),
    'client._request("hi", client.options, stream=False)': (
        '_request_of(client, "hi", client.options, stream=False)'
    ),
    '__import__("pathlib").Path(__file__).with_name("bigserver.py")': repr(str(_BIG_ANSWERS)),
    'eu._request("q", eu.options, stream=False)': '_request_of(eu, "q", eu.options, stream=False)',
}
"""What stands in the scripts, and what stands for it today."""

if sys.version_info >= (3, 13):
    MOVED["threading._start_new_thread"] = "threading._start_joinable_thread"

_PATIENCE = 100
"""Seconds after which a script is given up: below the limit of pytest's `faulthandler_timeout`."""


def with_moves(source: str) -> str:
    """Return the text of a script, with what has moved since where it is today."""
    for old, new in MOVED.items():
        source = source.replace(old, new)
    if "_request_of(" in source:
        place = source.index("import ")  # below the docstring, as __future__ imports are not used
        source = f"{source[:place]}{_REQUEST_OF}{source[place:]}"
    return source


class CaseRuns:
    """The runs of scripts, of which two go on at any time. Use it as a context manager.

    `home`: the home directory of the scripts.
    """

    def __init__(self, home: Path) -> None:
        self._environment = environment({"HOME": str(home)})
        self._pool = ThreadPoolExecutor(2)
        self._runs: dict[Path, Future[subprocess.CompletedProcess[bytes]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, script: Path, *, following: Path | None) -> subprocess.CompletedProcess[bytes]:
        """Return how the script ended; wait until it has. Begin the one that is asked for next."""
        for each in (script, following):
            if each is not None and each not in self._runs:
                self._runs[each] = self._pool.submit(self._run, each)
        return self._runs.pop(script).result()

    def _run(self, script: Path) -> subprocess.CompletedProcess[bytes]:
        source = with_moves(script.read_text(encoding="utf-8"))

        async def run() -> subprocess.CompletedProcess[bytes]:
            with trio.fail_after(_PATIENCE):
                return await warm_python().run_script(script, source, self._environment, starts_others=True)

        return trio.run(run)
