"""Other processes on a cache file, for the tests: forked from one small process that does as it is told.

Each line on standard input is a JSON list, ``[what to do, path, ...]``; each line on standard output
is the answer. Forking what is already imported makes a hundred processes a matter of seconds.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
import traceback
import urllib.parse  # noqa: F401 - imported on demand otherwise, which takes the rights to read it
from typing import TYPE_CHECKING, Any

import structlog
import trio

from helpers.cache_keys import key_of
from ultra.messages.results import Completion
from ultra.stores.sqlite import SqliteCache

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 300_000
NOBODY = 65534


def text(number: int) -> str:
    """The only right answer to a number; some take up many pages of the file."""
    return f"{number} is the number. " * (1 + number % 7 * number % 1500)


async def write_for_ever(path: str, first: int, on_written: Callable[[], object]) -> None:
    shard = SqliteCache(path, max_bytes=MAX_BYTES).shard("model")
    number = first
    while True:
        await shard.put(key_of(str(number)), Completion(content=text(number)))
        on_written()
        number += 1


async def use(path: str, numbers: list[int]) -> dict[str, Any]:
    """Put and get answers; what came of it."""
    with structlog.testing.capture_logs() as logs:
        cache = SqliteCache(path, max_bytes=MAX_BYTES)
        shard = cache.shard("model")
        wrong = 0
        for number in numbers:
            await shard.put(key_of(str(number)), Completion(content=text(number)))
            other = numbers[number * 7 % len(numbers)]
            found = await shard.get(key_of(str(other)))
            wrong += found is not None and found.content != text(other)
        counts = shard.statistics()
        await cache.aclose()
    return {
        "secret": cache.secret.hex(),
        "wrong": wrong,
        "stored": counts.stored,
        "hits": counts.hits,
        "failures": counts.failures,
        "warnings": [entry["error"] for entry in logs if entry["log_level"] == "warning"],
    }


def killed_while_writing(path: str, first: int, delay: float) -> str:
    """Kill a process `delay` seconds after its first write."""
    started, starting = os.pipe()
    child = forked(lambda: trio.run(write_for_ever, path, first, lambda: os.write(starting, b".")))
    os.close(starting)
    os.read(started, 1)
    signal_name = killed(child, delay)
    os.close(started)
    return signal_name


def killed_while_opening(path: str, delay: float) -> str:
    """Kill a process `delay` seconds after it was forked."""
    return killed(forked(lambda: trio.run(write_for_ever, path, 0, lambda: None)), delay)


def killed(child: int, delay: float) -> str:
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return signal.Signals(os.WTERMSIG(status)).name


def together(path: str, ranges: list[tuple[int, int]]) -> list[Any]:
    """Several processes at once, each with its own range of numbers."""

    def user(first: int, end: int) -> Callable[[], Any]:
        return asked(lambda: trio.run(use, path, list(range(first, end))))

    return [result() for result in [user(*ends) for ends in ranges]]


def on_full_disk(path: str, spare: int, numbers: list[int]) -> Any:
    """A process that may make no file bigger than the cache is, and some."""

    def run() -> Any:
        limit = os.path.getsize(path) + spare  # noqa: PTH202 - no more imports than needed
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return trio.run(use, path, numbers)

    return asked(run)()


def without_rights(path: str, numbers: list[int]) -> Any:
    """A process that may not write what only its owner may write, even where the tests run as root."""

    def run() -> Any:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return trio.run(use, path, numbers)

    return asked(run)()


def forked(run: Callable[[], object]) -> int:
    """Run in a child; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        run()
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def asked(run: Callable[[], Any]) -> Callable[[], Any]:
    """Run in a child; the call that is returned waits for its result."""
    reading, writing = os.pipe()

    def answer() -> None:
        with os.fdopen(writing, "w") as out:
            json.dump(run(), out)

    child = forked(answer)
    os.close(writing)

    def result() -> Any:
        with os.fdopen(reading) as answer:
            written = answer.read()
        os.waitpid(child, 0)
        return json.loads(written)

    return result


def main() -> None:
    deeds: dict[str, Callable[..., Any]] = {
        "killed_while_writing": killed_while_writing,
        "killed_while_opening": killed_while_opening,
        "together": together,
        "on_full_disk": on_full_disk,
        "without_rights": without_rights,
    }
    for line in sys.stdin:
        deed, *arguments = json.loads(line)
        print(json.dumps(deeds[deed](*arguments)), flush=True)  # noqa: T201 - it is the protocol


if __name__ == "__main__":
    main()
