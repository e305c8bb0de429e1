from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import structlog
import trio

from ultra.messages.results import Completion, Usage
from ultra.stores.contracts import CacheStatistics
from ultra.stores.sqlite import SqliteCache
from ultra.stores.sqlite_connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


def answer(text: str = "yes") -> Completion:
    return Completion(
        content=text, usage=Usage(input=3, output=5), finish_reason="stop", request_id="r-1", model="m-2"
    )


def alter(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


async def test_a_file_that_a_newer_version_takes_over_meanwhile_is_left_alone(
    cache: SqliteCache, path: Path, logs: list[Any]
) -> None:
    await cache.shard("m").put(b"a", answer())
    alter(path, "PRAGMA user_version = 2")
    await cache.shard("m").put(b"b", answer())
    statistics = cache.shard("m").statistics()
    assert (statistics.stored, statistics.failures) == (1, 1)
    assert "newer version" in logs[0]["error"]


# --- files that do not work --------------------------------------------------------------------


async def test_a_path_that_is_a_folder_costs_the_cache_and_nothing_else(
    tmp_path: Path, logs: list[Any]
) -> None:
    cache = SqliteCache(tmp_path)
    assert len(cache.secret) == 32
    for _ in range(5):
        await cache.shard("m").put(b"k", answer())
        assert await cache.shard("m").get(b"k") is None
    assert cache.shard("m").statistics() == CacheStatistics(misses=5, failures=10)
    await cache.aclose()
    # On opening and at the first use, by the reader and by the writer; not at every call.
    assert [entry["event"] for entry in logs] == ["cache unavailable"] * 4
    assert all(entry["log_level"] == "warning" and str(tmp_path) in entry["store"] for entry in logs)


async def test_a_folder_that_does_not_exist_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    cache = SqliteCache(tmp_path / "no" / "answers.db")
    await cache.shard("m").put(b"k", answer())
    assert await cache.shard("m").get(b"k") is None


def limit_every_connection(monkeypatch: pytest.MonkeyPatch, pragma: str) -> None:
    def limited(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        connection = connect(*args, **kwargs)
        connection.execute(pragma)
        return connection

    monkeypatch.setattr("ultra.stores.sqlite.connect", limited)


LIMITS = {
    "database or disk is full": "PRAGMA max_page_count = 10",
    "attempt to write a readonly database": "PRAGMA query_only = ON",
}


@pytest.mark.parametrize("complaint", LIMITS)
async def test_a_full_or_read_only_file_still_answers_and_fails_nothing(
    complaint: str, path: Path, logs: list[Any], monkeypatch: pytest.MonkeyPatch, mock_clock: MockClock
) -> None:
    cache = SqliteCache(path)
    kept = cache.shard("m")
    await kept.put(b"old", answer())
    await cache.aclose()
    with monkeypatch.context() as patched:
        limit_every_connection(patched, LIMITS[complaint])
        for number in range(5):
            await kept.put(b"new", answer(str(number) * 50_000))
        assert await kept.get(b"old") == answer()
        assert await kept.get(b"new") is None
        assert kept.statistics().failures == 5
        (entry,) = logs
        assert (entry["error"], entry["retry_in"]) == (complaint, 30)
    await kept.put(b"new", answer())
    assert await kept.get(b"new") is None  # it was not even tried
    mock_clock.jump(30)
    await kept.put(b"new", answer())
    assert await kept.get(b"new") == answer()
    assert logs[-1]["event"] == "cache available again"
    await cache.aclose()


async def test_bytes_that_are_no_answer_are_a_miss_that_the_next_write_mends(
    cache: SqliteCache, path: Path, logs: list[Any]
) -> None:
    kept = cache.shard("m")
    await kept.put(b"k", answer())
    alter(path, f"UPDATE {kept._table.name} SET answer = x'c1'")
    assert await kept.get(b"k") is None
    assert kept.statistics().failures == 1
    assert logs[0]["event"] == "cache unavailable"
    await kept.put(b"k", answer("new"))
    assert await kept.get(b"k") == answer("new")


BAD_ANSWERS = {
    "no UTF-8": b"\x81\xa7content\xa2\xff\xfe",
    "deep nesting": b"\x81\xa7content" + b"\x91" * 200_000,
    "another type": msgspec.msgpack.encode({"content": 7}),
    "a number of 65 bits": b"\x81\xa7content\xcf",
    "no text": msgspec.msgpack.encode({"content": " "}),
    "cut off": msgspec.msgpack.encode({"content": "x", "finish_reason": "length"}),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_whatever_is_kept_under_a_key_is_an_answer_or_a_miss(
    kind: str, cache: SqliteCache, path: Path, logs: list[Any]
) -> None:
    kept = cache.shard("m")
    await kept.put(b"k", answer())
    alter(path, f"UPDATE {kept._table.name} SET answer = x'{BAD_ANSWERS[kind].hex()}'")
    for _ in range(3):
        assert await kept.get(b"k") is None
    await kept.put(b"other", answer("new"))
    assert await kept.get(b"other") == answer("new")


@pytest.mark.parametrize(
    "change", ["answer = 7", "answer = 'text'", "written = 'today'", "answer = zeroblob(3000)"]
)
async def test_columns_of_other_types_and_sizes_are_a_miss(change: str, path: Path, logs: list[Any]) -> None:
    cache = SqliteCache(path, max_bytes=2000)
    kept = cache.shard("m")
    await kept.put(b"k", answer())
    alter(path, f"UPDATE {kept._table.name} SET {change}")
    assert await kept.get(b"k") is None
    await cache.aclose()


@pytest.mark.parametrize("change", ["SET secret = 7", "SET secret = x'00'", "SET secret = 'text'"])
async def test_a_wrong_secret_in_the_file_is_not_used(change: str, path: Path, logs: list[Any]) -> None:
    await SqliteCache(path).aclose()
    alter(path, f"UPDATE store {change}")
    assert len(SqliteCache(path).secret) == 32
    alter(path, "DELETE FROM store")
    assert len(SqliteCache(path).secret) == 32


async def test_where_no_thread_can_be_started_lookups_are_misses_and_closing_still_closes(
    cache: SqliteCache, logs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: Any, **_more: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("trio._threads.start_thread_soon", refuse)
    await cache.shard("m").put(b"k", answer())
    assert await cache.shard("m").get(b"k") is None
    assert cache.shard("m").statistics().failures == 2
    await cache.aclose()
    assert cache._writer._connection is cache._reader._connection is None


async def test_a_damaged_file_costs_the_cache_and_nothing_else(path: Path) -> None:
    cache = SqliteCache(path)
    for number in range(50):
        await cache.shard("m").put(str(number).encode(), answer("x" * 3000))
    await cache.aclose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(60_000))
    with structlog.testing.capture_logs() as logs:
        cache = SqliteCache(path)
        for number in range(50):
            assert await cache.shard("m").get(str(number).encode()) in {None, answer("x" * 3000)}
            await cache.shard("m").put(b"new", answer())
        await cache.aclose()
    assert {entry["event"] for entry in logs} <= {"cache unavailable", "cache available again"}


# --- files of others -------------------------------------------------------------------------

needs_owners = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def make_empty(path: Path) -> None:
    path.touch()


async def refused(path: Path) -> bool:
    """Whether a store at `path` keeps nothing, and answers lookups all the same."""
    cache = SqliteCache(path)
    await cache.shard("m").put(b"k", answer())
    found = await cache.shard("m").get(b"k")
    await cache.aclose()
    return found is None


@pytest.mark.parametrize("ending", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("exists", [True, False])
async def test_a_link_is_refused_and_what_it_leads_to_is_left_alone(
    ending: str, *, exists: bool, path: Path, tmp_path: Path, logs: list[Any]
) -> None:
    if ending:
        await SqliteCache(path).aclose()
    victim = tmp_path / "victim"
    if exists:
        victim.write_text("precious")
    path.with_name(path.name + ending).symlink_to(victim)
    assert await refused(path)
    assert victim.exists() is exists
    assert not exists or victim.read_text() == "precious"
    assert "is a link" in logs[0]["error"]


@needs_owners
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
async def test_a_file_that_others_could_write_is_refused(mode: int, path: Path, logs: list[Any]) -> None:
    cache = SqliteCache(path)
    await cache.shard("m").put(b"k", answer("forged"))
    await cache.aclose()
    set_mode(path, mode)
    assert await refused(path)
    assert "others may write" in logs[0]["error"]
    set_mode(path, 0o600)
    assert not await refused(path)


@needs_owners
@pytest.mark.parametrize("empty", [True, False])
async def test_a_file_that_others_could_read_is_closed_to_them(path: Path, *, empty: bool) -> None:
    if empty:
        make_empty(path)
    else:
        await SqliteCache(path).aclose()
    set_mode(path, 0o644)
    assert not await refused(path)
    assert mode_of(path) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
async def test_a_file_of_another_user_is_refused(path: Path, logs: list[Any]) -> None:
    await SqliteCache(path).aclose()
    os.chown(path, 65534, 65534)
    assert await refused(path)
    assert "another user" in logs[0]["error"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
async def test_a_pipe_is_refused_and_hangs_nothing(path: Path, logs: list[Any]) -> None:
    os.mkfifo(path)
    with trio.fail_after(5):
        assert await refused(path)


# --- threads, loops, cancellation --------------------------------------------------------------


@pytest.fixture
def locked(cache: SqliteCache, path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection that is in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


async def test_while_another_process_writes_neither_the_loop_nor_a_lookup_waits(
    cache: SqliteCache, path: Path, locked: sqlite3.Connection
) -> None:
    patient = SqliteCache(path, busy_timeout=20)
    written = trio.Event()

    async def write() -> None:
        await patient.shard("m").put(b"k", answer())
        written.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(20):
            await trio.sleep(0.001)
            assert await patient.shard("m").get(b"k") is None
        assert not written.is_set()
        locked.execute("ROLLBACK")
        await written.wait()
    assert await patient.shard("m").get(b"k") == answer()
    await patient.aclose()


async def test_a_write_that_another_process_holds_up_for_too_long_is_given_up_and_so_are_the_next(
    path: Path, locked: sqlite3.Connection, logs: list[Any], mock_clock: MockClock
) -> None:
    hasty = SqliteCache(path, busy_timeout=0.01)
    for _ in range(5):
        await hasty.shard("m").put(b"k", answer())
    assert hasty.shard("m").statistics().failures == 5
    (entry,) = logs
    assert "locked" in entry["error"]
    locked.execute("ROLLBACK")
    assert await hasty.shard("m").get(b"k") is None  # reading goes on meanwhile
    mock_clock.jump(30)
    await hasty.shard("m").put(b"k", answer())
    assert await hasty.shard("m").get(b"k") == answer()
    await hasty.aclose()


async def test_a_cancelled_write_ends_at_once_and_leaves_all_or_nothing(
    cache: SqliteCache, path: Path, locked: sqlite3.Connection
) -> None:
    patient = SqliteCache(path, busy_timeout=20)
    with trio.move_on_after(0.01) as scope:
        await patient.shard("m").put(b"k", answer())
    assert scope.cancelled_caught
    locked.execute("ROLLBACK")
    await patient.shard("m").put(b"other", answer())  # behind the one that was left to itself
    assert await patient.shard("m").get(b"k") in {None, answer()}
    assert await patient.shard("m").get(b"other") == answer()
    await patient.aclose()


async def test_a_use_in_a_cancelled_scope_is_cancelled(cache: SqliteCache) -> None:
    for use in (cache.shard("m").get, lambda key: cache.shard("m").put(key, answer())):
        with trio.CancelScope() as scope:
            scope.cancel()
            await use(b"k")
        assert scope.cancelled_caught


async def test_closing_waits_for_no_thread_of_the_program(cache: SqliteCache) -> None:
    threads = trio.to_thread.current_default_thread_limiter()
    borrowers = [object() for _ in range(int(threads.total_tokens))]
    for borrower in borrowers:
        threads.acquire_on_behalf_of_nowait(borrower)
    closed = trio.Event()

    async def close() -> None:
        await cache.aclose()
        closed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        while not (closed.is_set() or threads.statistics().tasks_waiting):  # noqa: ASYNC110 - limiters have no event
            await trio.sleep(0.001)
        waiting = threads.statistics().tasks_waiting
        for borrower in borrowers:
            threads.release_on_behalf_of(borrower)

    assert waiting == 0


async def test_closing_in_a_cancelled_scope_still_closes(cache: SqliteCache) -> None:
    await cache.shard("m").put(b"k", answer())
    with trio.CancelScope() as scope:
        scope.cancel()
        await cache.aclose()
    assert scope.cancelled_caught
    assert cache._writer._connection is cache._reader._connection is None


def test_the_loops_of_several_threads_share_one_store(path: Path) -> None:
    cache = SqliteCache(path)
    failed: list[BaseException] = []

    async def use(name: str) -> None:
        for number in range(40):
            key = str(number).encode()
            await cache.shard("m").put(key, answer(f"{number}"))
            assert await cache.shard("m").get(key) == answer(f"{number}")
            await cache.shard(name).put(key, answer(name))

    def run(name: str) -> None:
        try:
            trio.run(use, name)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert cache.shard("m").statistics().stored == 120
    assert cache.shard("m").statistics().hits == 120
    trio.run(cache.aclose)
