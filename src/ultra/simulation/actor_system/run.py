"""One actor system under seeded work and faults: make it, let it work, end it, check what is left."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ultra.simulation.actor_system.actors import (
    Action,
    ActorContext,
    SimulatedActor,
    SimulatedInterrupt,
    SlowActor,
)
from ultra.simulation.actor_system.lifecycle_ledger import LONGEST_RESTART, LifecycleLedger
from ultra.simulation.actor_system.message_ledger import MessageLedger
from ultra.simulation.actor_system.nodes import ActorNode, SupervisorNode
from ultra.simulation.actor_system.setup import WORK_UNTIL, ActorSpec, ActorSystemSetup
from ultra.simulation.actor_system.workload import NO_SENDER, Workload
from ultra.simulation.record import TIME_TOLERANCE, Record, leaves_of
from ultra.supervisor.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.faults.rules import Injection
    from ultra.simulation.actor_system.setup import SupervisorSpec
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ActorSystemRun"]

QUIET_TIME = 45.0
"""Virtual seconds from the end of the work to the moment when all actors must be well again."""

LONGEST_PAUSE = 5.0
"""Virtual seconds after the end of the system in which all tasks must end: they only finish their pauses."""


STATE_CHECK_INTERVAL = 0.7
"""Virtual seconds between two checks of the states that a snapshot shows."""


class Leaving(Exception):
    """The block of the system is left by this exception."""


class ActorSystemRun:
    """The actor system of one seed, with its workload and its ledgers."""

    def __init__(self, seed: int) -> None:
        self.setup = ActorSystemSetup(seed)
        self.record = Record(seed)
        self.messages = MessageLedger(self.record)
        self.lifecycle = LifecycleLedger(self.record, self.messages)
        self._workload = Workload(seed, self.record, self.messages, self.lifecycle)
        self._context = ActorContext(self.record, self.messages, self.lifecycle)
        self._context.ask_another = self._workload.ask_another
        self._leaving_since: float | None = None
        self._next_state_check = 0.0

    async def run(self) -> None:
        """Run to the end. What goes wrong is in the record."""
        root = self.setup.root
        self._system = ActorSystem(
            strategy=root.strategy,
            intensity=root.intensity,
            on_excess=root.on_excess,
            random=self.setup.jitter,
            dead_letters=1_000_000,
            faults=self.setup.plan,
        )
        self.messages.watch_dead_letters(self._system.dead_letters)
        with self._system.observe(self.lifecycle.observe):
            async with trio.open_nursery() as nursery:
                await self._work_and_end(nursery)
                await self._check_all_tasks_end(nursery)

    def check_states_now_and_then(self) -> None:
        """Check the states that a snapshot shows, from time to time during the work.

        Call this when all tasks wait: at other moments a state may be about to change.
        """
        now = self.record.now()
        if self._next_state_check <= now <= WORK_UNTIL + LONGEST_RESTART:
            self._next_state_check = now + STATE_CHECK_INTERVAL
            self.lifecycle.check_states(self._system.tree())

    def check_accounts(self) -> None:
        """Check, after the run, that every message had its fate, and that the runtime's counters agree."""
        self.messages.check_all_accounted_for()
        for actor in self._workload.actors:
            seen = actor.ref.snapshot()
            total = (
                seen.handled + seen.failed + seen.rejected + seen.dead_lettered + seen.queued + seen.in_flight
            )
            self.record.check(
                2, seen.sent == total and not seen.in_flight, f"the counters disagree: {seen}", actor.path
            )
            again = sum(max(0, entry.deliveries - entry.copies) for entry in self.messages.of(actor))
            self.record.check(
                3,
                again <= seen.redelivered,
                f"{again} redeliveries, counted were {seen.redelivered}",
                actor.path,
            )

    async def _work_and_end(self, nursery: trio.Nursery) -> None:
        scope = trio.CancelScope()
        error: BaseException | None = None
        try:
            with scope:
                async with self._system:
                    try:
                        self._start_workload(nursery)
                        await self._wait_for_the_end(nursery, scope)
                    finally:
                        self._leave()
        except (Exception, BaseExceptionGroup, SimulatedInterrupt) as raised:  # noqa: BLE001 - judged below
            error = raised
        self._check_error(error)
        took = trio.current_time() - (self._leaving_since or 0.0)
        self.record.add("left", self.setup.ending)
        bound = self.lifecycle.longest_stop()
        self.record.check(9, took <= bound + TIME_TOLERANCE, f"leaving took {took:.3f} s")
        await self._system.stop()  # once more, which does nothing

    # --- the tree ------------------------------------------------------------------------------------

    def _start_workload(self, nursery: trio.Nursery) -> None:
        """Make the tree that the seed decides, and start all tasks that work on it."""
        root = _node_of(self.setup.root, None)
        self.lifecycle.nodes["/"] = root
        self._workload.supervisors[root.path] = self._system.root
        self._add_children(root, self.setup.root, nursery)
        for number in range(self.setup.senders):
            nursery.start_soon(self._workload.send_until_work_ends, number, name=f"sender {number}")
        nursery.start_soon(self._workload.operate, name="operator")

    def _add_children(self, node: SupervisorNode, spec: SupervisorSpec, nursery: trio.Nursery) -> None:
        supervisor = self._workload.supervisors[node.path]
        for child in spec.children:
            if isinstance(child, ActorSpec):
                self._spawn(supervisor, node, child, nursery)
                continue
            below = _node_of(child, node)
            self.lifecycle.add(below)
            self._workload.supervisors[below.path] = supervisor.supervisor(
                child.name,
                strategy=child.strategy,
                intensity=child.intensity,
                on_excess=child.on_excess,
                restart=child.restart,
                backoff=child.backoff,
            )
            self._add_children(below, child, nursery)

    def _spawn(
        self, supervisor: Supervisor, above: SupervisorNode, spec: ActorSpec, nursery: trio.Nursery
    ) -> None:
        node = ActorNode(spec.name, above, options=spec.options, restart=spec.restart, backoff=spec.backoff)
        self.lifecycle.add(node)
        factory: Callable[[], SimulatedActor] = partial(SimulatedActor, node, self._context)
        if spec.slow:
            factory = partial(
                SlowActor,
                node,
                self._context,
                self.setup.durations(spec.start, spec.failing),
                self.setup.durations(spec.stop, spec.failing),
            )
        node.ref = supervisor.spawn(
            factory, name=spec.name, restart=spec.restart, options=spec.options, backoff=spec.backoff
        )
        self._workload.actors.append(node)
        nursery.start_soon(self._workload.watch, node, name=f"watch {node.path}")

    # --- the end -------------------------------------------------------------------------------------

    async def _wait_for_the_end(self, nursery: trio.Nursery, scope: trio.CancelScope) -> None:
        ending = self.setup.ending
        if ending == "rest":
            await self._come_to_rest()
            return
        await trio.sleep_until(self.setup.end_at)
        self.record.add("end", ending)
        match ending:
            case "stop":
                self._leave()
                nursery.start_soon(self._system.stop)
                await self._system.stop(drain=self.setup.senders % 2 == 0)
            case "cancel":
                scope.cancel()
                await trio.sleep_forever()
            case "raise":
                raise Leaving
            case "interrupt":
                for actor in self._workload.actors:
                    if not (actor.ended or actor.down):
                        self._workload.tell(actor, NO_SENDER, Action.INTERRUPT, 0.0)
                        break
                await trio.sleep(8.0)
            case _:
                pass

    async def _come_to_rest(self) -> None:
        await trio.sleep_until(WORK_UNTIL + QUIET_TIME)
        self.lifecycle.check_at_rest()
        self._check_nobody_waits()
        for actor in self._workload.actors:
            if self._is_well(actor):
                await self._workload.probe(actor)

    def _check_nobody_waits(self) -> None:
        """Check that by now every ask has its answer, and every send has found room in the inbox."""
        for entry in (*self.messages.open_asks.values(), *self.messages.open_sends.values()):
            actor = entry.actor
            excused = entry.dropped or entry.in_flight or actor.slowed or not self._is_well(actor)
            self.record.check(
                10, excused, f"message {entry.id} waits for {actor.path}, which has nothing to do", entry.id
            )

    def _is_well(self, actor: ActorNode) -> bool:
        """Return whether nothing that is known keeps the actor from handling messages."""
        calm_since = trio.current_time() - LONGEST_RESTART
        return not (
            self.lifecycle.is_gone(actor)
            or actor.hung == actor.incarnation
            or self.lifecycle.crashed_since(actor, calm_since)
        )

    def _leave(self) -> None:
        if self._leaving_since is None:
            self._leaving_since = trio.current_time()
        self.lifecycle.closing = True
        for actor in self._workload.actors:
            actor.stop_asked = True

    async def _check_all_tasks_end(self, nursery: trio.Nursery) -> None:
        until = trio.current_time() + LONGEST_PAUSE
        while nursery.child_tasks and trio.current_time() < until:  # noqa: ASYNC110 - they tell nobody
            await trio.sleep(0.5)
        left = ", ".join(sorted(task.name for task in nursery.child_tasks))
        self.record.check(9, not left, f"tasks wait for something that ended long ago: {left}")
        self.messages.check_nothing_open()
        nursery.cancel_scope.cancel()

    def _check_error(self, error: BaseException | None) -> None:
        record = self.record
        leaves = [type(leaf).__name__ for leaf in leaves_of(error)]
        root = self.lifecycle.nodes["/"]
        leaving = Leaving.__name__
        expected = []
        if self.setup.ending == "raise" and not self.lifecycle.escalated:
            expected.append(leaving)
        if self.lifecycle.interrupted:
            expected.append(SimulatedInterrupt.__name__)
        if self.lifecycle.escalated:
            expected.append("RestartLimitExceeded")
        surprising = [leaf for leaf in leaves if leaf not in {*expected, leaving, "Cancelled"}]
        record.check(
            11 if self.lifecycle.interrupted else 6,
            not surprising and all(name in leaves for name in expected),
            f"the block ended with {leaves}, expected was {expected}",
            root.path,
        )

    # --- faults --------------------------------------------------------------------------------------

    def note_fault(self, injection: Injection) -> None:
        """Note a fault, at the moment when the plan injects it."""
        number = getattr(injection.message, "id", None)
        entry = self.messages.messages[number] if number is not None else None
        self.record.add("fault", injection.where, injection.fault, -1 if number is None else number)
        node = self.lifecycle.nodes[injection.where]
        assert isinstance(node, ActorNode)
        if entry is None:  # the start of an incarnation fails
            self.lifecycle.begins(node)
            self.lifecycle.crashes(node, injection.fault)
            self.lifecycle.ends(node)
            return
        match injection.fault:
            case "crash":
                entry.crashing = True
                rule = self.setup.plan.rules[injection.rule - 1]
                if rule.fault.settings().get("before", True):
                    self.messages.taken(entry)
                else:
                    self.messages.crashed_after_handling(entry)
                self.lifecycle.crashes(node, injection.fault)
            case "delay":
                self.messages.taken(entry)
            case "hang":
                self.messages.taken(entry)
                node.hung = node.incarnation
            case "drop":
                self.messages.dropped(entry)
            case "duplicate":
                entry.copies += 1
                node.crowded = True
            case "fill":
                node.crowded = node.slowed = True
            case _:
                pass


def _node_of(spec: SupervisorSpec, parent: SupervisorNode | None) -> SupervisorNode:
    return SupervisorNode(
        spec.name,
        parent,
        strategy=spec.strategy,
        intensity=spec.intensity,
        on_excess=spec.on_excess,
        restart=spec.restart,
        backoff=spec.backoff,
    )
