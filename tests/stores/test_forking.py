"""Files that are open where a process forks: parent and child go on with them, each by itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.cache_keys import key_of
from helpers.forked_children import forked
from ultra._support import forking
from ultra.errors import MissingExtra
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion
from ultra.messages.runs import RunSpec, StrategySpec
from ultra.stores.contracts import Want
from ultra.stores.journal_contract import RunRecord
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.stores.sqlite import SqliteCache
from ultra.stores.sqlite_limits import SqliteLimits

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

SPEC = RunSpec(
    request=ModelRequest.of("Capital of France?"), models=("gpt",), strategy=StrategySpec("vote"), secret=b""
)


class Journal:
    """Writes runs, and tells which there are."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteJournal(path)

    async def write(self, name: str) -> None:
        await self.store.add(RunRecord(run_id=name, spec=SPEC))

    async def written(self) -> set[str]:
        return {run.run_id for run in await self.store.list_runs()}


class Cache:
    """Keeps answers, and tells which there are of the three that tests keep."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteCache(path)
        self.shard = self.store.shard("gpt")

    async def write(self, name: str) -> None:
        await self.shard.put(key_of(name), Completion(content=name))

    async def written(self) -> set[str]:
        names = ("before", "child", "parent")
        return {name for name in names if await self.shard.get(key_of(name)) is not None}


class Limits:
    """Takes from budgets, and tells of which of the three that tests take from."""

    def __init__(self, path: Path) -> None:
        self.store = SqliteLimits(path)

    async def write(self, name: str) -> None:
        await self.store.take([Want(name=name, kind="lease", most=2.0)])

    async def written(self) -> set[str]:
        wants = [Want(name=name, kind="lease", most=2.0) for name in ("before", "child", "parent")]
        states = (await self.store.take(wants)).states
        return {name for name, state in states.items() if not state.left}


async def written_at_last(opened: Any) -> set[str]:
    """Return what was written, and close the file."""
    try:
        found: set[str] = await opened.written()
        return found
    finally:
        await opened.store.aclose()


def in_child(work: Callable[..., Awaitable[object]], *args: str, after: int) -> int:
    """Do `work` in a forked child, once the pipe `after` says so, and return its process id."""

    def run() -> int:
        os.read(after, 1)
        trio.run(work, *args)
        return 0

    return forked(run)


@pytest.mark.parametrize("kind", [Journal, Cache, Limits])
def test_what_a_forked_child_writes_is_there_though_its_parent_closes_the_file_first(
    kind: type[Any], tmp_path: Path
) -> None:
    path = tmp_path / "file.db"
    opened = kind(path)
    trio.run(opened.write, "before")
    reads, writes = os.pipe()
    child = in_child(opened.write, "child", after=reads)
    trio.run(opened.write, "parent")
    trio.run(opened.store.aclose)  # the last that is open, so that SQLite removes its log
    os.write(writes, b"!")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert trio.run(written_at_last, kind(path)) == {"before", "child", "parent"}
    assert trio.run(written_at_last, opened) == {"before", "child", "parent"}


class Interrupted(forking.Forkable):
    """Ctrl-C, while it is waited for a file that another thread uses."""

    def before_fork(self) -> None:
        raise KeyboardInterrupt

    def forked(self) -> None: ...


def test_an_interrupt_before_a_fork_leaves_no_file_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits, interrupted = SqliteLimits(tmp_path / "limits.db"), Interrupted()
    monkeypatch.setattr(forking, "_in_order", lambda: [limits, interrupted])
    with pytest.raises(KeyboardInterrupt):
        forking._before()
    assert limits._lock.locked()
    forking._after()
    assert not limits._lock.locked()


def test_an_interrupt_while_another_thread_uses_a_file_leaves_the_lock_to_that_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class InterruptedLock:
        def acquire(self) -> bool:
            raise KeyboardInterrupt

        def release(self) -> None:
            raise AssertionError("it is another thread's")

    limits = SqliteLimits(tmp_path / "limits.db")
    monkeypatch.setattr(forking, "_in_order", lambda: [limits])
    with monkeypatch.context() as used_by_another:
        used_by_another.setattr(limits, "_lock", InterruptedLock())
        with pytest.raises(KeyboardInterrupt):
            forking._before()
        forking._after()
    forking._before()
    assert limits._lock.locked()
    forking._after()
    assert not limits._lock.locked()


def test_a_forked_child_is_another_replica_than_its_parent() -> None:
    shared_redis = pytest.importorskip("ultra.stores.shared_redis", exc_type=MissingExtra)
    replica = shared_redis.RedisSharedModels("redis://127.0.0.1:1")
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.write(writes, replica._replica.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reads, 100).decode() != replica._replica


def test_a_child_writes_also_where_its_parent_was_writing(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal(tmp_path / "runs.db")
        reads, writes = os.pipe()
        os.write(writes, b"!")
        began, goes_on = trio.Event(), trio.Event()
        write_waiting = journal.store._write_waiting

        async def later() -> None:
            began.set()
            await goes_on.wait()
            await write_waiting()

        journal.store._write_waiting = later  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.write, "parent")
            await began.wait()
            child = in_child_of_trio(journal, after=reads)
            _, status = await trio.to_thread.run_sync(os.waitpid, child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            goes_on.set()
        assert await written_at_last(journal) == {"parent", "child"}

    trio.run(main)


def in_child_of_trio(journal: Journal, *, after: int) -> int:
    """Do as `in_child` does, where a trio run goes on: the child has another one, in another thread."""

    def run() -> int:
        os.read(after, 1)
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - in the child alone

        del journal.store._write_waiting
        with ThreadPoolExecutor(1) as thread:
            thread.submit(trio.run, journal.write, "child").result(timeout=10)
        return 0

    return forked(run)
