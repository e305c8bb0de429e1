"""The queue of starts, and when a supervisor gives up waiting."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ultra.supervisor import Backoff
from ultra.supervisor.child import Child
from ultra.supervisor.schedule import AT_ONCE, Deadlines, StartQueue, StopTerms

if TYPE_CHECKING:
    from trio.lowlevel import Task

    from ultra.actors.runtime.incarnation import Exit


class NoParent:
    """Hears nothing: a queue does nothing to children."""

    def waits_for_start(self, child: Child, task: Task) -> bool:
        return False

    def child_started(self, child: Child, incarnation: object) -> None: ...

    def child_ending(self, child: Child, incarnation: object, within: float) -> None: ...

    def child_exited(self, child: Child, incarnation: object, reason: Exit) -> None: ...

    def stop_child(self, child: Child, grace: float | None, *, drain: bool) -> None: ...


def child(name: str) -> Child:
    return Child(name, f"/{name}", "permanent", Backoff(), NoParent())


times = st.sampled_from([AT_ONCE, 0.0, 1.0, 2.0, 5.0])


class StartQueueMachine(RuleBasedStateMachine):
    """A queue does what a list would do that is sorted each time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = StartQueue()
        self.children = [child(str(number)) for number in range(4)]
        self.model: list[tuple[float, Child]] = []  # in the order of scheduling

    def first(self) -> tuple[float, Child] | None:
        return min(self.model, key=lambda entry: entry[0], default=None)

    def forget(self, one: Child) -> None:
        self.model = [entry for entry in self.model if entry[1] is not one]

    @rule(which=st.integers(0, 3), due=times)
    def schedule(self, which: int, due: float) -> None:
        one = self.children[which]
        self.queue.schedule(one, due)
        self.forget(one)
        self.model.append((due, one))

    @rule(which=st.integers(0, 3))
    def cancel(self, which: int) -> None:
        self.queue.cancel(self.children[which])
        self.forget(self.children[which])

    @rule(which=st.integers(0, 3), now=times)
    def take(self, which: int, now: float) -> None:
        one = self.children[which]
        due = any(entry[1] is one and entry[0] <= now for entry in self.model)
        assert self.queue.take(one, now) == due
        if due:
            self.forget(one)

    @precondition(lambda self: self.model)
    @rule()
    def pop(self) -> None:
        first = self.first()
        assert first is not None
        assert self.queue.next_due() == first[0]
        assert self.queue.pop() is first[1]
        self.forget(first[1])

    @rule(now=times)
    def clear(self, now: float) -> None:
        due = [one for at, one in sorted(self.model, key=lambda entry: entry[0]) if at <= now]
        assert self.queue.clear(now) == due
        self.model.clear()

    @invariant()
    def tells_what_is_due(self) -> None:
        first = self.first()
        assert self.queue.next_due() == (inf if first is None else first[0])
        for one in self.children:
            assert self.queue.due(one) == next((at for at, other in self.model if other is one), AT_ONCE)


TestStartQueueMachine = StartQueueMachine.TestCase
TestStartQueueMachine.settings = settings(max_examples=60, stateful_step_count=40)


@given(st.lists(st.booleans(), max_size=40))
def test_places_that_were_left_take_no_memory(moves: list[bool]) -> None:
    """Long backoffs must not keep what was moved, or children that were removed, until their end."""
    queue = StartQueue()
    waiting = [child(str(number)) for number in range(3)]
    for moved in [*moves, True] * 20:
        if moved:
            for one in waiting:
                queue.schedule(one, 1e9)
        else:
            brief = child("brief")
            queue.schedule(brief, 1e9)
            queue.cancel(brief)
    assert len(queue._heap) < 100


def test_a_deadline_is_the_last_that_was_set_or_an_earlier_one() -> None:
    deadlines, one, other = Deadlines(), child("one"), child("other")
    assert (deadlines.next(), bool(deadlines)) == (inf, False)
    deadlines.set(one, 5.0)
    deadlines.set(one, 7.0)
    deadlines.shorten(one, 9.0)
    deadlines.shorten(other, 8.0)
    assert deadlines.next() == 7.0
    assert deadlines.pop_overdue(6.9) == []
    assert deadlines.pop_overdue(7.0) == [one]
    deadlines.cancel(one)
    deadlines.shorten(other, 6.0)
    assert deadlines.next() == 6.0
    deadlines.cancel(other)
    assert not deadlines


def test_of_two_requests_to_stop_the_stricter_terms_count() -> None:
    drained, brief = StopTerms(drain=True), StopTerms(grace=2.0)
    assert drained.combined(drained) == drained
    assert drained.combined(brief) == brief == brief.combined(drained)
    assert brief.combined(StopTerms(grace=1.0)) == StopTerms(grace=1.0)
