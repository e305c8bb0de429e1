"""The two-lane inbox of an actor: system messages first, user messages bounded.

All methods are synchronous and run in one trio loop, so none of them needs a lock. `capacity` bounds
the user messages that were accepted and are not finished, the ones being handled included; therefore
a message that is redelivered after a crash always finds its place again.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.actors.message import Envelope

__all__ = ["Admission", "Inbox", "Overflow"]


Overflow = Literal["wait", "reject", "drop_oldest"]
"""What happens to a user message that finds the inbox full.

wait: `tell` raises `InboxFull`; `send` and `ask` wait for room, first come, first served.
reject: `tell`, `send` and `ask` raise `InboxFull`.
drop_oldest: the oldest message that nobody has begun to handle goes to the dead letters.
"""


class Admission(Enum):
    """What `Inbox.put` did with an envelope."""

    ACCEPTED = "accepted"
    WAITING = "waiting"
    REJECTED = "rejected"


class Inbox:
    """The messages of one actor that nobody has begun to handle, and how many are being handled.

    `on_drop` is called with each message that the overflow policy ``drop_oldest`` pushes out.
    """

    __slots__ = (
        "_next_sequence",
        "_system",
        "_user",
        "_waiting",
        "capacity",
        "in_flight",
        "on_drop",
        "overflow",
        "user_in_flight",
    )

    def __init__(self, capacity: int, overflow: Overflow, on_drop: Callable[[Envelope], None]) -> None:
        if capacity < 1:
            raise BadCall(f"the inbox capacity is {capacity}; it must be at least 1 message")
        self.capacity = capacity
        self.overflow = overflow
        self.in_flight = 0
        self.user_in_flight = 0
        self.on_drop = on_drop
        self._next_sequence = 0
        self._user: deque[Envelope] = deque()
        # Most actors never use these two, and even an empty deque takes 760 bytes.
        self._system: deque[Envelope] | None = None
        self._waiting: deque[Envelope] | None = None

    def __len__(self) -> int:
        return len(self._user) + (len(self._system) if self._system else 0)

    @property
    def waiting(self) -> int:
        """How many messages wait for room."""
        return len(self._waiting) if self._waiting else 0

    @property
    def user_load(self) -> int:
        """User messages accepted and not finished; never more than `capacity`."""
        return len(self._user) + self.user_in_flight

    def put(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """Take `envelope` in, let it wait for room, or reject it, as its lane and `overflow` say."""
        if envelope.system:
            if self._system is None:
                self._system = deque()
            self._append(self._system, envelope)
        elif len(self._user) + self.user_in_flight < self.capacity:
            self._append(self._user, envelope)
        elif self.overflow == "drop_oldest":
            if not self._user:  # every place is taken by a message in flight
                return Admission.REJECTED
            self.on_drop(self._user.popleft())
            self._append(self._user, envelope)
        elif self.overflow == "reject" or not may_wait:
            return Admission.REJECTED
        else:
            if self._waiting is None:
                self._waiting = deque()
            self._waiting.append(envelope)
            return Admission.WAITING
        return Admission.ACCEPTED

    def take(self) -> Envelope | None:
        """The next message to handle, system lane first; None when both lanes are empty.

        It counts as in flight until `finish` or `requeue` is told of it.
        """
        if self._system:
            envelope = self._system.popleft()
        elif self._user:
            envelope = self._user.popleft()
            self.user_in_flight += 1
        else:
            return None
        self.in_flight += 1
        envelope.deliveries += 1
        return envelope

    def finish(self, envelope: Envelope) -> None:
        """Give up the place of a message that was in flight."""
        self.in_flight -= 1
        if not envelope.system:
            self.user_in_flight -= 1

    def requeue(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages that were in flight back to the front of their lanes, in their old order."""
        for envelope in sorted(envelopes, key=attrgetter("sequence"), reverse=True):
            self.finish(envelope)
            if envelope.system:
                if self._system is None:
                    self._system = deque()
                self._system.appendleft(envelope)
            else:
                self._user.appendleft(envelope)

    def admit_waiting(self) -> Envelope | None:
        """Move the first message that waits into a free place; None when there is no such thing."""
        if self._waiting and self.user_load < self.capacity:
            envelope = self._waiting.popleft()
            self._append(self._user, envelope)
            return envelope
        return None

    def overtake(self, envelope: Envelope, may_pass: Callable[[Envelope], bool]) -> bool:
        """Move `envelope`, if it is the last of its lane, ahead of those right before it that it may pass.

        Returns whether it passed any. Places and sequence numbers change hands together, so that a
        later `requeue` keeps the new order.
        """
        lane = self._system if envelope.system else self._user
        if not lane or lane[-1] is not envelope:
            return False
        place = last = len(lane) - 1
        while place and may_pass(other := lane[place - 1]):
            envelope.sequence, other.sequence = other.sequence, envelope.sequence
            lane[place - 1], lane[place] = envelope, other
            place -= 1
        return place < last

    def remove(self, envelope: Envelope) -> bool:
        """Take `envelope` out before anybody handles it; False when it is not among the accepted."""
        for lane in (self._user, self._system):
            if lane and envelope in lane:
                lane.remove(envelope)
                return True
        return False

    def stop_waiting(self, envelope: Envelope) -> bool:
        """Take `envelope` out of those that wait for room; False when it is not among them."""
        if self._waiting and envelope in self._waiting:
            self._waiting.remove(envelope)
            return True
        return False

    def clear(self, *, keep_accepted: bool = False) -> tuple[list[Envelope], list[Envelope]]:
        """Empty the inbox; returns the messages that were accepted and those that waited for room."""
        waiting = [*(self._waiting or ())]
        self._waiting = None
        if keep_accepted:
            return [], waiting
        accepted = [*(self._system or ()), *self._user]
        self._system = None
        self._user.clear()
        return accepted, waiting

    def _append(self, lane: deque[Envelope], envelope: Envelope) -> None:
        self._next_sequence += 1
        envelope.sequence = self._next_sequence
        lane.append(envelope)
