"""What Redis costs: a lookup in the cache, a place among the calls of all replicas, a submitted run."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

import coredis
import trio

from benchmarks.harness import Row, compare
from benchmarks.journal import plain_run, submitted_run
from ultra.messages.results import Completion, Usage
from ultra.stores import RedisCache, RedisJournal, RedisSharedModels
from ultra.stores.shared_contract import ModelRates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["redis_stores"]

ANSWER = Completion("The capital of France is Paris. " * 20, usage=Usage(20, 100), finish_reason="stop")
KEY = b"k" * 32
RATES = ModelRates(1e9, 1e9)


@contextmanager
def _server() -> Iterator[int | None]:
    """Start a server; the port, or None if there is none to start."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = process.stdout or ()
            ready = any("Ready to accept connections" in line for line in lines)
            yield port if ready else None
            process.terminate()
            process.communicate()


async def _timed(times: int, work: Callable[[], Awaitable[object]]) -> float:
    await work()
    start = time.perf_counter()
    for _ in range(times):
        await work()
    return (time.perf_counter() - start) / times


async def _kept(store: Any, times: int, work: Callable[[], Awaitable[object]]) -> float:  # noqa: ANN401 - any of them
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: store.keep_connected(task_status=task_status))
        taken = await _timed(times, work)
        nursery.cancel_scope.cancel()
    return taken


async def _lookup(url: str, times: int, *, kept: bool) -> float:
    cache = RedisCache(url, timeout=20)
    shard = cache.shard("m")
    await shard.put(KEY, ANSWER)
    work = partial(shard.get, KEY)
    taken = await _kept(cache, times, work) if kept else await _timed(times, work)
    if shard.statistics().misses:
        raise RuntimeError("the answer was not found")
    return taken


async def _place(url: str, times: int) -> float:
    shared = RedisSharedModels(url, timeout=20)
    return await _kept(shared, times, lambda: shared.reserve("m", RATES, 100, inf))


async def _bare(port: int, times: int) -> float:
    """The command of a lookup on a socket: the least that trio needs for a round trip."""
    command = b"*4\r\n$8\r\nGETRANGE\r\n$1\r\nk\r\n$1\r\n0\r\n$4\r\n1000\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:

        async def ask() -> None:
            await stream.send_all(command)
            await stream.receive_some()

        return await _timed(times, ask)


async def _coredis(url: str, times: int) -> float:
    """The command of a lookup by the client library alone, on one connection that is open."""
    client = coredis.Redis.from_url(url, verify_version=False)
    async with client:
        connection = await client.connection_pool.get_connection()
        client.connection_pool.release(connection)

        async def ask() -> object:
            return await connection.create_request(b"GETRANGE", b"k", 0, 1000)

        return await _timed(times, ask)


def redis_stores(*, brief: bool) -> list[Row]:
    """Lookups, places and submitted runs on a server of this machine; no row where there is no server."""
    times, rounds = (20, 1) if brief else (2000, 7)
    with _server() as port:
        if port is None:
            print("redis: redis-server is not on PATH", file=sys.stderr)
            return []
        url, prefixes = f"redis://127.0.0.1:{port}", count()

        def bare() -> float:
            return trio.run(_bare, port, times)

        def journal() -> RedisJournal:
            return RedisJournal(url, timeout=20, prefix=f"runs-{next(prefixes)}")

        rows = compare(
            "a lookup in Redis, kept connections",
            lambda: trio.run(partial(_lookup, url, times, kept=True)),
            {
                "0.1 ms": (lambda: 0.0001, 1.0),
                "a connection for each": (
                    lambda: trio.run(partial(_lookup, url, max(20, times // 20), kept=False)),
                    None,
                ),
                "the command by coredis alone": (lambda: trio.run(_coredis, url, times), None),
                "the same bytes on a bare socket": (bare, None),
            },
            rounds=rounds,
        )
        rows += compare(
            "a place among the calls of all",
            lambda: trio.run(_place, url, times),
            {"the bytes of a lookup on a bare socket": (bare, None)},
            rounds=rounds,
        )
        runs = 10 if brief else 200
        rows += compare(
            "a submitted run, Redis",
            lambda: trio.run(submitted_run, runs, journal),
            {"the same run, streamed": (lambda: trio.run(plain_run, runs), None)},
            rounds=rounds,
        )
        return rows
