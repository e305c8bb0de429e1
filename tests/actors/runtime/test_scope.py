from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextvars import ContextVar
from math import inf

import pytest
import trio
from trio.testing import MockClock

from ultra.actors import Actor, ActorOptions
from ultra.actors.runtime.scope import Section, SectionedScope
from ultra.actors.runtime.timekeeper import Timekeeper
from ultra.errors import ActorCrashed, ActorUnresponsive, BadCall, UsageError
from ultra.supervisor import ActorSystem
from ultra.supervisor import system as system_module


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
    late = False
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
    went_on = False
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
    went_on = False
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
        assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
        with scope.section():
            await trio.lowlevel.checkpoint()


async def test_a_section_inside_a_section_is_refused(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope, scope.section():
        with pytest.raises(UsageError, match="follow each other"), scope.section():
            pass
        await trio.lowlevel.checkpoint()


async def test_a_section_is_entered_once_and_forgets_what_comes_too_late(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope:
        with scope.section() as section:
            await trio.lowlevel.checkpoint()
        section.cancel()
        assert not section.cancel_called
        with pytest.raises(UsageError, match="entered once"), section:
            pass


async def test_a_section_outside_of_its_scope_is_refused(timekeeper: Timekeeper) -> None:
    scope = SectionedScope(timekeeper)
    with pytest.raises(UsageError, match="only inside the scope"), scope.section():
        pass
    with scope:
        pass
    with pytest.raises(UsageError, match="only inside the scope"), scope.section():
        pass


async def test_a_deadline_that_is_no_number_is_refused_where_it_is_given(timekeeper: Timekeeper) -> None:
    with SectionedScope(timekeeper) as scope, scope.section(trio.current_time() + 1000) as section:
        with pytest.raises(BadCall, match="the deadline is nan"):
            section.deadline = math.nan
        with pytest.raises(BadCall, match="the deadline is nan"):
            scope.section(math.nan)
        await trio.testing.wait_all_tasks_blocked()


async def test_a_section_whose_deadline_is_lifted_is_watched_no_longer(
    timekeeper: Timekeeper, autojump_clock: MockClock
) -> None:
    with SectionedScope(timekeeper) as scope, scope.section(trio.current_time() + 1) as section:
        section.deadline = inf
        await trio.sleep(5)
    assert not timekeeper._timed


async def test_no_interrupt_comes_while_a_scope_is_replaced(timekeeper: Timekeeper) -> None:
    protected = []

    class Spent:
        def __exit__(self, *_: object) -> bool:
            protected.append(trio.lowlevel.currently_ki_protected())
            return True

    with SectionedScope(timekeeper) as scope:
        real, scope.entered = scope.entered, Spent()  # type: ignore[assignment]  # all that is used of it
        assert scope.replace(None, None, None)
        assert isinstance(scope.entered, trio.CancelScope)
        scope.entered.__exit__(None, None, None)
        scope.entered = real

    assert protected == [True]
    assert not trio.lowlevel.currently_ki_protected()


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

        with pytest.raises(ActorCrashed, match="has no sections: it needs ActorOptions"):
            await patient.ask((0, 1))


class LastWords(Patient):
    """Opens a section where it has no handler."""

    async def on_stop(self) -> None:
        with self.section(trio.current_time() + 1):
            await trio.sleep_forever()


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_on_stop_has_no_sections_and_its_failure_is_the_actors_own(
    concurrency: int, autojump_clock: MockClock
) -> None:
    options = ActorOptions(cancel_abandoned=True, concurrency=concurrency)
    async with ActorSystem() as system:
        actor = system.spawn(LastWords, name="actor", options=options)
        assert await actor.ask((0, 1)) == "done in part 0"

        ended = await actor.stop()

        assert isinstance(ended.error, UsageError)


async def test_a_handler_that_nobody_waits_for_any_more_is_cancelled_in_its_next_section(
    autojump_clock: MockClock,
) -> None:
    how = []

    class Stubborn(Patient):
        async def receive(self, message: object) -> object:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)
            try:
                with self.section():
                    await trio.lowlevel.checkpoint()
            except BaseException as error:
                how.append(type(error))
                raise
            return None

    async with ActorSystem() as system:
        actor = system.spawn(Stubborn, name="actor")
        actor.tell("begin")
        await trio.testing.wait_all_tasks_blocked()
        ended = await actor.stop(grace=1)

    assert isinstance(ended.error, ActorUnresponsive)
    assert how == [trio.Cancelled]


async def test_the_timekeeper_does_not_keep_the_context_of_a_handler() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="nothing")
    told = []

    class Telling(Timekeeper):
        __slots__ = ()

        def _next_look(self) -> float:
            told.append(variable.get())
            return super()._next_look()

    class Setting(Patient):
        async def receive(self, message: object) -> object:
            variable.set("a request")
            return await super().receive(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(system_module, "Timekeeper", Telling)
        async with ActorSystem() as system:
            actor = system.spawn(Setting, name="actor")
            assert await actor.ask((0, 1)) == "done in part 0"
            await trio.testing.wait_all_tasks_blocked()

    assert set(told) == {"nothing"}
