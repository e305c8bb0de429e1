"""One simulation: an actor system and an orchestrator under seeded work, faults and schedule.

Both live in one trio run, in virtual time, each with a fault plan and a record of its own.
"""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from ultra.simulation.actors import Act, SimulatedInterrupt, Stage
from ultra.simulation.cast import ActorNode
from ultra.simulation.determinism import run_seeded, unheard
from ultra.simulation.ensemble import Ensemble
from ultra.simulation.lives import LONGEST_RESTART, Lives, leaves_of
from ultra.simulation.mail import Mail
from ultra.simulation.record import TIME_ERROR, Record, Violation
from ultra.simulation.scenario import WORK_UNTIL, Scenario
from ultra.simulation.tree import build
from ultra.simulation.work import NOBODY, Work
from ultra.supervisor.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.faults.rules import Injection

__all__ = ["Report", "simulate"]

REST = 45.0
"""Virtual seconds between the end of the work and the moment when all must be well again."""

PATIENCE = 5.0
"""Virtual seconds for which tasks may go on after the system has ended: their pauses, no more."""

HORIZON = 10_000.0
"""Virtual seconds after which a simulation is stuck."""


class Report(Struct):
    """What came of one seed: counts of faults by kind and of checks by guarantee, and what was broken."""

    seed: int
    messages: int
    faults: dict[str, int]
    checks: dict[int, int]
    violations: list[Violation]
    digest: str
    trace: list[str]


class Leaving(Exception):
    """The block of the system is left by an exception."""


def simulate(seed: int, *, trace: bool = False, digest: bool = False) -> Report:
    """Run the simulation that `seed` decides, and check all that is guaranteed.

    `trace` asks for all events as text, `digest` for a text that is equal for equal traces.
    """
    with _silence(), _no_collection():
        simulation = Simulation(seed)
        broke_off = simulation.run()
        record = simulation.record
        record.absorb(simulation.ensemble.record)
        report = Report(
            seed=seed,
            messages=len(simulation.mail.messages),
            faults=_added(simulation.scenario.plan.counts, simulation.ensemble.troubles.plan.counts),
            checks=record.checks,
            violations=record.violations,
            digest=record.digest if digest else "",
            trace=record.trace() if trace else [],
        )
        if broke_off is not None:
            with unheard():
                del simulation, broke_off
                gc.collect()
    return report


