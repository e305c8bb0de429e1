"""Runtimes that are broken on purpose, to prove that simulations see it.

Each function breaks one guarantee by patching the runtime; its docstring says how.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heappop
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import trio
from outcome import Value
from trio.lowlevel import reschedule

from ultra.actors.runtime.cell import Cell
from ultra.actors.runtime.crash import CrashBarrier
from ultra.actors.runtime.inbox import Inbox
from ultra.actors.runtime.incarnation import Incarnation
from ultra.actors.runtime.message import Envelope
from ultra.supervisor.restart_policy import CountedRestart, RestartPolicy, RestartWindow
from ultra.supervisor.schedule import StartQueue
from ultra.supervisor.spec import Backoff
from ultra.supervisor.supervision_loop import SupervisionLoop

if TYPE_CHECKING:
    from collections.abc import Callable

    Break = Callable[[pytest.MonkeyPatch], None]


class BrokenRuntime(NamedTuple):
    """A function that breaks the runtime, and the number of the guarantee that it breaks."""

    guarantee: int
    apply: Break


BROKEN_RUNTIMES: list[BrokenRuntime] = []


def breaks(guarantee: int) -> Callable[[Break], Break]:
    def add(apply: Break) -> Break:
        BROKEN_RUNTIMES.append(BrokenRuntime(guarantee, apply))
        return apply

    return add


@breaks(1)
def replies_get_lost(patch: pytest.MonkeyPatch) -> None:
    """Every fiftieth reply reaches nobody."""
    succeed, replies = Envelope.succeed, count()

    def lossy(self: Envelope, reply: object) -> None:
        if self.asker is None or next(replies) % 50:
            succeed(self, reply)

    patch.setattr(Envelope, "succeed", lossy)


@breaks(1)
def replies_go_to_somebody_else(patch: pytest.MonkeyPatch) -> None:
    """Where another ask waits in the inbox, now and then that one gets the reply."""
    succeed, replies = Envelope.succeed, count()

    def mixed(self: Envelope, reply: object) -> None:
        others: list[Envelope] = []
        if self.asker is not None and self.cell is not None:
            inbox = self.cell.inbox  # type: ignore[attr-defined]
            others = [other for other in inbox._user or () if other.asker is not None]
        succeed(others[0] if others and not next(replies) % 5 else self, reply)

    patch.setattr(Envelope, "succeed", mixed)


@breaks(1)
def late_replies_reach_their_askers(patch: pytest.MonkeyPatch) -> None:
    """A reply wakes an asker that has gone to sleep by now."""
    abandon, succeed = Envelope.abandon, Envelope.succeed
    former_askers: dict[Envelope, Any] = {}

    def remembered(self: Envelope, raise_cancel: object) -> Any:
        former_askers[self] = self.asker
        return abandon(self, raise_cancel)

    def late(self: Envelope, reply: object) -> None:
        asker = former_askers.pop(self, None)
        if asker is not None and getattr(asker._abort_func, "__module__", "") == "trio._timeouts":
            reschedule(asker, Value(reply))
        succeed(self, reply)

    patch.setattr(Envelope, "abandon", remembered)
    patch.setattr(Envelope, "succeed", late)


@breaks(2)
def redelivered_messages_vanish(patch: pytest.MonkeyPatch) -> None:
    """What an incarnation had in hand when it crashed is gone."""
    patch.setattr(Inbox, "requeue", lambda self, envelopes: [self.finish(one) for one in envelopes])


@breaks(2)
def dead_letters_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """A message that is given up leaves no trace."""
    patch.setattr(
        Cell, "discard", lambda self, envelope, reason, error=None: error is not None and envelope.fail(error)
    )


@breaks(2)
def a_cancelled_send_has_sent(patch: pytest.MonkeyPatch) -> None:
    """A send that is cancelled while it waits for room leaves its message waiting."""
    patch.setattr(Inbox, "stop_waiting", lambda *_: False)


@breaks(3)
def too_many_handlers(patch: pytest.MonkeyPatch) -> None:
    """One worker more than there may be."""

    async def wide(self: Incarnation) -> None:
        concurrency = self.cell.options.concurrency
        async with trio.open_nursery() as self._nursery:
            self._worker_count = concurrency
            for _ in range(concurrency + 1):
                self._nursery.start_soon(self._run_worker)

    patch.setattr(Incarnation, "_run_workers", wide)


@breaks(3)
def messages_are_delivered_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A message that crashes the actor comes back more often than it may."""

    def may(self: Incarnation, envelope: Envelope) -> bool:
        return not self.cell.closed and envelope.deliveries < 9

    patch.setattr(Incarnation, "_may_redeliver", may)


@breaks(4)
def redelivered_messages_go_to_the_end(patch: pytest.MonkeyPatch) -> None:
    """What is delivered again comes after what was sent later."""

    def requeue(self: Inbox, envelopes: Any) -> None:
        for envelope in envelopes:
            del self._in_flight[envelope]
            if envelope.system:
                self._system = self._system or OrderedDict()
                self._system[envelope] = None
            else:
                self._user = self._user or OrderedDict()
                self._user[envelope] = None

    patch.setattr(Inbox, "requeue", requeue)


