"""The batches that a journal keeps: accepted once, held by one, changed, and kept for some time."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from stores.test_journals import Clock, journal_of
from ultra.stores.batch_contract import BATCH_KEPT, Batch, KeepsBatches

if TYPE_CHECKING:
    from pathlib import Path

    from ultra.stores.batch_contract import BatchStore

BATCH = Batch(id="b", owner="Ann", total=2, concurrency=3)
LINES = b'{"custom_id": "1"}\n{"custom_id": "2"}\n'


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def batches(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> BatchStore:
    url = request.getfixturevalue("url") if request.param == "redis" else ""
    journal = journal_of(request.param, url, clock, tmp_path)
    assert isinstance(journal, KeepsBatches)
    return cast("BatchStore", journal.batches)


async def test_a_batch_is_accepted_once(batches: BatchStore, clock: Clock) -> None:
    assert await batches.get("b") is None
    assert await batches.lines("b") == b""
    added = await batches.add(BATCH, LINES)
    assert added == replace(BATCH, created=added.created)
    assert added.created == pytest.approx(clock.time, abs=5)

    assert await batches.add(replace(BATCH, total=9), b"other") == added
    assert await batches.get("b") == added
    assert await batches.lines("b") == LINES


async def test_one_holds_a_batch_until_the_time_is_over(batches: BatchStore, clock: Clock) -> None:
    added = await batches.add(BATCH, LINES)
    assert await batches.hold("one", 10) == [added]
    assert await batches.hold("two", 10) == []
    assert await batches.hold("one", 10) == [added]
    clock.time += 11

    assert await batches.hold("two", 10) == [added]
    assert await batches.hold("one", 10) == []


async def test_a_batch_is_not_held_for_ever_by_a_clock_that_was_set_back(
    batches: BatchStore, clock: Clock
) -> None:
    added = await batches.add(BATCH, LINES)
    await batches.hold("one", 10)
    clock.time -= 86_400

    assert await batches.hold("two", 10) == [added]
    assert await batches.hold("one", 10) == []


async def test_fields_are_changed_and_a_batch_that_has_ended_is_held_by_nobody(
    batches: BatchStore, clock: Clock
) -> None:
    await batches.add(BATCH, LINES)
    assert await batches.update("none", {"completed": 1}) is None
    errors = {"2": {"code": "bad", "message": "ä"}}
    changed = await batches.update("b", {"completed": 1, "errors": errors, "cancelling": True})
    assert changed is not None
    assert (changed.completed, changed.errors, changed.cancelling, changed.owner) == (1, errors, True, "Ann")
    assert await batches.get("b") == changed

    ended = await batches.update("b", {"ended": clock.time})
    assert ended is not None
    assert ended.ended == clock.time
    assert await batches.hold("one", 10) == []
    clock.time += BATCH_KEPT + 60
    assert await batches.hold("one", 10) == []
    assert await batches.get("b") is None