def _added(counts: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    return {kind: counts.get(kind, 0) + others.get(kind, 0) for kind in (*counts, *others)}


@contextmanager
def _silence() -> Iterator[None]:
    """Keep Ultra from logging what goes wrong on purpose, thousands of times."""
    logger = logging.getLogger("ultra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector out: it would go through the growing record again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class Simulation:
    """The tree, the work and the record of one seed."""

    def __init__(self, seed: int) -> None:
        self.scenario = Scenario(seed)
        self.record = Record(seed)
        self.mail = Mail(self.record)
        self.lives = Lives(self.record, self.mail)
        self.stage = Stage(self.record, self.mail, self.lives)
        self.work = Work(seed, self.record, self.mail, self.lives)
        self.stage.ask_another = self.work.ask_another
        self.ensemble = Ensemble(seed)
        self._leaving_since: float | None = None

    def run(self) -> BaseException | None:
        """Run to the end; what goes wrong is in the record. Returns what broke trio's loop off, if any."""
        try:
            with self.scenario.plan.observe(self._injected):
                run_seeded(self._main, random=self.scenario.schedule, horizon=HORIZON)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever escapes is a finding
            self.record.violate(9, f"the run broke off: {error!r}")
            return error
        return None

    async def _main(self) -> None:
        root = self.scenario.root
        self.system = ActorSystem(
            strategy=root.strategy,
            intensity=root.intensity,
            on_excess=root.on_excess,
            random=self.scenario.jitter,
            dead_letters=1_000_000,
            faults=self.scenario.plan,
        )
        self.mail.letters = self.system.dead_letters
        self.record.now = self.ensemble.record.now = trio.lowlevel.current_clock().current_time
        with self.system.observe(self.lives.observe):
            await self._run()

    async def _run(self) -> None:
        with trio.move_on_after(HORIZON) as horizon:
            async with trio.open_nursery() as both, trio.open_nursery() as nursery:
                both.start_soon(self.ensemble.live)
                await self._live_and_end(nursery)
                await self._see_all_tasks_end(nursery)
        self.record.check(10, not horizon.cancelled_caught, "the run came to a standstill")
        self.mail.check_all_accounted_for()
        self._check_counters()

    async def _live_and_end(self, nursery: trio.Nursery) -> None:
        scope = trio.CancelScope()
        error: BaseException | None = None
        try:
            with scope:
                async with self.system:
                    try:
                        build(self, nursery)
                        await self._wait_for_the_end(nursery, scope)
                    finally:
                        self._leave()
        except (Exception, BaseExceptionGroup, SimulatedInterrupt) as raised:  # noqa: BLE001 - judged below
            error = raised
        self._check_error(error)
        took = trio.current_time() - (self._leaving_since or 0.0)
        self.record.add("left", self.scenario.ending)
        self.record.check(9, took <= self.lives.longest_stop() + TIME_ERROR, f"leaving took {took:.3f} s")
        await self.system.stop()  # once more, which does nothing

    # --- the end -------------------------------------------------------------------------------------

    async def _wait_for_the_end(self, nursery: trio.Nursery, scope: trio.CancelScope) -> None:
        ending = self.scenario.ending
        if ending == "rest":
            await self._come_to_rest()
            return
        await trio.sleep_until(self.scenario.end_at)
        self.record.add("end", ending)
        match ending:
            case "stop":
                self._leave()
                nursery.start_soon(self.system.stop)
                await self.system.stop(drain=self.scenario.senders % 2 == 0)
            case "cancel":
                scope.cancel()
                await trio.sleep_forever()
            case "raise":
                raise Leaving
            case "interrupt":
                for actor in self.work.actors:
                    if not (actor.ended or actor.down):
                        self.work.tell(actor, NOBODY, Act.INTERRUPT, 0.0)
                        break
                await trio.sleep(8.0)
            case _:
                pass

    async def _come_to_rest(self) -> None:
        await trio.sleep_until(WORK_UNTIL + REST)
        self.lives.check_at_rest()
        self._check_nobody_waits()
        for actor in self.work.actors:
            if self._is_well(actor):
                await self.work.probe(actor)

    def _check_nobody_waits(self) -> None:
        """By now, whoever asked has an answer, and whoever waited for room in an inbox has found it."""
        for entry in (*self.mail.open_asks.values(), *self.mail.open_sends.values()):
            actor = entry.actor
            excused = entry.lost or entry.in_hand or actor.slowed or not self._is_well(actor)
            self.record.check(
                10, excused, f"message {entry.id} waits for {actor.path}, which has nothing to do", entry.id
            )

    def _is_well(self, actor: ActorNode) -> bool:
        """Whether nothing that is known of keeps the actor from handling messages."""
        calm_since = trio.current_time() - LONGEST_RESTART
        return not (
            self.lives.is_gone(actor)
            or actor.hung == actor.incarnation
            or self.lives.crashed_since(actor, calm_since)
        )

    def _leave(self) -> None:
        if self._leaving_since is None:
            self._leaving_since = trio.current_time()
        self.lives.closing = True
        for actor in self.work.actors:
            actor.stop_asked = True

    async def _see_all_tasks_end(self, nursery: trio.Nursery) -> None:
        until = trio.current_time() + PATIENCE
        while nursery.child_tasks and trio.current_time() < until:  # noqa: ASYNC110 - they tell nobody
            await trio.sleep(0.5)
        left = ", ".join(sorted(task.name for task in nursery.child_tasks))
        self.record.check(9, not left, f"tasks wait for something that ended long ago: {left}")
        self.mail.check_nothing_open()
        nursery.cancel_scope.cancel()

    def _check_error(self, error: BaseException | None) -> None:
        record = self.record
        leaves = [type(leaf).__name__ for leaf in leaves_of(error)]
        root = self.lives.nodes["/"]
        expected = []
        if self.scenario.ending == "raise" and not self.lives.escalated:
            expected.append("Leaving")
        if self.stage.interrupted:
            expected.append("SimulatedInterrupt")
        if self.lives.escalated:
            expected.append("RestartLimitExceeded")
        surprising = [leaf for leaf in leaves if leaf not in {*expected, "Leaving", "Cancelled"}]
        record.check(
            11 if self.stage.interrupted else 6,
            not surprising and all(name in leaves for name in expected),
            f"the block ended with {leaves}, expected was {expected}",
            root.path,
        )

    def _check_counters(self) -> None:
        """The counters that the runtime shows agree with each other, and with the record."""
        for actor in self.work.actors:
            seen = actor.ref.snapshot()
            total = (
                seen.handled + seen.failed + seen.rejected + seen.dead_lettered + seen.queued + seen.in_flight
            )
            self.record.check(
                2, seen.sent == total and not seen.in_flight, f"the counters disagree: {seen}", actor.path
            )
            again = sum(max(0, entry.takes - entry.copies) for entry in self.mail.of(actor))
            self.record.check(
                3,
                again <= seen.redelivered,
                f"{again} redeliveries, counted were {seen.redelivered}",
                actor.path,
            )

    # --- faults --------------------------------------------------------------------------------------

    def _injected(self, injection: Injection) -> None:
        number = getattr(injection.message, "id", None)
        entry = self.mail.messages[number] if number is not None else None
        self.record.add("fault", injection.where, injection.fault, -1 if number is None else number)
        node = self.lives.nodes[injection.where]
        assert isinstance(node, ActorNode)
        if entry is None:
            self.lives.begins(node)
            self.lives.crashes(node, injection.fault)
            self.lives.ends(node)
            return
        match injection.fault:
            case "crash":
                rule = self.scenario.plan.rules[injection.rule - 1]
                if rule.fault.settings().get("before", True):
                    self.mail.taken(entry)
                else:
                    self.mail.undone(entry)
                self.lives.crashes(node, injection.fault)
            case "delay":
                self.mail.taken(entry)
            case "hang":
                self.mail.taken(entry)
                node.hung = node.incarnation
            case "drop":
                self.mail.lost(entry)
            case "duplicate":
                entry.copies += 1
                node.crowded = True
            case "fill":
                node.crowded = node.slowed = True
            case _:
                pass
