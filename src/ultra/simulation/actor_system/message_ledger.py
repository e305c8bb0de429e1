"""The ledger of messages: from the moment when one is sent to the last thing that becomes of it.

Senders, actors and the observer of faults tell the ledger what happens. It checks guarantees 1 to 5 and 10.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

from ultra.errors import (
    ActorCrashed,
    ActorDown,
    ActorStopped,
    AskTimeout,
    InboxFull,
)
from ultra.simulation.record import TIME_TOLERANCE

if TYPE_CHECKING:
    from ultra.actors.runtime.dead_letters import DeadLetters
    from ultra.simulation.actor_system.nodes import ActorNode
    from ultra.simulation.record import Record

__all__ = ["MessageEntry", "MessageLedger"]


class MessageEntry:
    """One message: its sender, its actor, and all that became of it so far."""

    __slots__ = (
        "abandoned",
        "acceptance_unknown",
        "actor",
        "answered",
        "copies",
        "crashing",
        "dead_lettered",
        "deadline",
        "deliveries",
        "dropped",
        "handled",
        "id",
        "in_flight",
        "incarnation",
        "newest_when_interrupted",
        "rejected",
        "sender",
        "sent_at",
        "spared",
        "system",
    )

    def __init__(self, number: int, actor: ActorNode, sender: int, sent_at: float, *, system: bool) -> None:
        self.id = number
        self.actor = actor
        self.sender = sender
        self.sent_at = sent_at
        self.system = system
        self.deadline = inf  # when its asker gives up
        self.incarnation = 0  # the last one that had it in flight
        self.in_flight = False
        self.deliveries = 0  # how often it was taken out of the inbox
        self.spared = 0  # how many of these do not count, since another message crashed the actor
        self.crashing = False  # it is what crashes the actor now
        self.newest_when_interrupted = 0  # see `ActorNode.newest_first_delivery`
        self.handled = 0
        self.rejected = 0
        self.dead_lettered = 0
        self.copies = 1
        self.answered = False  # the ask has ended, in whatever way
        self.abandoned = False  # ... because its asker gave up
        self.dropped = False  # by a fault, on its way
        self.acceptance_unknown = False  # the ask's error does not say whether the inbox took it


class MessageLedger:
    """Every message of one actor system.

    `dead_letters` are the system's, which must keep them all.
    """

    dead_letters: DeadLetters

    def __init__(self, record: Record) -> None:
        self._record = record
        self._dead_letters_read = 0
        self._dead: list[int] = []
        self.messages: list[MessageEntry] = []
        self.open_asks: dict[int, MessageEntry] = {}
        self.open_sends: dict[int, MessageEntry] = {}

    def of(self, actor: ActorNode) -> list[MessageEntry]:
        """Return all messages to this actor."""
        return [message for message in self.messages if message.actor is actor]

    # --- on its way ----------------------------------------------------------------------------------

    def sending(self, actor: ActorNode, sender: int, *, system: bool) -> MessageEntry:
        """Note that a message is about to be sent. Its number is its place in the order of all."""
        now = self._record.now()
        message = MessageEntry(len(self.messages), actor, sender, now, system=system)
        self.messages.append(message)
        if system:
            actor.system_waiting[message.id] = message
        self._record.events.append((now, "send", actor.path, message.id, sender, system))
        return message

    def may_wait_for_room(self, message: MessageEntry) -> None:
        """Note that the message goes by `send`, which may wait for room in the inbox."""
        self.open_sends[message.id] = message
        message.actor.entering[message.id] = message

    def accepted(self, message: MessageEntry) -> None:
        """Note that `tell` or `send` has returned, so the message is in the inbox, or was."""
        actor = message.actor
        actor.entering.pop(message.id, None)
        if message.system or message.deliveries or message.dropped or message.dead_lettered:
            return
        actor.outstanding[message.id] = message
        self._check_capacity(actor)

    def rejected(self, message: MessageEntry, error: Exception) -> None:
        """Note that `tell` or `send` has raised, so the inbox never took the message."""
        actor = message.actor
        message.rejected += 1
        actor.entering.pop(message.id, None)
        actor.system_waiting.pop(message.id, None)
        self._record.add("refused", actor.path, message.id, type(error).__name__)
        self._check_rejection(message, error)

    def send_cancelled(self, message: MessageEntry) -> None:
        """Note that a `send` was cancelled while it waited, which must mean that it has sent nothing."""
        message.rejected += 1
        message.actor.entering.pop(message.id, None)
        self._record.add("unsent", message.actor.path, message.id)
        self._record.check(
            2,
            not (message.deliveries or message.handled),
            f"a send to {message.actor.path} was cancelled, yet message {message.id} had been handled",
            message.id,
        )

    def _check_rejection(self, message: MessageEntry, error: Exception) -> None:
        actor, record = message.actor, self._record
        if isinstance(error, InboxFull):
            self.read_dead_letters()
            full = actor.max_load >= actor.options.capacity
            record.check(
                5,
                (full or actor.crowded) and not message.system,
                f"{actor.path} refused message {message.id} though its inbox had room",
                actor.path,
            )
        elif isinstance(error, ActorStopped):
            record.check(
                9,
                actor.stop_asked or actor.ended or actor.down,
                f"{actor.path} refused message {message.id} though nobody had stopped it: {error}",
                actor.path,
            )
        else:
            record.violate(1, f"message {message.id} to {actor.path} was refused with {error!r}", message.id)

    def _check_capacity(self, actor: ActorNode) -> None:
        self._record.checks[5] += 1
        capacity = actor.options.capacity
        if len(actor.outstanding) <= capacity:
            return
        self.read_dead_letters()
        load = len(actor.outstanding)
        if load > capacity:
            self._record.violate(
                5, f"{actor.path} has {load} user messages, its capacity is {capacity}", actor.path
            )

    # --- handled -------------------------------------------------------------------------------------

    def taken(self, message: MessageEntry) -> None:
        """Note that the actor took the message out of its inbox, to handle it or to meet a fault with it."""
        actor, record = message.actor, self._record
        if message.incarnation == actor.incarnation and (message.in_flight or message.copies > 1):
            return  # a fault met it first, or it is a copy
        now = self._record.now()
        record.events.append((now, "take", actor.path, message.id, actor.incarnation))
        allowed = actor.options.max_deliveries * message.copies
        message.deliveries += 1
        record.checks[3] += 1
        counted = message.deliveries - message.spared
        if counted > allowed or message.incarnation == actor.incarnation or message.dropped:
            record.violate(
                3,
                f"{actor.path} took message {message.id} {message.deliveries} times; allowed are {allowed}",
                message.id,
            )
        self._check_order(message)
        self._check_progress(message, now)
        message.incarnation = actor.incarnation
        message.in_flight = actor.alive = True
        actor.in_flight[message.id] = message
        if message.system:
            actor.system_waiting.pop(message.id, None)
        else:
            actor.entering.pop(message.id, None)
            actor.outstanding[message.id] = message
            self._check_capacity(actor)

    def _check_order(self, message: MessageEntry) -> None:
        actor, record = message.actor, self._record
        record.checks[4] += 1
        first = self._first_system_message(actor) if actor.system_waiting else None
        if not message.system and first is not None:
            record.violate(
                4,
                f"{actor.path} took user message {message.id} while system message {first} waited",
                message.id,
                first,
            )
        if message.copies > 1 or message.sender < 0:
            return
        key = (message.sender, message.system)
        newest = actor.newest_first_delivery.get(key, -1)
        if message.deliveries == 1:
            late = message.id < newest
            actor.newest_first_delivery[key] = max(message.id, newest)
        else:
            late = newest > message.newest_when_interrupted
        if late or message.id < actor.newest_of_incarnation.get(key, -1):
            record.violate(
                4,
                f"{actor.path} took message {message.id} of sender {message.sender} after {newest}",
                message.id,
                newest,
            )
        actor.newest_of_incarnation[key] = message.id

    def _first_system_message(self, actor: ActorNode) -> int | None:
        """Return the oldest one that surely waits: not one whose asker gives up at this very moment."""
        now = self._record.now()
        for number, message in actor.system_waiting.items():
            if message.deadline > now + TIME_TOLERANCE or not actor.options.cancel_abandoned:
                return number
        return None

    def _check_progress(self, message: MessageEntry, now: float) -> None:
        actor, record = message.actor, self._record
        if actor.slowed or len(actor.in_flight) >= actor.options.concurrency:
            return
        record.checks[10] += 1
        since = max(message.sent_at, actor.changed_at)
        if now > since + TIME_TOLERANCE:
            record.violate(
                10,
                f"{actor.path} took message {message.id} only at {now:.3f} s, though nothing was in its way "
                f"since {since:.3f} s",
                message.id,
                actor.path,
            )

    def handled(self, message: MessageEntry) -> None:
        """Note that the handler is about to return."""
        actor = message.actor
        actor.note_load()
        message.handled += 1
        message.in_flight = False
        actor.in_flight.pop(message.id, None)
        actor.outstanding.pop(message.id, None)
        self._record.add("done", actor.path, message.id)

    def crashed_after_handling(self, message: MessageEntry) -> None:
        """Note a crash right after the message was handled: it counts as not handled."""
        message.handled -= 1
        message.in_flight = True
        message.actor.in_flight[message.id] = message
        if not message.system:
            message.actor.outstanding[message.id] = message

    def interrupted(self, actor: ActorNode) -> None:
        """Note the end of an incarnation: what it had in flight is redelivered, or given up."""
        actor.note_load()
        for message in actor.in_flight.values():
            message.in_flight = False
            key = (message.sender, message.system)
            message.newest_when_interrupted = actor.newest_first_delivery.get(key, -1)
            if not message.crashing and actor.options.max_deliveries > 1:
                message.spared += 1
            message.crashing = False
            given_up = (
                message.deliveries - message.spared >= actor.options.max_deliveries * message.copies
                or (actor.options.cancel_abandoned and message.abandoned)
            )
            if given_up:
                actor.outstanding.pop(message.id, None)
            elif message.system and message.copies == 1:
                actor.system_waiting[message.id] = message
        actor.in_flight.clear()
        actor.newest_of_incarnation.clear()

    # --- answered ------------------------------------------------------------------------------------

    def asked(self, message: MessageEntry, timeout: float | None) -> None:
        """Note that the message is an ask, whose reply is waited for from now on."""
        message.deadline = trio.current_effective_deadline()
        if timeout is not None:
            message.deadline = min(message.deadline, message.sent_at + timeout)
        self.open_asks[message.id] = message
        if not message.system:
            message.actor.entering[message.id] = message

    def replied(self, message: MessageEntry, reply: object, timeout: float | None) -> None:
        """Note that an ask has ended with a value."""
        self._ask_ended(message, "reply")
        self._record.check(
            1,
            reply == message.id and message.handled and not message.dropped,
            f"ask {message.id} got the reply {reply!r}; it was handled {message.handled} times",
            message.id,
        )
        if timeout is not None:
            self._check_timeout(message, timeout, late=False)

    def ask_failed(self, message: MessageEntry, error: Exception, timeout: float | None) -> None:
        """Note that an ask has ended with an error."""
        actor, record = message.actor, self._record
        self._ask_ended(message, type(error).__name__)
        if isinstance(error, (InboxFull, ActorStopped, ActorCrashed)):
            actor.system_waiting.pop(message.id, None)
            actor.entering.pop(message.id, None)
        match error:
            case AskTimeout():
                message.abandoned = True
                self._check_timeout(message, timeout or 0.0, late=True)
                self._asker_gave_up(message)
            case InboxFull():
                message.acceptance_unknown = True
                record.check(
                    1,
                    actor.options.overflow != "wait",
                    f"ask {message.id} met a full inbox that waits",
                    message.id,
                )
            case ActorDown():
                message.acceptance_unknown = True
                record.check(1, actor.down, f"ask {message.id}: {actor.path} is not down", message.id)
            case ActorStopped():
                message.acceptance_unknown = True
                record.check(
                    1,
                    actor.stop_asked or actor.ended or actor.down,
                    f"ask {message.id}: nobody had stopped {actor.path}: {error}",
                    message.id,
                )
            case ActorCrashed():
                record.check(
                    1,
                    message.deliveries and error.deliveries <= actor.options.max_deliveries,
                    f"ask {message.id} failed by a crash after {message.deliveries} deliveries",
                    message.id,
                )
            case _:
                record.check(
                    1,
                    message.handled and str(error) == f"refused {message.id}",
                    f"ask {message.id} got somebody else's error: {error!r}",
                    message.id,
                )

    def ask_cancelled(self, message: MessageEntry) -> None:
        """Note that an ask was cancelled by its asker."""
        message.abandoned = True
        self._ask_ended(message, "cancelled")
        self._asker_gave_up(message)
        if message.sent_at == self._record.now():
            message.acceptance_unknown = True  # it may have been cancelled before it sent anything

    def _ask_ended(self, message: MessageEntry, how: str) -> None:
        self._record.events.append((self._record.now(), "end", message.actor.path, message.id, how))
        self._record.check(1, not message.answered, "an ask ended twice", message.id)
        message.answered = True
        del self.open_asks[message.id]

    def _check_timeout(self, message: MessageEntry, timeout: float, *, late: bool) -> None:
        elapsed = self._record.now() - message.sent_at
        on_time = abs(elapsed - timeout) <= TIME_TOLERANCE if late else elapsed <= timeout + TIME_TOLERANCE
        self._record.check(
            1, on_time, f"ask {message.id} with timeout {timeout} ended after {elapsed:.3f} s", message.id
        )

    def _asker_gave_up(self, message: MessageEntry) -> None:
        """Note that the asker waits no longer: a place may be free now, and the message out of the inbox."""
        actor = message.actor
        now = actor.changed_at = self._record.now()
        actor.note_load()
        if actor.options.overflow == "wait" and not message.deliveries:
            # It may have waited for room.
            message.acceptance_unknown = actor.overloaded_at == now or actor.crowded
        if actor.options.cancel_abandoned:
            actor.in_flight.pop(message.id, None)
            actor.system_waiting.pop(message.id, None)
            actor.entering.pop(message.id, None)

    # --- the end -------------------------------------------------------------------------------------

    def dropped(self, message: MessageEntry) -> None:
        """Note that a fault dropped the message on its way."""
        message.dropped = True
        message.actor.system_waiting.pop(message.id, None)

    def actor_ended(self, actor: ActorNode) -> None:
        """Note that the actor takes nothing more: what it had is in the dead letters by now."""
        actor.note_load()
        actor.in_flight.clear()
        actor.system_waiting.clear()
        actor.outstanding.clear()
        actor.entering.clear()

    def read_dead_letters(self) -> None:
        """Note the dead letters that have come since the last call."""
        new = self.dead_letters.total - self._dead_letters_read
        if new:
            self._dead_letters_read = self.dead_letters.total
            dead, self._dead = self._dead, []
            for number in dead:
                self._read(number)

    def watch_dead_letters(self, dead_letters: DeadLetters) -> None:
        """Take note of each message that becomes a dead letter; a letter itself does not say which it was."""
        self.dead_letters = dead_letters
        dead_letters.observer = self._note_dead

    def _note_dead(self, message: object) -> None:
        number: int | None = getattr(message, "id", None)
        if number is not None:  # else it was made by the fault plan
            self._dead.append(number)

    def _read(self, number: int) -> None:
        message = self.messages[number]
        message.dead_lettered += 1
        actor = message.actor
        for waiting in (actor.outstanding, actor.entering, actor.system_waiting):
            waiting.pop(number, None)

    def check_all_accounted_for(self) -> None:
        """Check that each message, and each copy of one, had exactly one fate."""
        self.read_dead_letters()
        record = self._record
        for message in self.messages:
            fates = message.handled + message.rejected + message.dead_lettered
            if message.acceptance_unknown and not message.dead_lettered and not message.deliveries:
                fates += 1  # rejected, as its ask's error says
            record.checks[2] += 1
            if fates != message.copies:
                record.violate(
                    2,
                    f"message {message.id} to {message.actor.path} was sent {message.copies} times; handled "
                    f"{message.handled}, refused {message.rejected}, dead {message.dead_lettered}",
                    message.id,
                )

    def check_nothing_open(self) -> None:
        """Check, after the end of the system, that no ask and no send still waits."""
        record = self._record
        record.checks[9] += 1
        for message in (*self.open_asks.values(), *self.open_sends.values()):
            record.violate(1, f"message {message.id} to {message.actor.path} never ended", message.id)
            record.violate(9, f"message {message.id} to {message.actor.path} is still waited for", message.id)
