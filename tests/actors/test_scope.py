from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import pytest
import trio
from trio.testing import MockClock

from ultra.actors import Actor, ActorOptions
from ultra.actors.scope import Section, SectionedScope
from ultra.actors.timekeeper import Timekeeper
from ultra.errors import ActorCrashed, UsageError
from ultra.supervisor import ActorSystem


@pytest.fixture
async def timekeeper(nursery: trio.Nursery) -> AsyncIterator[Timekeeper]:
    keeper = Timekeeper(nursery.start_soon)
    yield keeper
    keeper.close()


async def test_a_section_that_is_cancelled_is_left_and_the_next_one_goes_on(timekeeper: Timekeeper) -> None:
    went_on = False

    with SectionedScope(timekeeper) as scope:
        for _ in range(3):
            with scope.section() as section:
                section.cancel()
                assert section.cancel_called
                await trio.lowlevel.checkpoint()
                pytest.fail("it went on")
            assert section.cancel_called
            with scope.section() as section:
                assert not section.cancel_called
                await trio.lowlevel.checkpoint()
                went_on = True

    assert went_on


async def test_a_section_ends_at_its_deadline_and_the_next_one_has_its_own(
    timekeeper: Timekeeper, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    ends = []

    with SectionedScope(timekeeper) as scope:
        for seconds in (3, 5):
            with scope.section(trio.current_time() + seconds):
                await trio.sleep(60)
            ends.append(trio.current_time() - start)
        with scope.section():
            await trio.sleep(60)

    assert ends == [3, 8]
    assert trio.current_time() - start == 68


async def test_a_deadline_can_be_moved_while_the_section_goes_on(
    timekeeper: Timekeeper, autojump_clock: MockClock
) -> None:
    start = trio.current_time()

    with SectionedScope(timekeeper) as scope, scope.section(start + 1) as section:
        section.deadline = start + 10
        assert section.deadline == start + 10
        await trio.sleep_forever()

    assert trio.current_time() == start + 10


async def test_a_deadline_ends_with_its_section(timekeeper: Timekeeper, autojump_clock: MockClock) -> None:
    with SectionedScope(timekeeper) as scope:
        with scope.section(trio.current_time() + 1) as section:
            await trio.lowlevel.checkpoint()
        await trio.sleep(5)
        with scope.section():
            section.deadline = trio.current_time()
            await trio.sleep(5)
            late = True

    assert late


async def test_a_section_that_is_cancelled_before_it_is_entered_begins_cancelled(
    timekeeper: Timekeeper,
) -> None:
    with SectionedScope(timekeeper) as scope:
        section = scope.section()
        section.cancel()
        with section:
            await trio.lowlevel.checkpoint()
            pytest.fail("it went on")


async def test_to_cancel_a_section_that_was_left_does_nothing_to_the_next_one(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope:
        with scope.section() as first:
            pass
        with scope.section():
            first.cancel()
            await trio.lowlevel.checkpoint()
            went_on = True

    assert went_on


async def test_a_cancellation_that_comes_too_late_for_its_section_touches_nothing_else(
    timekeeper: Timekeeper,
) -> None:
    with SectionedScope(timekeeper) as scope:
        with scope.section() as section:
            section.cancel()
        await trio.lowlevel.checkpoint()
        with scope.section():
            await trio.lowlevel.checkpoint()
            went_on = True

    assert went_on


async def test_cancellation_from_further_up_passes_through(timekeeper: Timekeeper) -> None:
    after = False

    with trio.CancelScope() as outer, SectionedScope(timekeeper) as scope:
        with scope.section() as section:
            section.cancel()
            outer.cancel()
            await trio.lowlevel.checkpoint()
        after = True

    assert outer.cancelled_caught
    assert not after


async def test_errors_pass_and_leave_the_scope_usable(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope:
        for cancelled in (False, True):
            section = scope.section()
            if cancelled:
                section.cancel()
            with pytest.raises(ZeroDivisionError), section:
                raise ZeroDivisionError
        with scope.section():
            await trio.lowlevel.checkpoint()


async def test_of_a_group_only_the_sections_own_cancellation_is_swallowed(timekeeper: Timekeeper) -> None:
    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def fail_when_cancelled(section: Section) -> None:
        with section:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                section.cancel()

    with SectionedScope(timekeeper) as scope:
        with pytest.raises(ExceptionGroup) as caught:
            await fail_when_cancelled(scope.section())
        with scope.section():
            await trio.lowlevel.checkpoint()

    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]


async def test_a_section_inside_a_section_is_refused(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope, scope.section():
        with pytest.raises(RuntimeError, match="goes on already"), scope.section():
            pass
        await trio.lowlevel.checkpoint()


# --- an actor's sections ---------------------------------------------------------------------------


class Patient(Actor):
    """Works at each message for as long as it may, and reports whether that was enough."""

    options = ActorOptions(cancel_abandoned=True)

    def on_abandon(self, handler: trio.lowlevel.Task) -> None:
        """Its askers stay, so there is nothing to do."""

    async def receive(self, message: object) -> object:
        assert isinstance(message, tuple)
        seconds, limit = message
        for part in range(2):
            with self.section(trio.current_time() + limit if part == 0 else inf):
                await trio.sleep(seconds)
                return f"done in part {part}"
        return "never"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_a_handler_can_try_again_after_a_section_was_cancelled(
    concurrency: int, autojump_clock: MockClock
) -> None:
    options = ActorOptions(cancel_abandoned=True, concurrency=concurrency)
    async with ActorSystem() as system:
        patient = system.spawn(Patient, name="patient", options=options)

        for _ in range(3):
            assert await patient.ask((5, 10)) == "done in part 0"
            assert await patient.ask((5, 3)) == "done in part 1"


async def test_a_stop_reaches_a_handler_whose_scope_was_replaced(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        patient = system.spawn(Patient, name="patient")
        patient.tell((1000, 3))
        await trio.sleep(10)
        start = trio.current_time()

        await patient.stop(grace=2)

        assert trio.current_time() - start == 2


async def test_sections_are_for_handlers_in_their_own_tasks() -> None:
    made: list[Patient] = []

    def make() -> Patient:
        made.append(Patient())
        return made[0]

    async with ActorSystem() as system:
        patient = system.spawn(make, name="patient", options=Patient.options)
        await patient.ask((0, 1))

        with pytest.raises(UsageError, match="no handler of actor '/patient' runs in this task"):
            made[0].section()


async def test_sections_are_for_actors_that_cancel_what_is_abandoned(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        patient = system.spawn(Patient, name="patient", options=ActorOptions(max_deliveries=1))

        with pytest.raises(ActorCrashed, match="has no sections: set ActorOptions"):
            await patient.ask((0, 1))