@breaks(4)
def user_messages_come_first(patch: pytest.MonkeyPatch) -> None:
    """System messages wait behind user messages."""

    def take(self: Inbox) -> Envelope | None:
        if self._user:
            envelope = self._user.popitem(last=False)[0]
        elif self._system:
            envelope = self._system.popitem(last=False)[0]
        else:
            return None
        self._in_flight[envelope] = None
        envelope.deliveries += 1
        return envelope

    patch.setattr(Inbox, "take", take)


@breaks(4)
def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    """The newest user message is handled first."""

    def take(self: Inbox) -> Envelope | None:
        if self._system:
            envelope = self._system.popitem(last=False)[0]
        elif self._user:
            envelope = self._user.popitem()[0]
        else:
            return None
        self._in_flight[envelope] = None
        envelope.deliveries += 1
        return envelope

    patch.setattr(Inbox, "take", take)


@breaks(5)
def messages_in_flight_take_no_room(patch: pytest.MonkeyPatch) -> None:
    """What is being handled does not count against the capacity."""
    put = Inbox.put

    def generous(self: Inbox, envelope: Envelope, *, may_wait: bool) -> Any:
        if not envelope.system and self._user is not None and len(self._user) < self.capacity:
            self.user_load, load = 0, self.user_load
            try:
                return put(self, envelope, may_wait=may_wait)
            finally:
                self.user_load += load
        return put(self, envelope, may_wait=may_wait)

    patch.setattr(Inbox, "put", generous)


