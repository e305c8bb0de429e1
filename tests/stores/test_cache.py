from __future__ import annotations

import tracemalloc
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trio.testing import MockClock

from helpers.cache_keys import key_of
from ultra.errors import BadCall
from ultra.messages.results import Completion, FinishReason
from ultra.stores import open_cache
from ultra.stores.contracts import CacheStatistics, CacheStore, is_whole
from ultra.stores.memory import MemoryCache, MemoryShard

ENTRY = 2000

T = TypeVar("T")


def answer(text: str = "yes", finish_reason: FinishReason | None = "stop") -> Completion:
    return Completion(content=text, finish_reason=finish_reason)


def shard(
    *, max_entries: int = 3, max_bytes: int = 10**6, ttl: float | None = None, time: list[float] | None = None
) -> MemoryShard:
    times = time if time is not None else [0.0]
    return MemoryShard(max_entries=max_entries, max_bytes=max_bytes, ttl=ttl, now=lambda: times[0])


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what the coroutine returns, which must not wait."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    result: T = stop.value.value
    return result


# --- what is kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "whole"),
    [
        (answer(), True),
        (answer(finish_reason=None), True),
        (answer(finish_reason="length"), False),
        (answer(finish_reason="tool_calls"), True),
        (answer(finish_reason="other"), False),
        (answer(finish_reason="content_filter"), False),
        (answer(finish_reason="refusal"), False),
        (Completion(content="Well,", refusal="I will not."), False),
        (answer(""), False),
        (answer(" \n"), False),
    ],
)
def test_only_whole_successful_answers_are_kept(completion: Completion, *, whole: bool) -> None:
    assert is_whole(completion) is whole
    kept = shard()
    at_once(kept.put(b"k", completion))
    assert at_once(kept.get(b"k")) == (completion if whole else None)
    assert kept.statistics().refused == (not whole)


def test_an_answer_that_is_not_whole_leaves_the_older_whole_one() -> None:
    kept = shard()
    at_once(kept.put(b"k", answer("old")))
    at_once(kept.put(b"k", answer("cut", "length")))
    assert at_once(kept.get(b"k")) == answer("old")


def test_the_least_recently_used_answer_goes_first() -> None:
    kept = shard(max_entries=2)
    at_once(kept.put(b"a", answer("a")))
    at_once(kept.put(b"b", answer("b")))
    at_once(kept.get(b"a"))
    at_once(kept.put(b"c", answer("c")))
    assert at_once(kept.get(b"b")) is None
    assert at_once(kept.get(b"a")) == answer("a")
    assert kept.statistics().evictions == 1


def test_an_answer_bigger_than_the_shard_is_not_kept_and_pushes_nothing_out() -> None:
    kept = shard(max_bytes=ENTRY)
    at_once(kept.put(b"a", answer("a")))
    at_once(kept.put(b"b", answer("b" * ENTRY)))
    assert at_once(kept.get(b"a")) == answer("a")
    assert at_once(kept.get(b"b")) is None
    statistics = kept.statistics()
    assert (statistics.evictions, statistics.refused) == (0, 1)


def test_an_answer_expires_when_its_time_to_live_is_over_used_or_not() -> None:
    time = [0.0]
    kept = shard(ttl=10, time=time)
    at_once(kept.put(b"k", answer()))
    time[0] = 9.999
    assert at_once(kept.get(b"k")) is not None
    time[0] = 10.0
    assert at_once(kept.get(b"k")) is None
    assert kept.statistics() == CacheStatistics(hits=1, misses=1, stored=1, expirations=1)


def test_expired_answers_make_room_before_living_ones_are_evicted() -> None:
    time = [0.0]
    kept = shard(max_entries=2, ttl=10, time=time)
    at_once(kept.put(b"old", answer("old")))
    time[0] = 9.0
    at_once(kept.put(b"new", answer("new")))
    at_once(kept.get(b"old"))  # the most recently used, but soon too old
    time[0] = 10.0
    at_once(kept.put(b"third", answer("third")))
    assert at_once(kept.get(b"new")) == answer("new")
    assert kept.statistics().evictions == 0


