"""Files that cannot be written: they are read as they are, or an error says what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from helpers.command_line import environment, programs
from helpers.privileges import read_only, run_script_within_permissions, run_ultra_within_permissions
from helpers.run_events import orchestrator_of
from stores.test_damage import ANSWER, BATCH, LINES, begun
from stores.test_journals import DONE, a_run, answers_of, last
from ultra import JournalUnavailable
from ultra.stores import open_journal
from ultra.stores.delivery_contract import Delivery
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="root gives up its rights as Linux has it")

READING = (
    ("runs", "list"),
    ("runs", "show", "RUN"),
    ("runs", "follow", "RUN"),
    ("runs", "replay", "RUN"),
    ("log",),
    ("log", "search", "France"),
    ("log", "show", "RUN"),
)
"""The commands that only read."""


async def filled(folder: Path, *, earlier: bool) -> tuple[Path, str]:
    """A journal with a run that was executed, of this id, and another; as an earlier version leaves it."""
    folder.mkdir()  # noqa: ASYNC240 - of this test alone
    path = folder / "runs.db"
    journal: Any = open_journal(SqliteJournal(path))
    async with orchestrator_of(FakeModel("Paris.", name="a"), journal=journal) as orchestrator:
        run_id = await orchestrator.submit("Capital of France?")
        async with orchestrator.follow(run_id) as run:
            await run.result()
    lease = await begun(journal, "old-run")
    await journal.keep_answer(lease, b"1" * 32, ANSWER)
    await journal.batches.add(BATCH, LINES)
    await journal.deliveries.add_delivery(Delivery(id="n", run_id="old-run", url="https://example.org"))
    await journal.append(lease, [last(1, "old-run")], DONE)
    await journal.aclose()
    if earlier:
        with closing(sqlite3.connect(path)) as file, file:
            file.execute("DROP TRIGGER batches_changed")
            file.execute("ALTER TABLE batches DROP COLUMN lines_sum")
            for table in ("runs", "events", "answers", "batches", "deliveries"):
                file.execute(f"ALTER TABLE {table} DROP COLUMN sum")
    return path, run_id


@pytest.mark.parametrize(
    ("sealed", "earlier"), [("nothing", True), ("file", True), ("folder", True), ("both", False)]
)
async def test_what_only_reads_reads_a_file_that_cannot_be_written_and_leaves_it_as_it_is(
    tmp_path: Path, sealed: str, *, earlier: bool
) -> None:
    path, run_id = await filled(tmp_path / "kept", earlier=earlier)
    before = path.read_bytes()
    paths = {"nothing": (), "file": (path,), "folder": (path.parent,), "both": (path, path.parent)}[sealed]
    with read_only(*paths):
        for command in READING:
            words = [run_id if word == "RUN" else word for word in command]
            done = await run_ultra_within_permissions(*words, "--journal", f"sqlite:///{path}")
            assert done.stderr.decode() == "", command
            assert done.returncode == 0, command
            assert b"Paris" in done.stdout or b"France" in done.stdout
    assert path.read_bytes() == before


async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path, run_id = await filled(tmp_path / "kept", earlier=False)
    path.chmod(0)
    for command in (("runs", "list"), ("log",), ("runs", "show", run_id), ("runs", "delete", run_id)):
        done = await run_ultra_within_permissions(*command, "--journal", f"sqlite:///{path}")
        assert b"runs.db' cannot be read" in b" ".join(done.stderr.split()), command
        assert done.returncode == 1


async def test_a_reader_has_all_of_a_file_of_an_earlier_version(tmp_path: Path) -> None:
    path, run_id = await filled(tmp_path / "kept", earlier=True)
    journal: Any = open_journal(f"sqlite:///{path}", read_only=True)
    assert (await journal.get("old-run")).state == "completed"
    assert [each.run_id for each in await journal.list_runs(states=["completed"])] == ["old-run", run_id]
    assert len(await journal.read("old-run")) == 2
    assert await answers_of(journal, "old-run") == {b"1" * 32: ANSWER}
    assert await journal.batches.lines("good") == LINES
    assert (await journal.batches.get("good")).id == "good"

    writer = SqliteJournal(path)  # it makes the file one of this version, under the reader
    await begun(writer, "new")
    assert len(await journal.read("new")) == 1
    assert [each.run_id for each in await journal.list_runs()] == ["new", "old-run", run_id]
    await journal.aclose()
    await writer.aclose()


async def test_a_journal_that_is_only_read_takes_nothing_and_is_not_made(tmp_path: Path) -> None:
    path, _ = await filled(tmp_path / "kept", earlier=False)
    journal = SqliteJournal(path, read_only=True)
    for change in (journal.add(a_run("r"), "me"), journal.delete("old-run"), journal.claim("me", limit=1)):
        with pytest.raises(JournalUnavailable, match="opened for reading only"):
            await change
    await journal.aclose()
    absent = tmp_path / "absent.db"
    with pytest.raises(JournalUnavailable, match=r"there is no file .*absent\.db"):
        SqliteJournal(absent, read_only=True)
    assert not absent.exists()


CRASHED = """
import os, sys, trio
from stores.test_damage import begun
from ultra.stores.journal_sqlite import SqliteJournal
journal = SqliteJournal(GIVEN[0])
trio.run(begun, journal, "late")
os._exit(0)
"""


@pytest.mark.parametrize("shm", [True, False])
async def test_the_log_of_a_process_that_died_is_read_or_it_is_said_how_to_read_it(
    tmp_path: Path, *, shm: bool
) -> None:
    path, _ = await filled(tmp_path / "kept", earlier=False)
    await run_script_within_permissions(CRASHED, path)
    assert path.with_name("runs.db-wal").stat().st_size
    if not shm:
        path.with_name("runs.db-shm").unlink()
    with read_only(path, path.parent):
        done = await run_ultra_within_permissions("runs", "show", "late", "--journal", f"sqlite:///{path}")
    if shm:
        assert done.returncode == 0
        assert b"late  running" in done.stdout
    else:
        assert done.returncode == 1
        assert b"copy both to another folder" in done.stderr.replace(b"\n", b" ")


OPENED = """
import trio
from ultra import ConfigError, JournalUnavailable
from ultra.stores.journal_sqlite import SqliteJournal
from ultra.stores.sqlite import SqliteCache
from ultra.stores.sqlite_limits import SqliteLimits
what, path = GIVEN
try:
    {"journal": SqliteJournal, "limits": SqliteLimits}[what](path)
