"""What other processes, and their sudden ends, do to a cache file."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from helpers import sqlite_process
from helpers.cache_keys import key_of
from helpers.command_line import environment, programs
from helpers.sqlite_process import MAX_BYTES, text
from ultra.messages.results import Completion
from ultra.stores.encoding import decode_answer
from ultra.stores.sqlite import SqliteCache

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Ask the process that forks others to do something."""
    with subprocess.Popen(
        [programs() / "python", sqlite_process.__file__],
        env=environment({"PYTHONPATH": str(Path(sqlite_process.__file__).parents[1])}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin
        assert server.stdout
        lines, answers = server.stdin, server.stdout

        def ask(*deed: Any) -> Any:
            print(json.dumps(deed), file=lines, flush=True)
            return json.loads(answers.readline())

        yield ask
        lines.close()


def numbers_in(path: Path) -> list[int]:
    """The numbers whose answers the file holds, having checked that file, sums and answers are right."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = connection.execute("SELECT shard, entries, bytes FROM shards").fetchall()
        assert len(rows) <= 1
        numbers = []
        for table, entries, size in rows:
            answers = connection.execute(f"SELECT key, answer FROM {table}").fetchall()
            assert entries == len(answers)
            assert size == sum(len(answer) + 160 for _, answer in answers) <= MAX_BYTES
            for key, answer in answers:
                content = decode_answer(answer).content
                number = int(content.partition(" ")[0])
                assert key == key_of(str(number))
                assert content == text(number)
                numbers.append(number)
        return numbers
    finally:
        connection.close()


async def test_a_hundred_writers_killed_at_any_moment_leave_no_corrupt_file_and_no_wrong_answer(
    elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    path, random = tmp_path / "answers.db", Random(4)
    seen: set[int] = set()
    found: list[int] = []
    for round_ in range(100):
        assert (
            elsewhere("killed_while_writing", str(path), round_ * 1000, random.uniform(0, 0.02)) == "SIGKILL"
        )
        found = numbers_in(path)
        assert found
        seen.update(found)
    assert {number // 1000 for number in seen} == set(range(100))  # each of them wrote, until it was killed
    cache = SqliteCache(path)
    for number in found:
        answer = await cache.shard("model").get(key_of(str(number)))
        assert answer is not None
        assert answer.content == text(number)
    await cache.aclose()


async def test_a_process_killed_while_it_creates_the_file_leaves_one_that_works(
    elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    random = Random(5)
    for round_ in range(40):
        path = tmp_path / f"{round_}.db"
        elsewhere("killed_while_opening", str(path), random.uniform(0, 0.008))
        cache = SqliteCache(path, max_bytes=MAX_BYTES)
        await cache.shard("model").put(key_of("1"), Completion(content=text(1)))
        assert await cache.shard("model").get(key_of("1")) == Completion(content=text(1))
        await cache.aclose()
        assert 1 in numbers_in(path)


def test_two_processes_share_one_file(elsewhere: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    one, other = elsewhere("together", str(path), [(0, 150), (100, 250)])
    for process in (one, other):
        assert process["warnings"] == []
        assert (process["wrong"], process["failures"], process["stored"]) == (0, 0, 150)
        assert process["hits"] > 0
    assert one["secret"] == other["secret"]
    assert 0 < len(numbers_in(path)) < 250


def test_processes_that_create_the_file_at_once_agree_on_the_secret(
    elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    for round_ in range(5):
        path = tmp_path / f"{round_}.db"
        processes = elsewhere("together", str(path), [(0, 1)] * 6)
        assert [process["warnings"] for process in processes] == [[]] * 6
        assert len({process["secret"] for process in processes}) == 1


def test_a_disk_without_space_costs_the_cache_and_nothing_else(
    elsewhere: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "answers.db"
    elsewhere("together", str(path), [(0, 20)])
    before = set(numbers_in(path))
    process = elsewhere("on_full_disk", str(path), 20_000, list(range(1000, 1030)))
    assert process["wrong"] == 0
    assert process["failures"] > 0
    assert len(process["warnings"]) == 1
    assert before <= set(numbers_in(path))


def test_a_file_that_may_only_be_read_costs_the_cache_and_nothing_else(elsewhere: Callable[..., Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "answers.db")
        elsewhere("together", str(path), [(0, 20)])
        before = numbers_in(path)
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        try:
            process = elsewhere("without_rights", str(path), list(range(20)))
        finally:
            Path(folder).chmod(0o755)
        assert (process["wrong"], process["stored"]) == (0, 0)
        assert process["failures"] >= 20
        assert 1 <= len(process["warnings"]) <= 4
        assert numbers_in(path) == before
