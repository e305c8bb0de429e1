from __future__ import annotations

import math
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ultra.errors import BadCall, ConfigError
from ultra.messages.results import Completion, Usage
from ultra.stores import open_cache
from ultra.stores.contracts import CacheStatistics, CacheStore
from ultra.stores.encoding import encode_answer
from ultra.stores.sqlite import SqliteCache
from ultra.stores.sqlite_file import row_size

if TYPE_CHECKING:
    pass


def answer(text: str = "yes") -> Completion:
    return Completion(
        content=text, usage=Usage(input=3, output=5), finish_reason="stop", request_id="r-1", model="m-2"
    )


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# --- what is kept ------------------------------------------------------------------------------


async def test_an_answer_comes_back_whole_and_each_model_has_its_own(cache: SqliteCache) -> None:
    assert isinstance(cache, CacheStore)
    assert cache.shard("llama") is cache.shard("llama")
    await cache.shard("llama").put(b"k", answer())
    assert await cache.shard("llama").get(b"k") == answer()
    assert await cache.shard("gemini").get(b"k") is None
    size = row_size(encode_answer(answer()))
    assert cache.shard("llama").statistics() == CacheStatistics(hits=1, stored=1, entries=1, bytes=size)
    assert cache.shard("gemini").statistics() == CacheStatistics(misses=1)


NAMES = [
    "llama",
    "Llama",
    "llama ",
    "",
    "a\0b",
    "\ud800",
    "\\ud800",
    'x"; DROP TABLE shards; --',
    "x" * 5000,
    "日本",
]


async def test_model_names_may_hold_anything_and_never_share_answers(cache: SqliteCache) -> None:
    for name in NAMES:
        assert await cache.shard(name).get(b"k") is None
        await cache.shard(name).put(b"k", answer(f"of {name!a}"))
    for name in NAMES:
        assert await cache.shard(name).get(b"k") == answer(f"of {name!a}")


async def test_answers_secret_and_sizes_outlive_the_store(cache: SqliteCache, path: Path) -> None:
    await cache.shard("m").put(b"k", answer())
    await cache.aclose()
    again = SqliteCache(path)
    assert again.secret == cache.secret
    assert len(again.secret) == 32
    statistics = again.shard("m").statistics()
    assert (statistics.entries, statistics.bytes) == (1, row_size(encode_answer(answer())))
    assert await again.shard("m").get(b"k") == answer()
    await again.aclose()


async def test_a_store_that_was_closed_opens_again_when_it_is_used(cache: SqliteCache) -> None:
    await cache.aclose()
    await cache.aclose()
    await cache.shard("m").put(b"k", answer())
    assert await cache.shard("m").get(b"k") == answer()


async def test_an_answer_that_is_not_whole_or_too_big_is_not_kept(path: Path) -> None:
    cache = SqliteCache(path, max_bytes=1000)
    kept = cache.shard("m")
    await kept.put(b"a", answer())
    await kept.put(b"a", Completion(content="cut", finish_reason="length"))
    await kept.put(b"b", answer("b" * 1000))
    assert await kept.get(b"a") == answer()
    assert await kept.get(b"b") is None
    assert kept.statistics().refused == 2
    await cache.aclose()


async def test_an_answer_expires_by_the_wall_clock_also_for_the_next_process(path: Path) -> None:
    time = 1e9
    cache = SqliteCache(path, ttl=60, now=lambda: time)
    await cache.shard("m").put(b"k", answer())
    await cache.aclose()
    cache = SqliteCache(path, ttl=60, now=lambda: time)
    time += 59
    assert await cache.shard("m").get(b"k") == answer()
    time += 1
    assert await cache.shard("m").get(b"k") is None
    await cache.shard("m").put(b"other", answer())
    statistics = cache.shard("m").statistics()
    assert (statistics.expirations, statistics.entries) == (1, 1)
    await cache.aclose()


async def test_an_answer_from_a_far_future_is_no_hit(path: Path) -> None:
    time = 2e9
    cache = SqliteCache(path, ttl=60, now=lambda: time)
    await cache.shard("m").put(b"k", answer())
    time = 1e9
    assert await cache.shard("m").get(b"k") is None
    await cache.shard("m").put(b"k", answer("new"))
    assert await cache.shard("m").get(b"k") == answer("new")
    await cache.aclose()


async def test_the_file_does_not_grow_beyond_its_bound(path: Path) -> None:
    cache = SqliteCache(path, max_bytes=200_000)
    for number in range(300):
        await cache.shard("m").put(str(number).encode(), answer("x" * 5000))
    statistics = cache.shard("m").statistics()
    assert statistics.bytes <= 200_000
    assert statistics.evictions + statistics.entries == 300
    await cache.aclose()
    assert path.stat().st_size < 400_000  # noqa: ASYNC240 - a look at the result


