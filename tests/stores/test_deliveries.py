"""The notices that a journal keeps: due when their run has ended, held while one delivers them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import pytest

from stores.test_journals import Clock, a_run, journal_of, last
from ultra.stores.delivery_contract import Delivery, DeliveryJournal
from ultra.stores.journal_contract import Claim, Ending, RunJournal

if TYPE_CHECKING:
    from pathlib import Path

NOTICE = Delivery(id="evt_1", run_id="r", url="https://example.org/hook")


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Journal(RunJournal, DeliveryJournal, Protocol):
    """A journal that keeps notices."""


@pytest.fixture(params=["memory", "sqlite", "redis"])
def journal(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Journal:
    url = request.getfixturevalue("url") if request.param == "redis" else ""
    made = journal_of(request.param, url, clock, tmp_path)
    assert isinstance(made, DeliveryJournal)
    return cast("Journal", made)


async def end_run(journal: Journal, run_id: str = "r") -> None:
    claim = await journal.add(a_run(run_id), "p")
    assert isinstance(claim, Claim)
    await journal.append(claim.lease, [last(0, run_id)], Ending(state="completed"))


async def test_a_notice_is_due_when_its_run_has_ended(journal: Journal) -> None:
    assert isinstance(journal, DeliveryJournal)
    assert await journal.take_deliveries(9, 60) == []
    await journal.add_delivery(NOTICE)
    assert await journal.take_deliveries(9, 60) == []
    await end_run(journal)
    assert await journal.take_deliveries(9, 60) == [NOTICE]
    assert await journal.take_deliveries(9, 60) == []


async def test_a_notice_that_nobody_settles_is_due_again(journal: Journal, clock: Clock) -> None:
    await journal.add_delivery(NOTICE)
    await end_run(journal)
    await journal.take_deliveries(9, 60)
    clock.time += 61

    assert await journal.take_deliveries(9, 60) == [NOTICE]


async def test_a_notice_that_failed_comes_again_later_and_one_that_was_delivered_never(
    journal: Journal, clock: Clock
) -> None:
    await journal.add_delivery(NOTICE)
    await end_run(journal)
    await journal.take_deliveries(9, 600)
    await journal.settle_delivery("evt_1", 5)
    assert await journal.take_deliveries(9, 600) == []
    clock.time += 6
    (again,) = await journal.take_deliveries(9, 600)
    assert again.attempts == 1
    await journal.settle_delivery("evt_1")
    clock.time += 9999

    assert await journal.take_deliveries(9, 600) == []


async def test_at_most_so_many_are_taken(journal: Journal) -> None:
    await end_run(journal)
    for number in range(5):
        await journal.add_delivery(Delivery(id=f"{number}", run_id="r", url="https://example.org"))

    assert [len(await journal.take_deliveries(2, 60)) for _ in range(4)] == [2, 2, 1, 0]


async def test_notices_of_runs_that_go_on_keep_no_other_from_being_taken(
    journal: Journal, clock: Clock
) -> None:
    for number in range(1200):
        await journal.add_delivery(
            Delivery(id=f"early {number}", run_id="not there", url="https://example.org")
        )
    clock.time += 0.5
    await journal.add_delivery(NOTICE)
    await end_run(journal)
    taken = [*await journal.take_deliveries(9, 60), *await journal.take_deliveries(9, 60)]

    assert taken == [NOTICE]


async def test_a_notice_without_a_run_is_dropped_some_day(journal: Journal, clock: Clock) -> None:
    await journal.add_delivery(NOTICE)
    clock.time += 3601
    assert await journal.take_deliveries(9, 60) == []
    await end_run(journal)

    assert await journal.take_deliveries(9, 60) == []