except (ConfigError, JournalUnavailable) as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["journal", "limits"])
@pytest.mark.parametrize(
    ("sealed", "said"),
    [
        ("file", "is read-only, and the {what} must be written"),
        ("folder", "is read-only, and SQLite makes files beside"),
        ("new", "kept' is read-only"),
        ("absent", "there is no folder"),
    ],
)
async def test_what_must_be_written_says_what_cannot_be(
    tmp_path: Path, what: str, sealed: str, said: str
) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / "file.db"
    if sealed in {"file", "folder"}:
        await run_script_within_permissions(OPENED, what, path)
    given = tmp_path / "absent" / "file.db" if sealed == "absent" else path
    with read_only(*{"file": [path], "absent": []}.get(sealed, [folder])):
        done = await run_script_within_permissions(OPENED, what, given)
    assert done.stderr == b""
    assert said.format(what=what) in done.stdout.decode()


CACHED = """
import trio
from ultra.messages.results import Completion
from ultra.stores.sqlite import SqliteCache

async def use():
    cache = SqliteCache(GIVEN[0], ttl=None)
    shard = cache.shard("gpt")
    found = await shard.get(b"k" * 32)
    await shard.put(b"k" * 32, Completion("yes", finish_reason="stop"))
    print(found is not None, shard.statistics().failures)
    await cache.aclose()

trio.run(use)
"""


async def test_a_cache_in_a_folder_that_cannot_be_written_still_answers(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    first = await run_script_within_permissions(CACHED, folder / "cache.db")
    assert first.stdout == b"False 0\n"
    with read_only(folder):
        second = await run_script_within_permissions(CACHED, folder / "cache.db")
    assert second.stdout == b"True 1\n"


HOLDING = """
import sqlite3, sys
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


async def test_another_program_that_keeps_the_file_locked_is_told_of_and_stops_no_reader(
    tmp_path: Path,
) -> None:
    path, _ = await filled(tmp_path / "kept", earlier=True)
    holder = subprocess.Popen(  # noqa: ASYNC220 - it takes a moment
        [programs() / "python", "-c", HOLDING, str(path)],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(JournalUnavailable, match=r"locked for 0\.01 s; try again"):
            SqliteJournal(path, busy_timeout=0.01)
        journal = SqliteJournal(path, read_only=True, busy_timeout=0.01)
        assert len(await journal.read("old-run")) == 2
        await journal.aclose()
    finally:
        holder.communicate()
