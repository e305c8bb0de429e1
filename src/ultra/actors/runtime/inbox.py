"""The two-lane inbox of an actor: system messages first, user messages bounded.

All methods are synchronous and run in one trio loop, so none of them needs a lock. `capacity` bounds
the user messages that were accepted and are not finished, the ones being handled included; therefore
a message that is redelivered after a crash always finds its place again.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Literal, TypeAlias

from ultra.actors.runtime.message import SystemMessage
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ultra.actors.runtime.message import Envelope

__all__ = ["Admission", "Inbox", "Overflow"]

_Lane: TypeAlias = "OrderedDict[Envelope, None]"


Overflow = Literal["wait", "reject", "drop_oldest"]
"""What happens to a user message that finds the inbox full.

wait: `tell` raises `InboxFull`; `send` and `ask` wait for room, first come, first served.
reject: `tell`, `send` and `ask` raise `InboxFull`.
drop_oldest: the oldest message that is not being handled goes to the dead letters.
"""


Admission = Literal["accepted", "waiting", "rejected"]
"""What `Inbox.put` did with an envelope."""


class Inbox:
    """Hold the messages of one actor that wait, and those that are in flight: being handled."""

    __slots__ = (
        "_in_flight",
        "_system",
        "_user",
        "_waiting",
        "capacity",
        "overflow",
        "user_load",
    )

    def __init__(self, capacity: int, overflow: Overflow) -> None:
        if capacity < 1:
            raise BadCall(f"the inbox capacity is {capacity}; it must be at least 1 message")
        self.capacity = capacity
        self.overflow = overflow
        self.user_load = 0
        """User messages accepted and not finished; never more than `capacity`."""
        self._in_flight: dict[Envelope, None] = {}  # in the order in which they were taken
        # Made when first needed: an actor may never use one of them. A message that waits can be taken out of
        # the middle at no more cost than at the end, since many askers may go away at once.
        self._user: _Lane | None = None
        self._system: _Lane | None = None
        self._waiting: _Lane | None = None

    def __len__(self) -> int:
        return (len(self._user) if self._user else 0) + (len(self._system) if self._system else 0)

    @property
    def waiting(self) -> int:
        """How many messages wait for room."""
        return len(self._waiting) if self._waiting else 0

    @property
    def in_flight(self) -> int:
        """How many messages are being handled."""
        return len(self._in_flight)

    def put(self, envelope: Envelope, *, may_wait: bool) -> Admission:
        """Accept `envelope`, let it wait for room, or reject it, as its lane and `overflow` say.

        With ``drop_oldest`` a message that was rejected can be put in after `make_room`.
        """
        if isinstance(envelope.message, SystemMessage):
            envelope.system = True
            lane = self._system
            if lane is None:
                lane = self._system = OrderedDict()
        elif self.user_load < self.capacity:
            lane = self._user
            if lane is None:
                lane = self._user = OrderedDict()
            self.user_load += 1
        elif may_wait and self.overflow == "wait":
            if self._waiting is None:
                self._waiting = OrderedDict()
            self._waiting[envelope] = None
            return "waiting"
        else:
            return "rejected"
        lane[envelope] = None
        return "accepted"

    def make_room(self) -> Envelope | None:
        """Take out the oldest user message that is not in flight, if the overflow policy is to drop it.

        Return None under another policy, or if all of them are in flight.
        """
        if self.overflow != "drop_oldest" or not self._user:
            return None
        self.user_load -= 1
        return self._user.popitem(last=False)[0]

    def take(self) -> Envelope | None:
        """Return the next message to handle, system lane first; None if both lanes are empty.

        It counts as in flight until `finish` or `requeue` is called with it.
        """
        if self._system:
            envelope, _ = self._system.popitem(last=False)
        elif self._user:
            envelope, _ = self._user.popitem(last=False)
        else:
            return None
        self._in_flight[envelope] = None
        envelope.deliveries += 1
        return envelope

    def finish(self, envelope: Envelope) -> None:
        """Free the place of a message that was in flight."""
        del self._in_flight[envelope]
        if not envelope.system:
            self.user_load -= 1

    def requeue(self, envelopes: Iterable[Envelope]) -> None:
        """Put messages that were in flight back to the front of their lanes, in their old order."""
        returned = set(envelopes)
        for envelope in [taken for taken in reversed(self._in_flight) if taken in returned]:
            del self._in_flight[envelope]
            if envelope.system:
                lane = self._system = self._system or OrderedDict()
            else:
                lane = self._user = self._user or OrderedDict()
            lane[envelope] = None
            lane.move_to_end(envelope, last=False)

    def admit_waiting(self) -> Envelope | None:
        """Accept the first message that waits for room and return it; None if there is no room."""
        if self._waiting is None or self.user_load >= self.capacity:
            return None
        envelope, _ = self._waiting.popitem(last=False)
        if not self._waiting:
            self._waiting = None
        self.put(envelope, may_wait=False)
        return envelope

    def overtake(self, envelope: Envelope, may_pass: Callable[[Envelope], bool]) -> bool:
        """Move `envelope`, if it is the last of its lane, ahead of those right before it that it may pass.

        Return whether it passed any.
        """
        lane = self._system if envelope.system else self._user
        if not lane or next(reversed(lane)) is not envelope:
            return False
        passed = list(takewhile(may_pass, islice(reversed(lane), 1, None)))
        for other in reversed(passed):
            lane.move_to_end(other)
        return bool(passed)

    def remove(self, envelope: Envelope) -> bool:
        """Take out `envelope` before it is handled; return False if it is not among the accepted."""
        lane = self._system if envelope.system else self._user
        if not lane or envelope not in lane:
            return False
        del lane[envelope]
        if not envelope.system:
            self.user_load -= 1
        return True

    def stop_waiting(self, envelope: Envelope) -> bool:
        """Take out `envelope` of those that wait for room; return False if it is not among them."""
        if self._waiting is None or envelope not in self._waiting:
            return False
        del self._waiting[envelope]
        if not self._waiting:
            self._waiting = None
        return True

    def clear(self, *, keep_accepted: bool = False) -> tuple[list[Envelope], list[Envelope]]:
        """Empty the inbox; return the messages that were accepted and those that waited for room."""
        waiting = [*(self._waiting or ())]
        self._waiting = None
        if keep_accepted:
            return [], waiting
        accepted = [*(self._system or ()), *(self._user or ())]
        self.user_load -= len(self._user or ())
        self._system = self._user = None
        return accepted, waiting