async def test_what_was_used_last_is_known_after_the_store_was_closed(path: Path) -> None:
    bound = 2 * row_size(encode_answer(answer()))
    cache = SqliteCache(path, max_bytes=bound)
    for key in (b"a", b"b"):
        await cache.shard("m").put(key, answer())
    await cache.shard("m").get(b"a")
    await cache.aclose()
    again = SqliteCache(path, max_bytes=bound)
    await again.shard("m").put(b"c", answer())
    assert await again.shard("m").get(b"b") is None
    assert await again.shard("m").get(b"a") == answer()
    await again.aclose()


deeds = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "wait"]),
        st.sampled_from("abcde"),
        st.sampled_from([1, 300, 700, 5000]),
    ),
    max_size=30,
)


@settings(max_examples=25)
@given(deeds)
def test_a_shard_keeps_what_was_used_last_and_nothing_too_old(deeds: list[tuple[str, str, int]]) -> None:
    bound, ttl = 2000, 10.0

    async def main(folder: str) -> None:
        now = 1e9
        cache = SqliteCache(Path(folder, "answers.db"), max_bytes=bound, ttl=ttl, now=lambda: now)
        shard = cache.shard("m")
        model: dict[bytes, tuple[Completion, float]] = {}  # in order of use
        for deed, name, size in deeds:
            key = name.encode()
            if deed == "wait":
                now += 4
            elif deed == "put":
                completion = answer(name * size)
                await shard.put(key, completion)
                model = {k: entry for k, entry in model.items() if now - entry[1] < ttl}
                if row_size(encode_answer(completion)) <= bound:
                    model.pop(key, None)
                    model[key] = (completion, now)
                while sum(row_size(encode_answer(entry[0])) for entry in model.values()) > bound:
                    del model[next(iter(model))]
            else:
                found = model.get(key)
                fresh = found is not None and now - found[1] < ttl
                assert await shard.get(key) == (found[0] if found and fresh else None)
                if found and fresh:
                    model[key] = model.pop(key)
        await cache.aclose()

    with TemporaryDirectory() as folder:
        trio.run(main, folder)


# --- files that are refused --------------------------------------------------------------------


@pytest.mark.parametrize("opened_by", [SqliteCache, lambda path: open_cache(f"sqlite:///{path}")])
async def test_a_file_of_a_newer_version_is_refused_and_not_touched(
    opened_by: Any, cache: SqliteCache, path: Path
) -> None:
    await cache.aclose()
    alter(path, "PRAGMA user_version = 2")
    before = path.read_bytes()  # noqa: ASYNC240 - a look at the result
    with pytest.raises(ConfigError, match=r"answers\.db' has format 2, of a newer version.*reads format 1"):
        opened_by(path)
    assert path.read_bytes() == before  # noqa: ASYNC240 - as above


def test_another_program_s_file_is_refused_and_not_touched(path: Path) -> None:
    alter(path, "CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"answers\.db' is another program's"):
        SqliteCache(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_refused_and_not_touched(path: Path) -> None:
    path.write_text("dear diary, " * 100)
    with pytest.raises(ConfigError, match=r"answers\.db' is not a SQLite file"):
        SqliteCache(path)
    assert path.read_text() == "dear diary, " * 100


def test_an_empty_file_becomes_a_cache(path: Path) -> None:
    path.touch()
    assert len(SqliteCache(path).secret) == 32


# --- arguments ---------------------------------------------------------------------------------


def test_a_url_names_a_relative_or_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url, path in [("sqlite:///a.db", "a.db"), (f"sqlite:///{tmp_path}/b c?.db", "b c?.db")]:
        assert isinstance(open_cache(url), SqliteCache)
        assert (tmp_path / path).exists()


async def test_only_the_owner_may_read_the_file(cache: SqliteCache, tmp_path: Path) -> None:
    await cache.shard("m").put(b"k", answer())
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in os.listdir(tmp_path)}  # noqa: PTH208
    assert modes == dict.fromkeys(["answers.db", "answers.db-wal", "answers.db-shm"], 0o600)


def test_the_secret_is_in_no_repr(path: Path) -> None:
    cache = SqliteCache(path)
    assert repr(cache.secret) not in repr(cache) + repr(vars(cache))


@pytest.mark.parametrize(
    "bad",
    [
        {"path": ""},
        {"path": ":memory:"},
        {"path": "a\0b"},
        {"max_bytes": 0},
        {"max_bytes": 1.5},
        {"ttl": -1},
        {"ttl": math.inf},
        {"busy_timeout": 0},
    ],
)
def test_arguments_out_of_range_are_bad_calls(bad: dict[str, Any], path: Path) -> None:
    arguments: dict[str, Any] = {"path": path} | bad
    with pytest.raises(BadCall, match=f"{next(iter(bad))} is .*; it must be "):
        SqliteCache(**arguments)
    assert not path.exists()
