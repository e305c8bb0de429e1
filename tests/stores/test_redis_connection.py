"""The way to a Redis server: a pool while somebody owns it, else a connection for each use."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import trio

from helpers.event_loops import on_asyncio
from helpers.redis_server import redis_process
from ultra import MultiLLMOrchestrator
from ultra.testing import FakeModel

pytest.importorskip("coredis", reason="the extra 'redis' is not installed")

from ultra.stores.redis import RedisCache
from ultra.stores.redis_connection import RedisServer, Script
from ultra.stores.redis_limits import RedisLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# coredis does not close its queues (they are memory, no sockets) when it cannot connect.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*<function MemoryObject(Send|Receive)Stream:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("no_garbage_is_left"),
]

ECHO = Script("return {KEYS[1], ARGV[1]}")


async def connections(client: Any) -> int:
    """Return how many connections the server has accepted so far."""
    return int((await client.info("stats"))["total_connections_received"])


@asynccontextmanager
async def kept(store: RedisServer | RedisCache) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:
        await tasks.start(lambda task_status: store.keep_connected(task_status=task_status))
        yield
        tasks.cancel_scope.cancel()


async def opened(server: RedisServer, uses: int) -> int:
    """Return how many connections so many uses open, beside those that count them."""
    before = await server.use(connections)
    for _ in range(uses):
        await server.use(lambda client: client.ping())
    return await server.use(connections) - before


async def test_without_an_owner_each_use_connects_and_with_one_none_does(url: str) -> None:
    server = RedisServer(url, 20)
    assert await opened(server, 5) == 6
    async with kept(server):
        assert await opened(server, 5) == 0
    assert await opened(server, 5) == 6


@on_asyncio
async def test_a_pool_is_kept_on_asyncio_too(url: str) -> None:
    server = RedisServer(url, 20)
    async with kept(server):
        assert await opened(server, 5) == 0


async def test_many_tasks_share_one_pool_and_those_that_are_cancelled_leave_it_usable(url: str) -> None:
    server = RedisServer(url, 20)

    async def give_up(after: float) -> None:
        with trio.move_on_after(after):
            await server.use(lambda client: client.ping())

    async with kept(server):
        for _ in range(3):  # more than the pool has places for
            async with trio.open_nursery() as nursery:
                for number in range(100):
                    nursery.start_soon(give_up, number / 100_000)
        assert await server.use(lambda client: client.echo("here")) == b"here"


async def test_a_script_is_sent_once_and_again_after_the_server_has_forgotten_it(url: str) -> None:
    server = RedisServer(url, 20)
    async with kept(server):
        assert await server.run(ECHO, ["k"], [b"\xff"]) == [b"k", b"\xff"]
        await server.use(lambda client: client.script_flush())
        assert await server.run(ECHO, ["k"], [1]) == [b"k", b"1"]
        assert await server.run(ECHO, ["k"], [0.1 + 0.2]) == [b"k", b"0.30000000000000004"]


async def test_nothing_waits_behind_a_reading_that_waits_and_its_end_breaks_nothing(url: str) -> None:
    server = RedisServer(url, 20)

    async def read(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await server.use(lambda client: client.xread({"none": "0-0"}, block=60_000), longer=60)

    async with kept(server):
        assert await server.run(ECHO, ["k"], [1]) == [b"k", b"1"]  # so that its connection is there
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                await nursery.start(read)
                while not await server.use(blocked):
                    pass
                with trio.fail_after(10):
                    assert await server.send(b"ECHO", b"here") == b"here"
                    assert await server.run(ECHO, ["k"], [2]) == [b"k", b"2"]
                nursery.cancel_scope.cancel()
            assert await server.run(ECHO, ["k"], [3]) == [b"k", b"3"]


async def blocked(client: Any) -> int:
    """Return how many clients of the server wait for something."""
    return int((await client.info("clients"))["blocked_clients"])


async def test_many_first_uses_at_once_open_one_connection(url: str) -> None:
    server = RedisServer(url, 20)
    async with kept(server):
        before = await server.use(connections)
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(server.run, ECHO, ["k"], [number])
        assert await server.use(connections) - before == 1


async def killed(number: int, client: Any) -> None:
    """End a connection from the side of the server."""
    assert await client.client_kill(identifier=number)


async def test_connections_that_were_closed_while_nothing_was_sent_leave_room_for_others(url: str) -> None:
    server = RedisServer(url, 2)
    async with kept(server):
        first = server._newest()
        for _ in range(70):  # a pool has 64
            number = await server.send(b"CLIENT", "ID")
            await server.use(partial(killed, number))
            with anyio.fail_after(2):
                while first._own.usable:  # type: ignore[union-attr]  # noqa: ASYNC110 - coredis tells nobody
                    await anyio.sleep(0.001)
        assert await server.send(b"PING") == b"PONG"
        assert server._newest() is first


async def test_a_server_that_freezes_costs_its_timeout_and_the_next_use_has_another_connection(
    tmp_path: Path,
) -> None:
    with redis_process(tmp_path) as process:
        server = RedisServer(process.url, 0.3)
        async with kept(server):
            await server.use(lambda client: client.ping())
            process.freeze()
            started = trio.current_time()
            with pytest.raises(TimeoutError):
                await server.use(lambda client: client.ping())
            assert trio.current_time() - started < 5
            process.thaw()
            await value_of_k(server)


async def test_a_server_that_is_started_again_is_used_again(tmp_path: Path) -> None:
    with redis_process(tmp_path, durable=True) as process:
        server = RedisServer(process.url, 1)
        async with kept(server):
            await server.use(lambda client: client.set("k", "v"))
            process.kill()
            with pytest.raises(Exception, match=r"onnect|lost"):
                await server.use(lambda client: client.get("k"))
            await trio.to_thread.run_sync(process.start)
            assert await value_of_k(server) == b"v"


async def value_of_k(server: RedisServer) -> bytes:
    """Ask until the server answers."""
    with trio.fail_after(10):
        while True:
            with suppress(Exception):
                return await server.use(lambda client: client.get("k")) or b""
            await trio.sleep(0.01)


async def test_an_entered_orchestrator_keeps_the_connections_of_its_cache(url: str) -> None:
    cache = RedisCache(url, timeout=20)
    orchestrator = MultiLLMOrchestrator(cache=cache)
    orchestrator.register_model("m", FakeModel("yes"))
    server = RedisServer(url, 20)
    async with orchestrator, kept(server):
        await orchestrator.process_responses("first", ["initial"])
        before = await server.use(connections)
        for number in range(5):
            await orchestrator.process_responses(f"{number}", ["initial"])
        assert await server.use(connections) == before
    assert cache.shard("m (fake:m)").statistics().failures == 0
    assert server._pools() == []


async def test_limits_keep_their_connections(url: str) -> None:
    limits = RedisLimits(url, timeout=20)
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: limits.keep_connected(task_status=task_status))
        await limits.renew(["a"])
        before = await limits._server.use(connections)
        await limits.renew(["a"])
        assert await limits._server.use(connections) == before
        nursery.cancel_scope.cancel()
