from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ultra.actors.runtime.timekeeper import Timekeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Timed:
    """Notes when it is cancelled."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.cancelled_at: float | None = None

    def cancel(self) -> None:
        assert self.cancelled_at is None
        self.cancelled_at = trio.current_time()


@pytest.fixture
async def timekeeper(nursery: trio.Nursery) -> AsyncIterator[Timekeeper]:
    keeper = Timekeeper(nursery.start_soon)
    yield keeper
    keeper.close()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),  # seconds after which it is added
            st.integers(0, 20),  # and until its deadline
            st.none() | st.integers(0, 20),  # and by which that is moved a second later
            st.booleans(),  # whether it is forgotten in the middle of its time
        ),
        max_size=12,
    )
)
def test_each_is_cancelled_once_at_its_deadline_unless_it_is_forgotten_before(
    plan: list[tuple[int, int, int | None, bool]],
) -> None:
    async def live_through(
        keeper: Timekeeper,
        after: int,
        until: int,
        move: int | None,
        forgotten: bool,  # noqa: FBT001 - start_soon takes no keywords
    ) -> None:
        await trio.sleep(after)
        timed = Timed(trio.current_time() + until + 0.25)
        keeper.watch(timed)
        if move is not None:
            await trio.sleep(0.125)
            timed.deadline = trio.current_time() + move + 0.25
            keeper.watch(timed)
        if forgotten:
            await trio.sleep((timed.deadline - trio.current_time()) / 2)
            keeper.forget(timed)
            keeper.forget(timed)
        await trio.sleep(60)
        assert timed.cancelled_at == (None if forgotten else pytest.approx(timed.deadline))

    async def go() -> None:
        async with trio.open_nursery() as nursery:
            keeper = Timekeeper(nursery.start_soon)
            async with trio.open_nursery() as lives:
                for one in plan:
                    lives.start_soon(live_through, keeper, *one)
            keeper.close()

    trio.run(go, clock=MockClock(autojump_threshold=0))


async def test_what_is_overdue_already_is_cancelled_soon(timekeeper: Timekeeper) -> None:
    timed = Timed(trio.current_time() - 1)

    timekeeper.watch(timed)
    await trio.testing.wait_all_tasks_blocked()

    assert timed.cancelled_at is not None


async def test_its_task_begins_when_it_is_first_needed_and_ends_when_it_is_closed() -> None:
    async with trio.open_nursery() as nursery:
        timekeeper = Timekeeper(nursery.start_soon)
        assert not nursery.child_tasks
        for _ in range(3):
            timekeeper.watch(Timed(trio.current_time() + 1000))
        assert len(nursery.child_tasks) == 1
        await trio.testing.wait_all_tasks_blocked()
        timekeeper.close()


async def test_it_sleeps_on_while_sections_come_and_go(
    timekeeper: Timekeeper, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    next_look = Timekeeper._next_look

    def counted(self: Timekeeper) -> float:
        nonlocal looks
        looks += 1
        return next_look(self)

    monkeypatch.setattr(Timekeeper, "_next_look", counted)

    for _ in range(100):
        timed = Timed(trio.current_time() + 1000)
        timekeeper.watch(timed)
        await trio.sleep(1)
        timekeeper.forget(timed)
    late = Timed(trio.current_time() + 5000)
    timekeeper.watch(late)
    await trio.sleep(6000)

    assert late.cancelled_at == pytest.approx(late.deadline)
    assert looks <= 4
