"""Several small pools in place of a large one: which calls share one, and when one is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpcore
import httpx
import pytest
import trio

from helpers.byte_server import Received, Server, fixed, serve
from ultra.clients import OpenAIClient
from ultra.clients.http.pools import CALLS_PER_POOL, ConnectionPools
from ultra.errors import ModelError

if TYPE_CHECKING:
    from trio.testing import MockClock

JSON = [("content-type", "application/json")]
ANSWER = b'{"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}'


async def test_a_call_goes_to_the_first_pool_that_has_room() -> None:
    pools = ConnectionPools(httpx.AsyncClient, calls=2)
    taken = [pools.take() for _ in range(5)]
    await pools.give_back(taken[1])

    assert pools.take() is taken[0]
    assert [taken.index(pool) for pool in taken] == [0, 0, 2, 2, 4]
    assert len(pools.clients) == 3
    await pools.aclose()


async def test_without_a_bound_there_is_one_pool() -> None:
    pools = ConnectionPools(httpx.AsyncClient, calls=None)

    assert len({id(pools.take()) for _ in range(100)}) == 1
    await pools.aclose()


async def test_pools_that_nobody_uses_any_more_are_closed_one_by_one(autojump_clock: MockClock) -> None:
    pools = ConnectionPools(httpx.AsyncClient, calls=1)
    taken = [pools.take() for _ in range(3)]
    first, *others = pools.clients
    for pool in reversed(taken):
        await pools.give_back(pool)
    await trio.sleep(4)
    await pools.give_back(pools.take())
    assert len(pools.clients) == 3

    await trio.sleep(2)
    await pools.give_back(pools.take())
    await pools.give_back(pools.take())
    await pools.give_back(pools.take())

    assert [*pools.clients] == [first]
    assert [other.is_closed for other in others] == [True, True]
    await pools.aclose()


async def test_a_pool_in_use_stays_however_long_its_call_takes(autojump_clock: MockClock) -> None:
    pools = ConnectionPools(httpx.AsyncClient, calls=1)
    first, second = pools.take(), pools.take()
    await trio.sleep(60)
    await pools.give_back(first)

    assert not second.client.is_closed
    await pools.aclose()


async def test_a_call_may_end_after_all_pools_were_closed() -> None:
    pools = ConnectionPools(httpx.AsyncClient)
    pool = pools.take()
    await pools.aclose()
    await pools.give_back(pool)

    assert (pool.client.is_closed, pools.clients) == (True, ())


def client_of(server: Server) -> OpenAIClient:
    return OpenAIClient("m", provider="openai", base_url=f"{server.url}/v1")


async def test_as_many_connections_are_kept_as_there_were_calls_at_once(nursery: trio.Nursery) -> None:
    calls = 3 * CALLS_PER_POOL
    waiting = 0
    all_wait = trio.Event()

    async def answer(stream: trio.SocketStream, request: Received) -> None:
        nonlocal waiting, all_wait
        waiting += 1
        if waiting == calls:
            all_wait.set()
            waiting, all_wait = 0, trio.Event()
        else:
            await all_wait.wait()
        await fixed(200, JSON, ANSWER)(stream, request)

    server = await serve(nursery, answer)
    client = client_of(server)
    for _ in range(2):
        async with trio.open_nursery() as callers:
            for _ in range(calls):
                callers.start_soon(client.generate, "Hi")
    await client.aclose()

    assert (len(server.requests), server.connections) == (2 * calls, calls)


async def hang(stream: trio.SocketStream, _request: Received) -> None:
    await stream.receive_some()


@pytest.mark.parametrize("cause", ["cancelled", "refused", "an error", "an answer", "a stream"])
async def test_every_end_of_a_call_gives_its_place_back(nursery: trio.Nursery, cause: str) -> None:
    answers = {"cancelled": hang, "an error": fixed(500, JSON, b"{}")}
    server = await serve(nursery, answers.get(cause, fixed(200, JSON, ANSWER)))
    client = client_of(server)
    if cause == "refused":
        client.dialect.base_url = "http://127.0.0.1:1"

    async def call() -> None:
        if cause == "a stream":
            async with client.stream("Hi") as stream:
                await anext(stream)
        else:
            await client.generate("Hi")

    try:
        with trio.move_on_after(0.05 if cause == "cancelled" else 10):
            await call()
    except ModelError:
        assert cause in {"refused", "an error"}

    pools = client._connections._pools[trio.lowlevel.current_trio_token()]
    assert pools.take().calls == 1
    await client.aclose()


async def test_closing_reaches_a_call_that_is_still_connecting(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected, go_on = trio.Event(), trio.Event()
    backend: Any = httpcore.TrioBackend
    connect = backend.connect_tcp
    streams: list[httpcore.AsyncNetworkStream] = []

    async def connect_slowly(*args: Any, **kwargs: Any) -> httpcore.AsyncNetworkStream:
        streams.append(await connect(*args, **kwargs))
        connected.set()
        await go_on.wait()
        return streams[0]

    monkeypatch.setattr(backend, "connect_tcp", connect_slowly)
    server = await serve(nursery, fixed(200, JSON, ANSWER))
    client = client_of(server)
    errors: list[ModelError] = []

    async def call() -> None:
        with pytest.raises(ModelError) as caught:
            await client.generate("Hi")
        errors.append(caught.value)

    async with trio.open_nursery() as callers:
        callers.start_soon(call)
        await connected.wait()
        await client.aclose()
        go_on.set()

    assert errors[0].kind == "connection"
    assert streams[0].get_extra_info("socket").fileno() == -1
