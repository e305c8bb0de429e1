from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.cache_keys import key_of
from ultra.errors import BadCall, MissingExtra
from ultra.messages.results import Completion, Usage
from ultra.stores import open_cache
from ultra.stores.contracts import CacheStatistics, CacheStore
from ultra.stores.encoding import encode_answer

pytest.importorskip("coredis", reason="the extra 'redis' is not installed")

from ultra.stores.redis import RedisCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock


def answer(text: str = "yes") -> Completion:
    return Completion(content=text, usage=Usage(input=3, output=5), finish_reason="stop", request_id="r-1")


# --- against a real server ---------------------------------------------------------------------


async def test_an_answer_comes_back_whole_and_each_model_has_its_own(url: str) -> None:
    cache = RedisCache(url)
    assert isinstance(cache, CacheStore)
    assert cache.shard("llama") is cache.shard("llama")
    key = key_of("question")
    await cache.shard("llama").put(key, answer())
    assert await cache.shard("llama").get(key) == answer()
    assert await cache.shard("Llama").get(key) is None
    assert cache.shard("llama").statistics() == CacheStatistics(hits=1, stored=1)
    assert cache.shard("Llama").statistics() == CacheStatistics(misses=1)


async def test_stores_of_one_server_share_answers_and_secret_unless_their_prefixes_differ(url: str) -> None:
    one, same, other = RedisCache(url), open_cache(url), RedisCache(url, prefix="other")
    assert one.secret == same.secret != other.secret
    assert len(one.secret) == 32
    await one.shard("m").put(b"k", answer())
    assert await same.shard("m").get(b"k") == answer()
    assert await other.shard("m").get(b"k") is None


@pytest.mark.parametrize(("ttl", "least", "most"), [(60.0, 1, 60_000), (None, -1, -1)])
async def test_the_server_is_told_when_an_answer_is_over(
    ttl: float | None, least: int, most: int, url: str
) -> None:
    cache = RedisCache(url, ttl=ttl)
    kept = cache.shard("m")
    await kept.put(b"k", answer())
    assert least <= await cache._server.server.use(lambda client: client.pttl(kept._prefix + b"k")) <= most


async def test_an_answer_that_is_not_whole_or_too_big_is_not_kept(url: str) -> None:
    kept = RedisCache(url, max_answer_bytes=1000).shard("m")
    await kept.put(b"a", Completion(content="cut", finish_reason="length"))
    await kept.put(b"b", answer("b" * 1000))
    assert await kept.get(b"a") is None
    assert await kept.get(b"b") is None
    assert kept.statistics().refused == 2


@pytest.mark.parametrize(
    "stored",
    [b"\xc1", b"\x81\xa7content\xa1\xff", b"\x81\xa7content" + b"\x91" * 200_000, b"\x81\xa7content\x07"],
)
async def test_bytes_that_are_no_answer_are_a_miss(stored: bytes, url: str, logs: list[Any]) -> None:
    cache = RedisCache(url)
    kept = cache.shard("m")
    await cache._server.server.use(lambda client: client.set(kept._prefix + b"k", stored))
    assert await kept.get(b"k") is None
    assert kept.statistics() == CacheStatistics(misses=1, failures=1)
    assert logs[0]["event"] == "cache unavailable"
    await kept.put(b"k", answer())
    assert await kept.get(b"k") == answer()


async def test_more_bytes_than_an_answer_may_have_are_a_miss(url: str) -> None:
    cache = RedisCache(url, max_answer_bytes=1000)
    kept = cache.shard("m")
    huge = encode_answer(answer("x" * 5000))
    await cache._server.server.use(lambda client: client.set(kept._prefix + b"k", huge))
    assert await kept.get(b"k") is None
    assert kept.statistics() == CacheStatistics(misses=1)


async def test_a_wrong_secret_on_the_server_is_not_used(url: str, logs: list[Any]) -> None:
    first = RedisCache(url)
    await first._server.server.use(lambda client: client.set("ultra:1:secret", b"short"))
    second = RedisCache(url)
    assert len(second.secret) == 32
    assert second.secret != first.secret


