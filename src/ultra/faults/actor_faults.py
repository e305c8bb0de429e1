"""Faults of actors: crashes, hangs and delays; messages dropped, duplicated, reordered, or too many."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, ClassVar, Self, TypeAlias, cast

import trio
from msgspec import Struct
from trio.lowlevel import current_task

from ultra.actors.runtime.cell import ABANDONED
from ultra.actors.runtime.message import Envelope, Message, SystemMessage
from ultra.errors import BadCall, UltraError
from ultra.faults.rule_set import RuleSet
from ultra.faults.rules import (
    Fault,
    Hook,
    InjectedFault,
    MessageConditions,
    Rule,
    Seconds,
    check_seconds,
    draw_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from typing import Unpack

    from ultra.actors.runtime.cell import Cell
    from ultra.actors.runtime.inbox import Admission
    from ultra.faults.rules import Conditions

__all__ = ["ActorFaults", "ErrorMaker", "Filler", "make_error"]

ErrorMaker: TypeAlias = Exception | Callable[[], Exception]
"""An exception to raise, or something that makes one: a class, or a function without arguments."""


current_stage: ContextVar[str | None] = ContextVar("current_stage", default=None)
"""The stage of the message that the current task handles under a plan."""


class Filler(Message[None], frozen=True):
    """What `ActorFaults.fill` puts into inboxes. Handling it takes `seconds`, without the actor."""

    seconds: float


class _Crash(Fault, frozen=True):
    name: ClassVar[str] = "crash"
    hook: ClassVar[Hook] = "handle"

    before: bool = True
    error: ErrorMaker | None = None

    @property
    def ends(self) -> bool:
        return self.before


class _CrashOnStart(Fault, frozen=True):
    name: ClassVar[str] = "crash_on_start"
    hook: ClassVar[Hook] = "start"

    error: ErrorMaker | None = None

    @property
    def ends(self) -> bool:
        return True


class _Hang(Fault, frozen=True):
    name: ClassVar[str] = "hang"
    hook: ClassVar[Hook] = "handle"

    @property
    def ends(self) -> bool:
        return True


class _Delay(Fault, frozen=True):
    name: ClassVar[str] = "delay"
    hook: ClassVar[Hook] = "handle"

    seconds: Seconds


class _Drop(Fault, frozen=True):
    name: ClassVar[str] = "drop"
    hook: ClassVar[Hook] = "send"

    @property
    def ends(self) -> bool:
        return True


class _Duplicate(Fault, frozen=True):
    name: ClassVar[str] = "duplicate"
    hook: ClassVar[Hook] = "send"


class _Reorder(Fault, frozen=True):
    name: ClassVar[str] = "reorder"
    hook: ClassVar[Hook] = "send"


class _Fill(Fault, frozen=True):
    name: ClassVar[str] = "fill"
    hook: ClassVar[Hook] = "send"

    seconds: Seconds = 0.0
    messages: int | None = None


class _ActorRules(Struct):
    """The rules of the plan that concern one actor."""

    start: tuple[Rule, ...]
    send: tuple[Rule, ...]
    handle: tuple[Rule, ...]
    fills: bool
    reorders: bool


class ActorFaults(RuleSet):
    """The methods that add rules about actors. The plan is the `Interceptor` of the actors under it.

    `path` is a pattern for actor paths: ``*`` and ``?`` within a name, ``**`` for any number of names, as
    in ``/models/*/actor`` or ``/**``. The conditions are those of `MessageConditions`. A method that is
    given an argument that is not allowed raises `BadCall`.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed)
        self._rules_of: dict[str, _ActorRules] = {}
        self._dropped: dict[str, list[Envelope]] = {}
        self._stages_count = False

    # --- rules ---------------------------------------------------------------------------------------

    def crash(
        self,
        path: str,
        *,
        before: bool = True,
        error: ErrorMaker | None = None,
        **when: Unpack[MessageConditions],
    ) -> Self:
        """Raise `error` (default: `InjectedFault`) while the actor handles a message, which crashes it.

        With ``before=False``, raise it after the message was handled: its effects remain, its reply is lost.
        """
        if not isinstance(before, bool):
            raise BadCall(f"before={before!r} is not allowed; give True or False")
        return self._add(_Crash(before, check_error(error)), path, when)

    def crash_on_start(
        self, path: str, *, error: ErrorMaker | None = None, **when: Unpack[Conditions]
    ) -> Self:
        """Raise `error` when an incarnation of the actor is made, so that its start fails."""
        return self._add(_CrashOnStart(check_error(error)), path, when)

    def hang(self, path: str, **when: Unpack[MessageConditions]) -> Self:
        """Never finish handling a message, until the handler is cancelled."""
        return self._add(_Hang(), path, when)

    def delay(self, path: str, seconds: Seconds, **when: Unpack[MessageConditions]) -> Self:
        """Wait `seconds`, or a time out of that range, before a message is handled."""
        return self._add(_Delay(check_seconds("seconds", seconds)), path, when)

    def drop(self, path: str, **when: Unpack[MessageConditions]) -> Self:
        """Drop a message on its way. It goes to the dead letters with the reason ``fault``.

        An ask then waits until its timeout, or until the actor ends.
        """
        return self._add(_Drop(), path, when)

    def duplicate(self, path: str, **when: Unpack[MessageConditions]) -> Self:
        """Deliver a message twice, if the inbox has room. The second reply goes nowhere."""
        return self._add(_Duplicate(), path, when)

    def reorder(self, path: str, **when: Unpack[MessageConditions]) -> Self:
        """Let a message overtake the messages of other senders (tasks) that wait in its lane."""
        return self._add(_Reorder(), path, when)

    def fill(
        self,
        path: str,
        *,
        seconds: Seconds = 0.0,
        messages: int | None = None,
        **when: Unpack[MessageConditions],
    ) -> Self:
        """Fill the inbox before a message arrives, or add this many `messages`, as far as they fit.

        Each takes `seconds` to handle. The actor does not see them.
        """
        if messages is not None and (type(messages) is not int or messages < 1):
            raise BadCall(f"messages={messages!r} is not allowed; give 1 or more, or None to fill the inbox")
        return self._add(_Fill(check_seconds("seconds", seconds), messages), path, when)

    # --- the interceptor -----------------------------------------------------------------------------

    def starting(self, cell: Cell) -> None:
        """Make the start fail, if a rule says so."""
        for rule in self._fired(self._rules_about(cell).start):
            self._record(rule, cell.path)
            raise make_error(rule.fault.error if isinstance(rule.fault, _CrashOnStart) else None, "on start")

    def sending(self, cell: Cell, envelope: Envelope, *, may_wait: bool) -> Admission | None:
        """Drop, duplicate or move the message, or fill the inbox before it, as the rules say."""
        rules = self._rules_about(cell)
        if cell.closed or not rules.send:
            return None
        if rules.reorders:
            envelope.origin = current_task()
        after = []
        for rule in self._fired(rules.send, envelope.message):
            match rule.fault:
                case _Drop():
                    self._record(rule, cell.path, envelope.message)
                    return self._drop(cell, envelope)
                case _Fill() as fault:
                    self._fill(cell, envelope, rule, fault)
                case _:
                    after.append(rule)
        if not after:
            return None
        admission = cell.admit(envelope, may_wait=may_wait)
        for rule in after:
            if isinstance(rule.fault, _Duplicate):
                self._duplicate(cell, envelope, rule)
            else:
                self._overtake(cell, envelope, rule)
        return admission

    def handling(
        self, cell: Cell, envelope: Envelope, receive: Callable[[object], Awaitable[object]]
    ) -> Awaitable[object]:
        """Handle the message, with the faults that the rules say."""
        rules = self._rules_about(cell)
        if self._stages_count:
            current_stage.set(getattr(envelope.message, "stage", None))
        if not (rules.handle or rules.fills):
            return receive(envelope.message)
        if type(envelope.message) is Filler:
            return trio.sleep(envelope.message.seconds)  # noqa: ASYNC105 - awaited by the worker
        fired = self._fired(rules.handle, envelope.message)
        if not fired:
            return receive(envelope.message)
        for rule in fired:
            if not isinstance(rule.fault, _Crash) or rule.fault.before:
                self._record(rule, cell.path, envelope.message)
        return self._handle(cell, envelope, fired, receive)

    def ended(self, cell: Cell) -> Iterable[Envelope]:
        """Return the dropped asks to the actor, which has ended: no answer will come."""
        return self._dropped.pop(cell.path, ())

    # --- internals -----------------------------------------------------------------------------------

    def _rules_changed(self) -> None:
        self._rules_of.clear()
        self._stages_count = any(rule.fault.hook == "call" and rule.when.stage for rule in self.rules)

    def _rules_about(self, cell: Cell) -> _ActorRules:
        rules = self._rules_of.get(cell.path)
        if rules is None:
            send = self._rules_for("send", cell.path)
            rules = self._rules_of[cell.path] = _ActorRules(
                start=self._rules_for("start", cell.path),
                send=send,
                handle=self._rules_for("handle", cell.path),
                fills=any(isinstance(rule.fault, _Fill) for rule in send),
                reorders=any(isinstance(rule.fault, _Reorder) for rule in send),
            )
        return rules

    def _drop(self, cell: Cell, envelope: Envelope) -> Admission:
        cell.discard(envelope, "fault")
        if envelope.cell is not None:  # it is an ask
            waiting = [other for other in self._dropped.get(cell.path, ()) if not other.abandoned]
            self._dropped[cell.path] = [*waiting, envelope]
        return "accepted"

    def _fill(self, cell: Cell, envelope: Envelope, rule: Rule, fault: _Fill) -> None:
        room = cell.inbox.capacity - cell.inbox.user_load
        if fault.messages is not None:
            room = min(room, fault.messages)
        if room <= 0 or isinstance(envelope.message, SystemMessage) or cell.closed:
            rule.injected -= 1
            return
        self._record(rule, cell.path, envelope.message)
        for _ in range(room):
            cell.counts.sent += 1
            cell.admit(Envelope(Filler(draw_seconds(fault.seconds, rule.random))), may_wait=False)

    def _overtake(self, cell: Cell, envelope: Envelope, rule: Rule) -> None:
        def may_pass(other: Envelope) -> bool:
            return other.deliveries == 0 and getattr(other, "origin", None) is not envelope.origin

        if cell.inbox.overtake(envelope, may_pass):
            self._record(rule, cell.path, envelope.message)
        else:
            rule.injected -= 1

    def _duplicate(self, cell: Cell, envelope: Envelope, rule: Rule) -> None:
        copy = Envelope(envelope.message)
        copy.origin = current_task()
        cell.counts.sent += 1
        try:
            cell.admit(copy, may_wait=False)
        except UltraError:  # counted as rejected
            rule.injected -= 1
        else:
            self._record(rule, cell.path, envelope.message)

    async def _handle(
        self,
        cell: Cell,
        envelope: Envelope,
        fired: list[Rule],
        receive: Callable[[object], Awaitable[object]],
    ) -> object:
        after: Rule | None = None
        for rule in fired:
            match rule.fault:
                case _Delay(seconds):
                    await trio.sleep(draw_seconds(seconds, rule.random))
                case _Hang():
                    await trio.sleep_forever()
                case _Crash(before=True, error=error):
                    raise make_error(error, "before handling")
                case _:
                    after = after or rule
        if envelope.abandoned and cell.options.cancel_abandoned:
            # The actor, which decides about handlers of its own, does not know of this one yet.
            return ABANDONED
        reply = await receive(envelope.message)
        if after is not None and isinstance(after.fault, _Crash):
            self._record(after, cell.path, envelope.message)
            raise make_error(after.fault.error, "after handling")
        return reply


def check_error(error: object) -> ErrorMaker | None:
    """Return `error` if it can be raised. Raises `BadCall` otherwise."""
    if error is None or isinstance(error, Exception):
        return error
    if not callable(error) or (isinstance(error, type) and not issubclass(error, Exception)):
        raise BadCall(
            f"error={error!r} cannot be raised; give an Exception, a class of them, or what makes one"
        )
    return cast("ErrorMaker", error)


def make_error(error: ErrorMaker | None, default: str) -> Exception:
    """Return the exception to raise; `default` is the text of an `InjectedFault` if `error` is None."""
    if error is None:
        return InjectedFault(f"injected by a fault plan, {default}")
    return error.with_traceback(None) if isinstance(error, Exception) else error()