def test_the_size_of_an_entry_is_close_to_the_memory_it_takes() -> None:
    kept = MemoryShard(max_entries=10**6, max_bytes=10**9, ttl=60.0, now=lambda: 0.0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        at_once(kept.put(key_of(str(number)), answer(f"{number} " * 300)))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used * 0.75 < kept.statistics().bytes < used * 1.5


# --- the shard against a model that is too simple to be wrong ----------------------------------


class ShardMachine(RuleBasedStateMachine):
    """Compares a shard with a list of (key, completion, expiry) in order of use."""

    keys = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
    texts = st.sampled_from(["x", "y" * 500, "z" * 1200, "w" * 5000, ""])
    max_entries, max_bytes, ttl = 3, 4000, 10.0

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0
        self.shard = MemoryShard(
            max_entries=self.max_entries, max_bytes=self.max_bytes, ttl=self.ttl, now=lambda: self.time
        )
        self.model: list[tuple[bytes, Completion, float]] = []
        self.lookups = 0

    def size(self, *completions: Completion) -> int:
        scale = MemoryShard(max_entries=10**6, max_bytes=10**9, ttl=None, now=lambda: 0.0)
        for number, completion in enumerate(completions):
            at_once(scale.put(bytes([number]), completion))
        return scale.statistics().bytes

    def forget_expired(self) -> None:
        self.model = [entry for entry in self.model if entry[2] > self.time]

    @rule(key=keys, text=texts)
    def put(self, key: bytes, text: str) -> None:
        completion = answer(text)
        at_once(self.shard.put(key, completion))
        self.forget_expired()
        if not text or self.size(completion) > self.max_bytes:
            return
        self.model = [entry for entry in self.model if entry[0] != key]
        self.model.append((key, completion, self.time + self.ttl))
        while len(self.model) > self.max_entries or self.size(*(e[1] for e in self.model)) > self.max_bytes:
            del self.model[0]

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        self.lookups += 1
        self.forget_expired()
        found = next((entry for entry in self.model if entry[0] == key), None)
        assert at_once(self.shard.get(key)) == (found[1] if found else None)
        if found:
            self.model.remove(found)
            self.model.append(found)

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0]))
    def pass_time(self, seconds: float) -> None:
        self.time += seconds

    @precondition(lambda self: self.model)
    @rule()
    def clear(self) -> None:
        self.shard.clear()
        self.model.clear()

    @invariant()
    def bounds_and_counters_hold(self) -> None:
        statistics = self.shard.statistics()
        assert statistics.entries <= self.max_entries
        assert statistics.bytes <= self.max_bytes
        assert statistics.hits + statistics.misses == self.lookups
        assert (statistics.bytes == 0) == (statistics.entries == 0)


TestShardMachine = ShardMachine.TestCase
TestShardMachine.settings = settings(max_examples=60, stateful_step_count=30)


# --- stores ------------------------------------------------------------------------------------


async def test_a_store_gives_the_same_shard_for_the_same_name(autojump_clock: MockClock) -> None:
    store = MemoryCache()
    assert store.shard("llama") is store.shard("llama")
    await store.shard("llama").put(b"k", answer())
    assert await store.shard("gemini").get(b"k") is None
    assert await store.shard("llama").get(b"k") == answer()


async def test_time_to_live_goes_by_trio_s_clock(autojump_clock: MockClock) -> None:
    kept = MemoryCache(ttl=60).shard("llama")
    await kept.put(b"k", answer())
    await trio.sleep(59)
    assert await kept.get(b"k") is not None
    await trio.sleep(1)
    assert await kept.get(b"k") is None


def test_answers_keep_their_age_from_one_trio_run_to_the_next() -> None:
    kept = MemoryCache(ttl=60).shard("llama")

    async def write() -> None:
        await trio.sleep(1000)
        at_once(kept.put(b"k", answer()))
        await trio.sleep(30)

    async def read() -> list[bool]:
        found = [at_once(kept.get(b"k")) is not None]
        await trio.sleep(29.9)
        found.append(at_once(kept.get(b"k")) is not None)
        await trio.sleep(0.2)
        found.append(at_once(kept.get(b"k")) is not None)
        return found

    trio.run(write, clock=MockClock(autojump_threshold=0))
    assert trio.run(read, clock=MockClock(autojump_threshold=0)) == [True, True, False]


async def test_closing_a_store_forgets_its_answers_and_may_be_done_twice() -> None:
    store = MemoryCache()
    await store.shard("llama").put(b"k", answer())
    await store.aclose()
    await store.aclose()
    statistics = store.shard("llama").statistics()
    assert (statistics.entries, statistics.bytes) == (0, 0)


async def test_closing_a_store_in_a_cancelled_scope_still_forgets() -> None:
    store = MemoryCache()
    await store.shard("llama").put(b"k", answer())
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.aclose()
    assert scope.cancelled_caught
    assert store.shard("llama").statistics().entries == 0


def test_each_store_has_a_secret_of_its_own_that_its_repr_does_not_show() -> None:
    store = MemoryCache()
    assert len(store.secret) == 32
    assert store.secret == store.secret != MemoryCache().secret
    assert repr(store.secret) not in repr(store)


@pytest.mark.parametrize("spec", [True, None, "memory"])
def test_memory_is_the_default_cache(*, spec: bool | str | None) -> None:
    assert isinstance(open_cache(spec), MemoryCache)


def test_an_object_with_the_methods_of_a_store_is_used_as_it_is() -> None:
    class Mine:
        secret = b"s" * 32

        def shard(self, name: str) -> Any:
            return name

        async def aclose(self) -> None:
            return None

    mine = Mine()
    assert isinstance(mine, CacheStore)
    assert open_cache(mine) is mine


@pytest.mark.parametrize("spec", [False, "", "memcached", "redid://x", 3, object()])
def test_any_other_cache_is_a_bad_call_that_names_the_choices(spec: Any) -> None:
    with pytest.raises(BadCall, match=r"'memory'.*'sqlite:///path'.*CacheStore"):
        open_cache(spec)


def test_a_refused_url_shows_no_password() -> None:
    with pytest.raises(BadCall) as caught:
        open_cache("amqp://user:hunter2@host")
    assert "amqp://..." in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_entries": 0},
        {"max_entries": 1.5},
        {"max_entries": True},
        {"max_bytes": -1},
        {"max_bytes": "64M"},
        {"ttl": 0},
        {"ttl": float("inf")},
        {"ttl": float("nan")},
    ],
)
def test_bounds_that_are_not_positive_numbers_are_bad_calls(bounds: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=f"{next(iter(bounds))} is .*; it must be a "):
        MemoryCache(**bounds)
