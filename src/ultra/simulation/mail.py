"""Watches messages: from the moment they are sent to the last that becomes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra.errors import (
    ActorCrashed,
    ActorDown,
    ActorStopped,
    AskTimeout,
    InboxFull,
)
from ultra.simulation.cast import MessageNode
from ultra.simulation.record import TIME_ERROR

if TYPE_CHECKING:
    from ultra.actors.runtime.dead_letters import DeadLetter, DeadLetters
    from ultra.simulation.cast import ActorNode
    from ultra.simulation.record import Record

__all__ = ["Mail"]


class Mail:
    """Every message of a simulation. `letters` are the system's dead letters, which is to keep them all."""

    letters: DeadLetters

    def __init__(self, record: Record) -> None:
        self._record = record
        self._letters_seen = 0
        self.messages: list[MessageNode] = []
        self.open_asks: dict[int, MessageNode] = {}
        self.open_sends: dict[int, MessageNode] = {}

    def of(self, actor: ActorNode) -> list[MessageNode]:
        """All messages to this actor."""
        return [message for message in self.messages if message.actor is actor]

    def entering(self, message: MessageNode) -> None:
        """The message is a send, which may wait for room."""
        self.open_sends[message.id] = message
        message.actor.entering[message.id] = message

    # --- on its way ----------------------------------------------------------------------------------

    def sending(self, actor: ActorNode, sender: int, *, system: bool) -> MessageNode:
        """A message is about to be sent; its number is its place in the order of all."""
        now = self._record.now()
        message = MessageNode(len(self.messages), actor, sender, now, system=system)
        self.messages.append(message)
        if system:
            actor.system_waiting[message.id] = message
        self._record.events.append((now, "send", actor.path, message.id, sender, system))
        return message

    def accepted(self, message: MessageNode) -> None:
        """A tell or a send has returned, so the message is in the inbox, or was."""
        actor = message.actor
        actor.entering.pop(message.id, None)
        if message.system or message.takes or message.lost or message.dead:
            return
        actor.outstanding[message.id] = message
        self._check_capacity(actor)

    def refused(self, message: MessageNode, error: Exception) -> None:
        """A tell or a send has raised, so the message was never taken in."""
        actor = message.actor
        message.refused += 1
        actor.entering.pop(message.id, None)
        actor.system_waiting.pop(message.id, None)
        self._record.add("refused", actor.path, message.id, type(error).__name__)
        self._check_refusal(message, error)

    def unsent(self, message: MessageNode) -> None:
        """A send was cancelled while it waited, which means that it has sent nothing."""
        message.refused += 1
        message.actor.entering.pop(message.id, None)
        self._record.add("unsent", message.actor.path, message.id)
        self._record.check(
            2,
            not (message.takes or message.done),
            f"a send to {message.actor.path} was cancelled, yet message {message.id} had been handled",
            message.id,
        )

    def _check_refusal(self, message: MessageNode, error: Exception) -> None:
        actor, record = message.actor, self._record
        if isinstance(error, InboxFull):
            self.read_letters()
            full = actor.most_load >= actor.options.capacity
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
        self.read_letters()
        load = len(actor.outstanding)
        if load > capacity:
            self._record.violate(
                5, f"{actor.path} has {load} user messages, its capacity is {capacity}", actor.path
            )

    # --- handled -------------------------------------------------------------------------------------

    def taken(self, message: MessageNode) -> None:
        """The actor has taken the message out of its inbox, to handle it or to meet a fault with it."""
        actor, record = message.actor, self._record
        if message.incarnation == actor.incarnation and (message.in_hand or message.copies > 1):
            return  # a fault met it first, or it is a copy
        now = self._record.now()
        record.events.append((now, "take", actor.path, message.id, actor.incarnation))
        allowed = actor.options.max_deliveries * message.copies
        message.takes += 1
        record.checks[3] += 1
        if message.takes > allowed or message.incarnation == actor.incarnation or message.lost:
            record.violate(
                3,
                f"{actor.path} took message {message.id} {message.takes} times; allowed are {allowed}",
                message.id,
            )
        self._check_order(message)
        self._check_progress(message, now)
        message.incarnation = actor.incarnation
        message.in_hand = actor.alive = True
        actor.in_hand[message.id] = message
        if message.system:
            actor.system_waiting.pop(message.id, None)
        else:
            actor.entering.pop(message.id, None)
            actor.outstanding[message.id] = message
            self._check_capacity(actor)

    def _check_order(self, message: MessageNode) -> None:
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
        first_high = actor.first_high.get(key, -1)
        if message.takes == 1:
            late = message.id < first_high
            actor.first_high[key] = max(message.id, first_high)
        else:
            late = first_high > message.high_when_interrupted
        if late or message.id < actor.incarnation_high.get(key, -1):
            record.violate(
                4,
                f"{actor.path} took message {message.id} of sender {message.sender} after {first_high}",
                message.id,
                first_high,
            )
        actor.incarnation_high[key] = message.id

    def _first_system_message(self, actor: ActorNode) -> int | None:
        """The oldest one that waits for sure: not one whose asker gives up at this very moment."""
        now = self._record.now()
        for number, message in actor.system_waiting.items():
            if message.deadline > now + TIME_ERROR or not actor.options.cancel_abandoned:
                return number
        return None

    def _check_progress(self, message: MessageNode, now: float) -> None:
        actor, record = message.actor, self._record
        if actor.slowed or len(actor.in_hand) >= actor.options.concurrency:
            return
        record.checks[10] += 1
        since = max(message.sent_at, actor.changed_at)
        if now > since + TIME_ERROR:
            record.violate(
                10,
                f"{actor.path} took message {message.id} only at {now:.3f} s, though nothing was in its way "
                f"since {since:.3f} s",
                message.id,
                actor.path,
            )

    def finished(self, message: MessageNode) -> None:
        """The handler is about to return."""
        actor = message.actor
        actor.note_load()
        message.done += 1
        message.in_hand = False
        actor.in_hand.pop(message.id, None)
        actor.outstanding.pop(message.id, None)
        self._record.add("done", actor.path, message.id)

    def undone(self, message: MessageNode) -> None:
        """The actor crashed right after it had handled the message: it counts as not handled."""
        message.done -= 1
        message.in_hand = True
        message.actor.in_hand[message.id] = message
        if not message.system:
            message.actor.outstanding[message.id] = message

    def interrupted(self, actor: ActorNode) -> None:
        """What the actor had in hand goes back to its inbox, unless it was delivered too often."""
        actor.note_load()
        for message in actor.in_hand.values():
            message.in_hand = False
            message.high_when_interrupted = actor.first_high.get((message.sender, message.system), -1)
            given_up = message.takes >= actor.options.max_deliveries * message.copies or (
                actor.options.cancel_abandoned and message.abandoned
            )
            if given_up:
                actor.outstanding.pop(message.id, None)
            elif message.system and message.copies == 1:
                actor.system_waiting[message.id] = message
        actor.in_hand.clear()
        actor.incarnation_high.clear()

    # --- answered ------------------------------------------------------------------------------------

    def asked(self, message: MessageNode, timeout: float | None) -> None:
        """The message is an ask, and somebody waits for its reply from now on."""
        message.deadline = trio.current_effective_deadline()
        if timeout is not None:
            message.deadline = min(message.deadline, message.sent_at + timeout)
        self.open_asks[message.id] = message
        if not message.system:
            message.actor.entering[message.id] = message

    def replied(self, message: MessageNode, reply: object, timeout: float | None) -> None:
        """An ask has ended with a value."""
        self._ended(message, "reply")
        self._record.check(
            1,
            reply == message.id and message.done and not message.lost,
            f"ask {message.id} got the reply {reply!r}; it was handled {message.done} times",
            message.id,
        )
        if timeout is not None:
            self._check_timeout(message, timeout, late=False)

    def failed(self, message: MessageNode, error: Exception, timeout: float | None) -> None:
        """An ask has ended with an error."""
        actor, record = message.actor, self._record
        self._ended(message, type(error).__name__)
        if isinstance(error, (InboxFull, ActorStopped, ActorCrashed)):
            actor.system_waiting.pop(message.id, None)
            actor.entering.pop(message.id, None)
        match error:
            case AskTimeout():
                message.abandoned = True
                self._check_timeout(message, timeout or 0.0, late=True)
                self._given_up_on(message)
            case InboxFull():
                message.unsure = True
                record.check(
                    1,
                    actor.options.overflow != "wait",
                    f"ask {message.id} met a full inbox that waits",
                    message.id,
                )
            case ActorDown():
                message.unsure = True
                record.check(1, actor.down, f"ask {message.id}: {actor.path} is not down", message.id)
            case ActorStopped():
                message.unsure = True
                record.check(
                    1,
                    actor.stop_asked or actor.ended or actor.down,
                    f"ask {message.id}: nobody had stopped {actor.path}: {error}",
                    message.id,
                )
            case ActorCrashed():
                record.check(
                    1,
                    message.takes and error.deliveries <= actor.options.max_deliveries,
                    f"ask {message.id} failed by a crash after {message.takes} deliveries",
                    message.id,
                )
            case _:
                record.check(
                    1,
                    message.done and str(error) == f"refused {message.id}",
                    f"ask {message.id} got somebody else's error: {error!r}",
                    message.id,
                )

    def cancelled(self, message: MessageNode) -> None:
        """An ask was cancelled by whoever asked."""
        message.abandoned = True
        self._ended(message, "cancelled")
        self._given_up_on(message)
        if message.sent_at == self._record.now():
            message.unsure = True  # it may have been cancelled before it sent anything

    def _ended(self, message: MessageNode, how: str) -> None:
        self._record.events.append((self._record.now(), "end", message.actor.path, message.id, how))
        self._record.check(1, not message.answered, "an ask ended twice", message.id)
        message.answered = True
        del self.open_asks[message.id]

    def _check_timeout(self, message: MessageNode, timeout: float, *, late: bool) -> None:
        elapsed = self._record.now() - message.sent_at
        on_time = abs(elapsed - timeout) <= TIME_ERROR if late else elapsed <= timeout + TIME_ERROR
        self._record.check(
            1, on_time, f"ask {message.id} with timeout {timeout} ended after {elapsed:.3f} s", message.id
        )

    def _given_up_on(self, message: MessageNode) -> None:
        """Its asker waits no longer: that may free a place, and take the message out of the inbox."""
        actor = message.actor
        now = actor.changed_at = self._record.now()
        actor.note_load()
        if actor.options.overflow == "wait" and not message.takes:
            message.unsure = actor.overloaded_at == now or actor.crowded  # it may have waited for room
        if actor.options.cancel_abandoned:
            actor.in_hand.pop(message.id, None)
            actor.system_waiting.pop(message.id, None)
            actor.entering.pop(message.id, None)

    # --- the end -------------------------------------------------------------------------------------

    def lost(self, message: MessageNode) -> None:
        """A fault took the message on its way."""
        message.lost = True
        message.actor.system_waiting.pop(message.id, None)

    def actor_ended(self, actor: ActorNode) -> None:
        """The actor takes nothing more; what it had is in the dead letters by now."""
        actor.note_load()
        actor.in_hand.clear()
        actor.system_waiting.clear()
        actor.outstanding.clear()
        actor.entering.clear()

    def read_letters(self) -> None:
        """Take note of the dead letters that have come since."""
        letters = self.letters
        new = letters.total - self._letters_seen
        if new:
            self._letters_seen = letters.total
            for letter in letters.newest(new):
                self._read(letter)

    def _read(self, letter: DeadLetter) -> None:
        number = getattr(letter.message, "id", None)
        if number is None:  # one of the plan's own
            return
        message = self.messages[number]
        message.dead += 1
        actor = message.actor
        for waiting in (actor.outstanding, actor.entering, actor.system_waiting):
            waiting.pop(number, None)

    def check_all_accounted_for(self) -> None:
        """Each message has had exactly one fate, and so has each copy."""
        self.read_letters()
        record = self._record
        for message in self.messages:
            fates = message.done + message.refused + message.dead
            if message.unsure and not message.dead and not message.takes:
                fates += 1  # refused, as its ask's error says
            record.checks[2] += 1
            if fates != message.copies:
                record.violate(
                    2,
                    f"message {message.id} to {message.actor.path} was sent {message.copies} times; handled "
                    f"{message.done}, refused {message.refused}, dead {message.dead}",
                    message.id,
                )

    def check_nothing_open(self) -> None:
        """The system has ended, so nobody may wait for an answer any more, or for room in an inbox."""
        record = self._record
        record.checks[9] += 1
        for message in (*self.open_asks.values(), *self.open_sends.values()):
            record.violate(1, f"message {message.id} to {message.actor.path} never ended", message.id)
            record.violate(9, f"message {message.id} to {message.actor.path} is still waited for", message.id)
