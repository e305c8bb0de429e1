"""Run what one seed decides: an actor system and an orchestrator side by side, then submitted runs.

All live in virtual time, each with faults and a record of its own.
"""

from __future__ import annotations

import gc
import logging
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from ultra._support.collector import collector_off
from ultra.simulation.actor_system.run import ActorSystemRun
from ultra.simulation.determinism import run_seeded, unraisable_errors_ignored
from ultra.simulation.durable.run import DurableRun
from ultra.simulation.orchestrator.run import OrchestratorRun
from ultra.simulation.record import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SeedReport", "logging_off", "run_seed"]

TIME_LIMIT = 10_000.0
"""Virtual seconds after which a simulation is stuck."""


COLLECTIONS = 3
"""How often the garbage of a run that broke off is collected. The first time its tasks run their ``finally``
blocks, which keep some of them alive for a while."""


class SeedReport(Struct):
    """What one seed came to.

    Attributes:
        seed: the seed.
        messages: how many were sent.
        faults: how many were injected, by kind.
        checks: how many were made, by guarantee.
        violations: the guarantees that did not hold.
        digest: equal for equal traces; empty if it was not asked for.
        trace: all events as text; empty if it was not asked for.
    """

    seed: int
    messages: int
    faults: dict[str, int]
    checks: dict[int, int]
    violations: list[Violation]
    digest: str
    trace: list[str]


def run_seed(seed: int, *, trace: bool = False, digest: bool = False) -> SeedReport:
    """Run the simulation that `seed` decides, and check all guarantees.

    `trace` and `digest` ask for these parts of the report, which take time.
    """
    with logging_off(), collector_off():  # it would go through the growing record again and again
        actor_system, orchestrator = ActorSystemRun(seed), OrchestratorRun(seed)
        failure = _run(seed, actor_system, orchestrator)
        record = actor_system.record
        record.absorb(orchestrator.record)
        durable = DurableRun(seed)
        failure = _run_durable(seed, durable) or failure
        record.absorb(durable.record)
        report = SeedReport(
            seed=seed,
            messages=len(actor_system.messages.messages),
            faults=_sum(
                _sum(actor_system.setup.plan.counts, orchestrator.faults.plan.counts), dict(durable.faults)
            ),
            checks=record.checks,
            violations=record.violations,
            digest=record.digest if digest else "",
            trace=record.trace() if trace else [],
        )
        if failure is not None:
            with unraisable_errors_ignored():
                del actor_system, orchestrator, durable, failure
                for _ in range(COLLECTIONS):
                    gc.collect()
    return report


def _run(seed: int, actor_system: ActorSystemRun, orchestrator: OrchestratorRun) -> BaseException | None:
    """Run both. Return what broke the run off, if anything did."""
    record = actor_system.record

    async def run_both() -> None:
        record.now = orchestrator.record.now = trio.lowlevel.current_clock().current_time
        with trio.move_on_after(TIME_LIMIT) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(orchestrator.run)
                await actor_system.run()
        record.check(10, not scope.cancelled_caught, "the run came to a standstill")
        actor_system.check_accounts()

    try:
        with actor_system.setup.plan.observe(actor_system.note_fault):
            run_seeded(
                run_both,
                random=Random(f"{seed}/schedule"),
                time_limit=TIME_LIMIT,
                on_idle=actor_system.check_states_now_and_then,
            )
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever escapes is a finding
        record.violate(9, f"the run broke off: {error!r}")
        return error
    finally:
        # The clock knows its `on_idle`, and so all that ran: it must not be kept alive by the record.
        record.now = orchestrator.record.now = trio.current_time
    return None


def _run_durable(seed: int, durable: DurableRun) -> BaseException | None:
    """Run the submitted runs, in a trio run of their own. Return what broke it off, if anything did."""
    try:
        run_seeded(durable.run, random=Random(f"{seed}/durable/schedule"), time_limit=TIME_LIMIT)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 - whatever escapes is a finding
        durable.record.violate(9, f"the submitted runs broke off: {error!r}")
        return error
    return None


def _sum(counts: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    return {kind: counts.get(kind, 0) + others.get(kind, 0) for kind in (*counts, *others)}


@contextmanager
def logging_off() -> Iterator[None]:
    """Keep Ultra from logging what goes wrong on purpose, thousands of times."""
    logger = logging.getLogger("ultra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
