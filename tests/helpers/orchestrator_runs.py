"""The orchestrator's half of a simulation, run alone."""

from __future__ import annotations

from random import Random

from ultra.simulation.determinism import run_seeded
from ultra.simulation.one_seed import logging_off
from ultra.simulation.orchestrator.run import OrchestratorRun


def orchestrator_run(seed: int) -> OrchestratorRun:
    """Run the orchestrator of this seed to its end, and return it with its record."""

    async def make_and_run() -> OrchestratorRun:
        run = OrchestratorRun(seed)
        await run.run()
        return run

    with logging_off():
        return run_seeded(make_and_run, random=Random(f"{seed}/schedule"))