@pytest.mark.filterwarnings(
    # coredis does not close its queues (they are memory, no sockets) when it is cancelled while it connects.
    "ignore:.*<function MemoryObject(Send|Receive)Stream:pytest.PytestUnraisableExceptionWarning"
)
async def test_many_tasks_use_one_shard_at_once_and_cancelled_ones_leave_nothing_behind(url: str) -> None:
    kept = RedisCache(url, timeout=20).shard("m")

    async def use(number: int) -> None:
        key = str(number).encode()
        await kept.put(key, answer(str(number)))
        assert await kept.get(key) == answer(str(number))

    async def give_up(delay: float) -> None:
        with trio.move_on_after(delay):
            await use(1000)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(use, number)
            nursery.start_soon(give_up, number / 5000)
    assert await kept.get(b"1000") in {None, answer("1000")}
    gc.collect()  # while the filter holds


def test_the_loops_of_several_threads_share_one_store(url: str) -> None:
    cache = RedisCache(url, timeout=20)
    found: list[Completion | None] = []

    async def use(name: str) -> None:
        for number in range(5):
            await cache.shard(name).put(b"%d" % number, answer(name))
            found.append(await cache.shard(name).get(b"%d" % number))

    threads = [threading.Thread(target=trio.run, args=(use, name)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(str(one) for one in found) == sorted("abc" * 5)


# --- servers that do not work ------------------------------------------------------------------


async def refuse(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"-NOAUTH Authentication required.\r\n")


async def talk_nonsense(stream: trio.SocketStream) -> None:
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def hang_up(stream: trio.SocketStream) -> None:
    await stream.receive_some()


async def say_nothing(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


@pytest.fixture
async def silent_garbage() -> AsyncIterator[None]:
    """Connections that fail leave coredis's streams unclosed, to be found here and not by other tests."""
    yield
    gc.collect()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("behave", [refuse, talk_nonsense, hang_up, say_nothing])
async def test_a_server_that_does_not_work_costs_the_cache_and_nothing_else(
    behave: Callable[[trio.SocketStream], Awaitable[None]], logs: list[Any], silent_garbage: None
) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await behave(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        make = partial(RedisCache, f"redis://me:hunter2@127.0.0.1:{port}", timeout=0.3)
        cache = await trio.to_thread.run_sync(make)  # the server is in this loop, which must not be blocked
        kept = cache.shard("m")
        for _ in range(3):
            await kept.put(b"k", answer())
            assert await kept.get(b"k") is None
        nursery.cancel_scope.cancel()
    assert len(cache.secret) == 32
    assert kept.statistics() == CacheStatistics(misses=3, failures=6)
    assert [entry["event"] for entry in logs] == [
        "cache unavailable"
    ] * 2  # at the start and at the first use
    assert all(entry["store"] == f"redis://127.0.0.1:{port}" for entry in logs)
    assert "hunter2" not in repr(logs) + repr(cache)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_comes_back_is_used_again_after_half_a_minute(
    url: str, logs: list[Any], silent_garbage: None, mock_clock: MockClock
) -> None:
    cache = RedisCache(url)
    kept = cache.shard("m")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        nowhere = f"redis://127.0.0.1:{probe.getsockname()[1]}"
    cache._server.server._url, real = nowhere, cache._server.server._url
    await kept.put(b"k", answer())
    cache._server.server._url = real
    await kept.put(b"k", answer())
    assert kept.statistics().failures == 2
    mock_clock.jump(30)
    await kept.put(b"k", answer())
    assert await kept.get(b"k") == answer()
    assert [entry["event"] for entry in logs] == ["cache unavailable", "cache available again"]


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://",
        "redis:///0",
        "redis://:hunter2@",
        "redis://me:hunter2@host:port",
        "redis://me:hunter2@host/database",
        "http://me:hunter2@host",
        "",
    ],
)
def test_a_url_that_is_not_redis_s_is_a_bad_call_that_does_not_repeat_it(url: str) -> None:
    with pytest.raises(BadCall, match=r"redis://\[user:password@\]host") as caught:
        RedisCache(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"ttl": 0}, {"timeout": -1}, {"max_answer_bytes": 1.5}])
def test_arguments_out_of_range_are_bad_calls(bad: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=f"{next(iter(bad))} is .*; it must be a "):
        RedisCache("redis://127.0.0.1", **bad)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)
    for name in ("ultra.stores.redis", "ultra.stores.redis_connection"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(
        MissingExtra, match=r'store in Redis needs the extra.*pip install "ultra-llm\[redis\]"'
    ):
        open_cache("redis://127.0.0.1")


def test_the_extra_is_imported_only_when_it_is_asked_for() -> None:
    code = "import sys, ultra.stores as s; s.open_cache(); sys.exit('coredis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
