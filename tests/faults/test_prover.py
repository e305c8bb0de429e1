"""Proof of the prover: a runtime that breaks a guarantee is caught by the simulation.

Each test breaks one thing in the runtime, and the simulation must say so, and name the guarantee,
within 200 seeds. A guarantee whose breakage goes unseen would not be checked.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from outcome import Value

from ultra.actors.cell import Cell
from ultra.actors.crash import CrashBarrier
from ultra.actors.inbox import Inbox
from ultra.actors.incarnation import Incarnation
from ultra.actors.message import Envelope
from ultra.actors.worker import Worker
from ultra.faults.chaos.record import GUARANTEES
from ultra.faults.chaos.simulation import simulate
from ultra.supervisor.intensity import CountedRestart, RestartWindow
from ultra.supervisor.loop import SupervisionLoop
from ultra.supervisor.policy import RestartPolicy
from ultra.supervisor.spec import Backoff
from ultra.supervisor.starts import StartQueue

if TYPE_CHECKING:
    from collections.abc import Callable

SEEDS = 200


def replies_get_lost(patch: pytest.MonkeyPatch) -> None:
    """1: every fiftieth reply reaches nobody."""
    succeed, replies = Envelope.succeed, iter(range(10**9))

    def lossy(self: Envelope, reply: object) -> None:
        if self.asker is None or next(replies) % 50:
            succeed(self, reply)

    patch.setattr(Envelope, "succeed", lossy)


def replies_go_to_somebody_else(patch: pytest.MonkeyPatch) -> None:
    """1: now and then a reply reaches the asker of another message."""
    init, succeed, replies = Envelope.__init__, Envelope.succeed, iter(range(10**9))
    asks: list[Envelope] = []

    def noted(self: Envelope, message: object, asker: Any = None, on_abandon: Any = None) -> None:
        init(self, message, asker, on_abandon)
        if asker is not None:
            asks.append(self)

    def mixed(self: Envelope, reply: object) -> None:
        asks[:] = [ask for ask in asks if ask.asker is not None]
        others = [ask for ask in asks if ask is not self]
        if self.asker is not None and others and not next(replies) % 20:
            succeed(others[0], reply)
        else:
            succeed(self, reply)

    patch.setattr(Envelope, "__init__", noted)
    patch.setattr(Envelope, "succeed", mixed)


def late_replies_reach_their_askers(patch: pytest.MonkeyPatch) -> None:
    """1: a reply wakes an asker that waits for something else by now."""
    abandon, succeed = Envelope.abandon, Envelope.succeed
    askers: dict[Envelope, Any] = {}

    def remembered(self: Envelope, raise_cancel: object) -> Any:
        askers[self] = self.asker
        return abandon(self, raise_cancel)

    def late(self: Envelope, reply: object) -> None:
        asker = askers.pop(self, None)
        if asker is not None and asker._abort_func is not None:  # it is parked, so this harms only itself
            trio.lowlevel.reschedule(asker, Value(reply))
        succeed(self, reply)

    patch.setattr(Envelope, "abandon", remembered)
    patch.setattr(Envelope, "succeed", late)


def redelivered_messages_vanish(patch: pytest.MonkeyPatch) -> None:
    """2: what an incarnation had in hand when it crashed is gone."""
    patch.setattr(Inbox, "requeue", lambda self, envelopes: [self.finish(one) for one in envelopes])


def dead_letters_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    """2: a message that is given up leaves no trace."""
    patch.setattr(
        Cell, "discard", lambda self, envelope, reason, error=None: error is not None and envelope.fail(error)
    )


def a_cancelled_send_has_sent(patch: pytest.MonkeyPatch) -> None:
    """2: a send that is cancelled while it waits for room leaves its message waiting."""
    patch.setattr(Inbox, "stop_waiting", lambda *_: False)


def too_many_handlers(patch: pytest.MonkeyPatch) -> None:
    """3: one worker more than there may be."""

    async def wide(self: Incarnation) -> None:
        concurrency = self.cell.options.concurrency
        async with trio.open_nursery() as self._nursery:
            self._width = concurrency
            for _ in range(concurrency + 1):
                self._nursery.start_soon(self._run_worker)

    patch.setattr(Incarnation, "_run_workers", wide)


def messages_are_delivered_for_ever(patch: pytest.MonkeyPatch) -> None:
    """3: a message that crashes the actor comes back more often than it may."""

    def may(self: Incarnation, envelope: Envelope) -> bool:
        return not self.cell.closed and envelope.deliveries < 9

    patch.setattr(Incarnation, "_may_redeliver", may)


def redelivered_messages_go_to_the_end(patch: pytest.MonkeyPatch) -> None:
    """4: what is delivered again comes after what was sent later."""

    def requeue(self: Inbox, envelopes: Any) -> None:
        for envelope in envelopes:
            if envelope.system:
                self._system = self._system or deque()
                self._system.append(envelope)
                self._system_in_flight -= 1
            else:
                self._user = self._user or deque()
                self._user.append(envelope)

    patch.setattr(Inbox, "requeue", requeue)


def user_messages_come_first(patch: pytest.MonkeyPatch) -> None:
    """4: system messages wait behind user messages."""

    def take(self: Inbox) -> Envelope | None:
        if self._user:
            envelope = self._user.popleft()
        elif self._system:
            envelope = self._system.popleft()
            self._system_in_flight += 1
        else:
            return None
        envelope.deliveries += 1
        return envelope

    patch.setattr(Inbox, "take", take)


def last_in_first_out(patch: pytest.MonkeyPatch) -> None:
    """4: the newest user message is handled first."""

    def take(self: Inbox) -> Envelope | None:
        if self._system:
            envelope = self._system.popleft()
            self._system_in_flight += 1
        elif self._user:
            envelope = self._user.pop()
        else:
            return None
        envelope.deliveries += 1
        return envelope

    patch.setattr(Inbox, "take", take)


def messages_in_flight_take_no_room(patch: pytest.MonkeyPatch) -> None:
    """5: what is being handled does not count against the capacity."""
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


def the_inbox_is_full_too_early(patch: pytest.MonkeyPatch) -> None:
    """5: messages are refused while there is room."""
    init = Inbox.__init__

    def smaller(self: Inbox, capacity: int, overflow: Any) -> None:
        init(self, max(1, capacity // 2), overflow)

    patch.setattr(Inbox, "__init__", smaller)


def restarts_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """6: the restart intensity allows everything."""
    patch.setattr(RestartWindow, "admit", lambda _self, _now, error: CountedRestart(error))


def one_restart_too_many(patch: pytest.MonkeyPatch) -> None:
    """6: the restart intensity allows one more than declared."""
    init = RestartPolicy.__init__

    def lax(self: RestartPolicy, strategy: Any, intensity: Any, on_excess: Any, random: Random) -> None:
        init(self, strategy, type(intensity)(intensity.max_restarts + 1, intensity.within), on_excess, random)

    patch.setattr(RestartPolicy, "__init__", lax)


def the_supervisor_gives_up_too_early(patch: pytest.MonkeyPatch) -> None:
    """6: the first crash is one too many."""
    patch.setattr(RestartWindow, "admit", lambda *_: None)


def siblings_are_left_alone(patch: pytest.MonkeyPatch) -> None:
    """7: one_for_all and rest_for_one restart the child that crashed and no other."""
    patch.setattr(RestartPolicy, "group", lambda _self, child, _children: [child])


def siblings_are_restarted_too(patch: pytest.MonkeyPatch) -> None:
    """7: one_for_one restarts all children."""
    patch.setattr(RestartPolicy, "group", lambda _self, _child, children: list(children))


def temporary_children_come_back(patch: pytest.MonkeyPatch) -> None:
    """7: a temporary child that crashed is restarted."""
    crash = SupervisionLoop._on_crash

    def lenient(self: SupervisionLoop, child: Any, error: Exception) -> None:
        child.restart = "permanent" if child.restart == "temporary" else child.restart
        crash(self, child, error)

    patch.setattr(SupervisionLoop, "_on_crash", lenient)


def the_new_incarnation_does_not_wait_for_the_old(patch: pytest.MonkeyPatch) -> None:
    """7: members of a group are started while they are still stopping."""
    schedule = SupervisionLoop._restart_group

    def hasty(self: SupervisionLoop, child: Any, due: float) -> None:
        schedule(self, child, due)
        for member in self._stops:
            member.stop(None, drain=False)
            member.life = None
            member.phase = child.phase
        self._stops.clear()

    patch.setattr(SupervisionLoop, "_restart_group", hasty)


def old_timers_still_start_children(patch: pytest.MonkeyPatch) -> None:
    """8: a start that was put off happens at its old time as well."""

    def next_due(self: StartQueue) -> float:
        return self._heap[0][0] if self._heap else float("inf")

    patch.setattr(StartQueue, "next_due", next_due)


def backoff_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    """8: a child is restarted at once, whatever was announced."""
    schedule = StartQueue.schedule
    patch.setattr(StartQueue, "schedule", lambda self, child, _due: schedule(self, child, -float("inf")))


def grace_has_no_end(patch: pytest.MonkeyPatch) -> None:
    """9: handlers are waited for however long they take."""
    stop = Incarnation.stop

    def patient(self: Incarnation, grace: float, *, drain: bool = False) -> None:
        del grace
        stop(self, 1000.0, drain=drain)

    patch.setattr(Incarnation, "stop", patient)


def watchers_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """9: whoever watches an actor is not told of its end."""
    terminate = Cell.terminate

    def silent(self: Cell, state: Any, error: Exception | None = None) -> None:
        self.watchers = None
        terminate(self, state, error)

    patch.setattr(Cell, "terminate", silent)


def waiting_senders_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """9: who waits for room in the inbox of an actor that ends is not told."""
    clear = Inbox.clear

    def forgetful(self: Inbox, *, keep_accepted: bool = False) -> Any:
        accepted, _ = clear(self, keep_accepted=keep_accepted)
        return accepted, []

    patch.setattr(Inbox, "clear", forgetful)


def wake_ups_get_lost(patch: pytest.MonkeyPatch) -> None:
    """10: now and then nobody is told that a message has come."""
    wake, calls = Incarnation.wake, iter(range(10**9))

    def sleepy(self: Incarnation) -> bool:
        return wake(self) if next(calls) % 40 else True

    patch.setattr(Incarnation, "wake", sleepy)


def freed_places_are_not_given_away(patch: pytest.MonkeyPatch) -> None:
    """10: who waits for room waits on when there is some."""
    patch.setattr(Cell, "admit_waiting", lambda _self: None)


def crashed_children_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    """10: a crash is reported to nobody."""
    exited, calls = SupervisionLoop._on_exit, iter(range(10**9))

    def forgetful(self: SupervisionLoop, child: Any, life: object, how: Any) -> None:
        if how.error is None or self._ending or next(calls) % 3:
            exited(self, child, life, how)
        else:
            child.life = None

    patch.setattr(SupervisionLoop, "_on_exit", forgetful)


def cancellation_is_taken_for_a_crash(patch: pytest.MonkeyPatch) -> None:
    """11: a handler that is cancelled has crashed its actor."""
    leave = CrashBarrier.__exit__

    def greedy(self: CrashBarrier, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, trio.Cancelled):
            error = RuntimeError("cancelled")
        return leave(self, kind, error, trace)

    patch.setattr(CrashBarrier, "__exit__", greedy)
    patch.setattr(Worker, "__exit__", greedy)


def an_interrupt_is_taken_for_a_crash(patch: pytest.MonkeyPatch) -> None:
    """11: Ctrl-C in a handler restarts its actor."""
    leave = CrashBarrier.__exit__

    def greedy(self: CrashBarrier, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, KeyboardInterrupt):
            error = RuntimeError("interrupted")
        return leave(self, kind, error, trace)

    patch.setattr(CrashBarrier, "__exit__", greedy)
    patch.setattr(Worker, "__exit__", greedy)


BREAKS: list[Callable[[pytest.MonkeyPatch], None]] = [
    replies_get_lost,
    replies_go_to_somebody_else,
    late_replies_reach_their_askers,
    redelivered_messages_vanish,
    dead_letters_are_not_kept,
    a_cancelled_send_has_sent,
    too_many_handlers,
    messages_are_delivered_for_ever,
    redelivered_messages_go_to_the_end,
    user_messages_come_first,
    last_in_first_out,
    messages_in_flight_take_no_room,
    the_inbox_is_full_too_early,
    restarts_are_not_counted,
    one_restart_too_many,
    the_supervisor_gives_up_too_early,
    siblings_are_left_alone,
    siblings_are_restarted_too,
    temporary_children_come_back,
    the_new_incarnation_does_not_wait_for_the_old,
    old_timers_still_start_children,
    backoff_is_not_waited_for,
    grace_has_no_end,
    watchers_are_forgotten,
    waiting_senders_are_forgotten,
    wake_ups_get_lost,
    freed_places_are_not_given_away,
    crashed_children_are_forgotten,
    cancellation_is_taken_for_a_crash,
    an_interrupt_is_taken_for_a_crash,
]


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.__name__)
def test_a_broken_runtime_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broken.__doc__ is not None
    guarantee = int(broken.__doc__.partition(":")[0])
    broken(monkeypatch)

    for seed in range(SEEDS):
        caught = [violation.guarantee for violation in simulate(seed).violations]
        if guarantee in caught:
            return
    pytest.fail(f"{SEEDS} seeds saw nothing of it: {broken.__doc__}")


def test_every_guarantee_is_broken_by_some_test() -> None:
    broken = {int((fault.__doc__ or "").partition(":")[0]) for fault in BREAKS}

    assert broken | {12} == set(GUARANTEES)


def test_a_schedule_that_is_not_decided_by_the_seed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """12: backoff is drawn from somewhere else."""
    delay = Backoff.delay
    monkeypatch.setattr(Backoff, "delay", lambda self, crashes, _random: delay(self, crashes, Random()))

    assert any(
        simulate(seed, digest=True).digest != simulate(seed, digest=True).digest for seed in range(SEEDS)
    )
