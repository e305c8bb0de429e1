"""The two-lane inbox: its lanes, its bound, its three ways to overflow, and what comes of a crash."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
)

from ultra.actors import SystemMessage
from ultra.actors.runtime.inbox import Admission, Inbox, Overflow
from ultra.actors.runtime.message import Envelope
from ultra.errors import BadCall


class Urgent(SystemMessage[None], frozen=True):
    pass


def user() -> Envelope:
    return Envelope("user")


def system() -> Envelope:
    return Envelope(Urgent())


def put(inbox: Inbox, *envelopes: Envelope) -> list[Admission]:
    return [inbox.put(envelope, may_wait=True) for envelope in envelopes]


def take_all(inbox: Inbox) -> list[Envelope]:
    return list(iter(inbox.take, None))


def test_messages_are_taken_in_the_order_in_which_they_were_put() -> None:
    inbox = Inbox(3, "wait")
    envelopes = [user(), user(), user()]
    assert put(inbox, *envelopes) == ["accepted"] * 3
    assert take_all(inbox) == envelopes
    assert inbox.take() is None


def test_system_messages_are_taken_before_all_user_messages() -> None:
    inbox = Inbox(2, "wait")
    first, urgent, second, more_urgent = user(), system(), user(), system()
    put(inbox, first, urgent, second, more_urgent)
    assert take_all(inbox) == [urgent, more_urgent, first, second]


@pytest.mark.parametrize("overflow", get_args(Overflow))
def test_the_system_lane_has_no_bound(overflow: Overflow) -> None:
    inbox = Inbox(1, overflow)
    put(inbox, user())
    assert put(inbox, *[system() for _ in range(100)]) == ["accepted"] * 100
    assert inbox.user_load == 1


def test_a_message_in_flight_keeps_its_place_until_it_is_finished() -> None:
    inbox = Inbox(1, "reject")
    envelope = user()
    put(inbox, envelope)
    assert inbox.take() is envelope
    assert put(inbox, user()) == ["rejected"]
    inbox.finish(envelope)
    assert put(inbox, user()) == ["accepted"]


def test_with_wait_those_that_may_wait_are_admitted_first_come_first_served() -> None:
    inbox = Inbox(1, "wait")
    held, first, second = user(), user(), user()
    assert put(inbox, held, first, second) == ["accepted", "waiting", "waiting"]
    assert inbox.waiting == 2
    assert inbox.admit_waiting() is None
    inbox.take()
    inbox.finish(held)
    assert inbox.admit_waiting() is first
    assert inbox.admit_waiting() is None
    assert inbox.take() is first


def test_with_wait_those_that_may_not_wait_are_rejected() -> None:
    inbox = Inbox(1, "wait")
    put(inbox, user())
    assert inbox.put(user(), may_wait=False) == "rejected"


def test_with_drop_oldest_room_is_made_by_the_oldest_that_is_not_in_flight() -> None:
    inbox = Inbox(2, "drop_oldest")
    in_flight, oldest, newest = user(), user(), user()
    put(inbox, in_flight, oldest)
    inbox.take()
    assert put(inbox, newest) == ["rejected"]
    assert inbox.make_room() is oldest
    assert put(inbox, newest) == ["accepted"]
    assert take_all(inbox) == [newest]


def test_with_drop_oldest_nothing_in_flight_makes_room() -> None:
    inbox = Inbox(1, "drop_oldest")
    put(inbox, user())
    inbox.take()
    assert inbox.make_room() is None


@pytest.mark.parametrize("overflow", ["wait", "reject"])
def test_no_other_policy_drops_anything(overflow: Overflow) -> None:
    inbox = Inbox(1, overflow)
    put(inbox, user())
    assert inbox.make_room() is None
    assert len(inbox) == 1


def test_requeued_messages_come_first_and_in_their_old_order() -> None:
    inbox = Inbox(10, "wait")
    envelopes = [user() for _ in range(4)]
    urgent = [system(), system()]
    put(inbox, *envelopes, *urgent)
    taken = [inbox.take() for _ in range(4)]
    inbox.requeue([envelope for envelope in reversed(taken) if envelope is not None])
    assert take_all(inbox) == [*urgent, *envelopes]
    assert [envelope.deliveries for envelope in envelopes] == [2, 2, 1, 1]


def test_a_message_can_be_taken_back_as_long_as_nobody_handles_it() -> None:
    inbox = Inbox(10, "wait")
    first, urgent, second = user(), system(), user()
    put(inbox, first, urgent, second)
    assert inbox.remove(second)
    assert not inbox.remove(second)
    assert inbox.take() is urgent
    assert not inbox.remove(urgent)
    assert inbox.user_load == 1


def test_a_message_that_stops_waiting_is_admitted_no_more() -> None:
    inbox = Inbox(1, "wait")
    held, first, second = user(), user(), user()
    put(inbox, held, first, second)
    assert inbox.stop_waiting(first)
    assert not inbox.stop_waiting(first)
    assert not inbox.stop_waiting(held)
    inbox.finish(take_all(inbox)[0])
    assert inbox.admit_waiting() is second


def test_clearing_gives_back_what_was_accepted_and_what_waited() -> None:
    inbox = Inbox(2, "wait")
    in_flight, queued, waiting, urgent = user(), user(), user(), system()
    put(inbox, in_flight)
    inbox.take()
    put(inbox, queued, waiting, urgent)
    assert inbox.clear() == ([urgent, queued], [waiting])
    assert (len(inbox), inbox.waiting, inbox.in_flight, inbox.user_load) == (0, 0, 1, 1)


def test_clearing_may_keep_what_was_accepted() -> None:
    inbox = Inbox(1, "wait")
    queued, waiting = user(), user()
    put(inbox, queued, waiting)
    assert inbox.clear(keep_accepted=True) == ([], [waiting])
    assert take_all(inbox) == [queued]


def test_a_message_overtakes_only_those_that_it_may_pass() -> None:
    inbox = Inbox(10, "wait")
    first, barrier, third, last = user(), user(), user(), user()
    put(inbox, first, barrier, third, last)
    assert inbox.overtake(last, lambda other: other is not barrier)
    assert not inbox.overtake(first, lambda _: True)  # it is not the last of its lane
    order = take_all(inbox)
    assert order == [first, barrier, last, third]
    inbox.requeue(order)
    assert take_all(inbox) == order


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_capacity_below_one_message_is_refused(capacity: int) -> None:
    with pytest.raises(BadCall, match=f"capacity is {capacity}; it must be at least 1"):
        Inbox(capacity, "wait")


class InboxMachine(RuleBasedStateMachine):
    """An inbox does what lists would do that are kept by the rules on paper."""

    in_flight = Bundle("in_flight")

    @initialize(capacity=st.integers(1, 4), overflow=st.sampled_from(get_args(Overflow)))
    def begin(self, capacity: int, overflow: Overflow) -> None:
        self.inbox = Inbox(capacity, overflow)
        self.capacity = capacity
        self.overflow = overflow
        self.system: list[Envelope] = []
        self.user: list[Envelope] = []
        self.waiting: list[Envelope] = []
        self.taken: list[Envelope] = []
        self.orders: dict[Envelope, int] = {}
        self.deliveries: dict[Envelope, int] = {}

    def load(self) -> int:
        return len(self.user) + sum(not envelope.system for envelope in self.taken)

    def accept(self, lane: list[Envelope], envelope: Envelope) -> None:
        lane.append(envelope)
        self.orders[envelope] = len(self.orders)

    @rule(urgent=st.booleans(), may_wait=st.booleans())
    def put(self, *, urgent: bool, may_wait: bool) -> None:
        envelope = system() if urgent else user()
        admission = self.inbox.put(envelope, may_wait=may_wait)
        if urgent:
            assert admission == "accepted"
            self.accept(self.system, envelope)
        elif self.load() < self.capacity:
            assert admission == "accepted"
            self.accept(self.user, envelope)
        elif self.overflow == "wait" and may_wait:
            assert admission == "waiting"
            self.waiting.append(envelope)
        else:
            assert admission == "rejected"

    @rule()
    def make_room(self) -> None:
        expected = self.user[0] if self.user and self.overflow == "drop_oldest" else None
        assert self.inbox.make_room() is expected
        if expected is not None:
            self.user.pop(0)

    @rule(target=in_flight)
    @precondition(lambda self: self.system or self.user)
    def take(self) -> Envelope:
        expected = (self.system or self.user).pop(0)
        assert self.inbox.take() is expected
        self.taken.append(expected)
        self.deliveries[expected] = self.deliveries.get(expected, 0) + 1
        return expected

    @rule()
    @precondition(lambda self: not (self.system or self.user))
    def take_nothing(self) -> None:
        assert self.inbox.take() is None

    @rule(envelope=consumes(in_flight))
    def finish(self, envelope: Envelope) -> None:
        if envelope in self.taken:
            self.taken.remove(envelope)
            self.inbox.finish(envelope)

    @rule()
    def crash(self) -> None:
        self.inbox.requeue(self.taken)
        for envelope in sorted(self.taken, key=self.orders.__getitem__, reverse=True):
            (self.system if envelope.system else self.user).insert(0, envelope)
        self.taken.clear()

    @rule()
    def admit(self) -> None:
        fits = self.waiting and self.load() < self.capacity
        envelope = self.inbox.admit_waiting()
        assert envelope is (self.waiting[0] if fits else None)
        if envelope is not None:
            self.waiting.pop(0)
            self.accept(self.user, envelope)

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def stop_waiting(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.waiting) - 1))
        assert self.inbox.stop_waiting(self.waiting.pop(place))

    @rule(data=st.data())
    @precondition(lambda self: self.user or self.system)
    def take_back(self, data: st.DataObject) -> None:
        lane = data.draw(st.sampled_from([lane for lane in (self.user, self.system) if lane]))
        place = data.draw(st.integers(0, len(lane) - 1))
        assert self.inbox.remove(lane.pop(place))

    @rule(data=st.data(), steps=st.integers(0, 4))
    @precondition(lambda self: self.user or self.system)
    def overtake(self, data: st.DataObject, steps: int) -> None:
        lane = data.draw(st.sampled_from([lane for lane in (self.user, self.system) if lane]))
        envelope, passed = lane[-1], lane[:-1][-steps:] if steps else []
        assert self.inbox.overtake(envelope, passed.__contains__) == bool(passed)
        orders = sorted(self.orders[one] for one in [*passed, envelope])
        lane[len(lane) - 1 - len(passed) :] = [envelope, *passed]
        self.orders.update(zip([envelope, *passed], orders, strict=True))

    @rule(keep=st.booleans())
    def clear(self, *, keep: bool) -> None:
        accepted = [] if keep else [*self.system, *self.user]
        assert self.inbox.clear(keep_accepted=keep) == (accepted, self.waiting)
        self.waiting = []
        if not keep:
            self.system, self.user = [], []

    @invariant()
    def counts_what_it_has(self) -> None:
        inbox = self.inbox
        assert len(inbox) == len(self.system) + len(self.user)
        assert inbox.waiting == len(self.waiting)
        assert inbox.in_flight == len(self.taken)
        assert inbox.user_load == self.load() <= self.capacity

    @invariant()
    def counts_deliveries(self) -> None:
        for envelope, times in self.deliveries.items():
            assert envelope.deliveries == times


TestInboxMachine = InboxMachine.TestCase
TestInboxMachine.settings = settings(max_examples=60, stateful_step_count=40)