@breaks(5)
def the_inbox_is_full_too_early(patch: pytest.MonkeyPatch) -> None:
    """Messages are refused while there is room."""
    init = Inbox.__init__

    def smaller(self: Inbox, capacity: int, overflow: Any) -> None:
        init(self, max(1, capacity // 2), overflow)

    patch.setattr(Inbox, "__init__", smaller)


@breaks(6)
def restarts_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """The restart intensity allows everything."""
    patch.setattr(RestartWindow, "admit", lambda _self, _now, error: CountedRestart(error))


@breaks(6)
def one_restart_too_many(patch: pytest.MonkeyPatch) -> None:
    """The restart intensity allows one more than declared."""
    init = RestartPolicy.__init__

    def lax(self: RestartPolicy, strategy: Any, intensity: Any, on_excess: Any, random: Random) -> None:
        init(self, strategy, type(intensity)(intensity.max_restarts + 1, intensity.within), on_excess, random)

    patch.setattr(RestartPolicy, "__init__", lax)


@breaks(6)
def the_supervisor_gives_up_too_early(patch: pytest.MonkeyPatch) -> None:
    """The first crash is one too many."""
    patch.setattr(RestartWindow, "admit", lambda *_: None)


@breaks(7)
def siblings_are_left_alone(patch: pytest.MonkeyPatch) -> None:
    """One_for_all and rest_for_one restart the child that crashed and no other."""
    patch.setattr(RestartPolicy, "group", lambda _self, child, _children: [child])


@breaks(7)
def siblings_are_restarted_too(patch: pytest.MonkeyPatch) -> None:
    """One_for_one restarts all children."""
    patch.setattr(RestartPolicy, "group", lambda _self, _child, children: list(children))


@breaks(7)
def temporary_children_come_back(patch: pytest.MonkeyPatch) -> None:
    """A temporary child that crashed is restarted."""
    crash = SupervisionLoop._on_crash

    def lenient(self: SupervisionLoop, child: Any, error: Exception) -> None:
        child.restart = "permanent" if child.restart == "temporary" else child.restart
        crash(self, child, error)

    patch.setattr(SupervisionLoop, "_on_crash", lenient)


@breaks(7)
def the_new_incarnation_does_not_wait_for_the_old(patch: pytest.MonkeyPatch) -> None:
    """Members of a group are started while they are still stopping."""
    schedule = SupervisionLoop._restart_group

    def hasty(self: SupervisionLoop, child: Any, due: float) -> None:
        schedule(self, child, due)
        while (member := self._stops.pop()) is not None:
            member.stop(None, drain=False)
            member.incarnation = None
            member.phase = child.phase

    patch.setattr(SupervisionLoop, "_restart_group", hasty)


@breaks(7)
def children_do_not_wait_for_those_before_them(patch: pytest.MonkeyPatch) -> None:
    """A child is started while the one before it is still starting."""
    patch.setattr(
        StartQueue, "starting", property(lambda _self: None, lambda _self, _child: None), raising=False
    )


@breaks(7)
def supervisors_do_not_wait_for_their_children(patch: pytest.MonkeyPatch) -> None:
    """A supervisor is said to have started while its children are still starting."""
    patch.setattr(SupervisionLoop, "_is_starting", lambda _self: False)


@breaks(7)
def children_that_will_be_restarted_are_shown_as_stopping(patch: pytest.MonkeyPatch) -> None:
    """The state of a child that was stopped for a restart is not renewed."""
    on_end = SupervisionLoop._on_expected_end

    def silent(self: SupervisionLoop, child: Any, how: Any) -> None:
        with pytest.MonkeyPatch.context() as unchanged:
            unchanged.setattr(type(child), "mark_restarting", lambda _self: None)
            on_end(self, child, how)

    patch.setattr(SupervisionLoop, "_on_expected_end", silent)


@breaks(7)
def crashed_children_are_shown_as_running(patch: pytest.MonkeyPatch) -> None:
    """The state of a child that crashed is not renewed."""
    on_crash = SupervisionLoop._on_crash

    def silent(self: SupervisionLoop, child: Any, error: Exception) -> None:
        with pytest.MonkeyPatch.context() as unchanged:
            unchanged.setattr(type(child), "mark_restarting", lambda _self: None)
            on_crash(self, child, error)

    patch.setattr(SupervisionLoop, "_on_crash", silent)


@breaks(8)
def old_timers_still_start_children(patch: pytest.MonkeyPatch) -> None:
    """A start that was put off happens at its old time as well."""

    def next_due(self: StartQueue) -> float:
        return self._heap[0][0] if self._heap and self.starting is None else float("inf")

    def pop(self: StartQueue) -> Any:
        child = heappop(self._heap)[2]
        self._places.pop(child, None)
        return child

    patch.setattr(StartQueue, "next_due", next_due)
    patch.setattr(StartQueue, "pop", pop)


@breaks(8)
def backoff_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """A child is restarted at once, whatever was announced."""
    schedule = StartQueue.schedule
    patch.setattr(StartQueue, "schedule", lambda self, child, _due: schedule(self, child, -float("inf")))


@breaks(9)
def grace_has_no_end(patch: pytest.MonkeyPatch) -> None:
    """Handlers are waited for however long they take."""
    stop = Incarnation.stop
    patch.setattr(Incarnation, "stop", lambda self, _grace, *, drain=False: stop(self, 1000.0, drain=drain))


@breaks(9)
def watchers_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Whoever watches an actor is not told of its end."""
    terminate = Cell.terminate

    def silent(self: Cell, state: Any, error: Exception | None = None) -> None:
        self.watchers = {}
        terminate(self, state, error)

    patch.setattr(Cell, "terminate", silent)


@breaks(9)
def waiting_senders_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Who waits for room in the inbox of an actor that ends is not told."""
    clear = Inbox.clear

    def forgetful(self: Inbox, *, keep_accepted: bool = False) -> Any:
        accepted, _ = clear(self, keep_accepted=keep_accepted)
        return accepted, []

    patch.setattr(Inbox, "clear", forgetful)


@breaks(10)
def wake_ups_get_lost(patch: pytest.MonkeyPatch) -> None:
    """Now and then nobody is told that a message has come."""
    wake, calls = Incarnation.wake, count()

    def sleepy(self: Incarnation) -> None:
        if next(calls) % 40:
            wake(self)

    patch.setattr(Incarnation, "wake", sleepy)


@breaks(10)
def freed_places_are_not_given_away(patch: pytest.MonkeyPatch) -> None:
    """Who waits for room waits on when there is some."""
    patch.setattr(Cell, "admit_waiting", lambda _self: None)


@breaks(10)
def crashed_children_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A crash is reported to nobody."""
    exited, calls = SupervisionLoop._on_exit, count()

    def forgetful(self: SupervisionLoop, child: Any, incarnation: object, reason: Any) -> None:
        if reason.error is None or self._ending or next(calls) % 3:
            exited(self, child, incarnation, reason)
        else:
            child.incarnation = None

    patch.setattr(SupervisionLoop, "_on_exit", forgetful)


def take_for_a_crash(patch: pytest.MonkeyPatch, unexpected: type[BaseException]) -> None:
    leave = CrashBarrier.__exit__

    def greedy(self: CrashBarrier, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, unexpected):
            error = RuntimeError(f"{unexpected.__name__} was caught")
        return leave(self, kind, error, trace)

    patch.setattr(CrashBarrier, "__exit__", greedy)


@breaks(11)
def cancellation_is_taken_for_a_crash(patch: pytest.MonkeyPatch) -> None:
    """A handler that is cancelled has crashed its actor."""
    take_for_a_crash(patch, trio.Cancelled)


@breaks(11)
def an_interrupt_is_taken_for_a_crash(patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in a handler restarts its actor."""
    take_for_a_crash(patch, KeyboardInterrupt)


@breaks(12)
def backoff_is_not_decided_by_the_seed(patch: pytest.MonkeyPatch) -> None:
    """Jitter is drawn from a source that all runs share."""
    delay, shared = Backoff.delay, Random(0)
    patch.setattr(Backoff, "delay", lambda self, crashes, _random: delay(self, crashes, shared))
