"""Run an async function of your own under a seed, which decides its schedule, its clock and its faults."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

import trio
from msgspec import Struct
from trio.lowlevel import in_trio_run

from ultra._support.randomness import seeded
from ultra.errors import BadCall
from ultra.faults.plan import FaultPlan
from ultra.simulation.determinism import run_seeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Outcome", "Simulation", "run_scenario", "simulate"]

T = TypeVar("T")


class Outcome(Struct, Generic[T], frozen=True):
    """What a scenario returned (`value`), the virtual `seconds` it took, and the lines it noted."""

    seed: int
    value: T
    seconds: float
    trace: tuple[str, ...]


class Simulation:
    """What a scenario gets. `seed` decides everything in it.

    Attributes:
        seed: of this run.
        random: for the scenario's own choices.
        plan: a `FaultPlan`. Add rules to it, and give it to what the scenario tests.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"{seed}/scenario")
        self.plan = FaultPlan(seed)
        self.trace: list[str] = []

    def note(self, text: str) -> None:
        """Add a line to the trace, with the virtual time [s]. Equal seeds should give equal traces."""
        self.trace.append(f"{trio.current_time():10.3f} s  {text}")


def simulate(
    scenario: Callable[[Simulation], Awaitable[T]], seed: int, *, timeout: float = 86_400.0
) -> Outcome[T]:
    """Run ``scenario(simulation)`` in a trio run of its own, and return its outcome.

        async def scenario(simulation):
            simulation.plan.fail_call("llama", times=2)
            ...

        outcome = simulate(scenario, seed=7)

    The clock is virtual: it begins at 0 and jumps to the next timeout whenever all tasks wait, so seconds
    take microseconds. The seed decides which ready task runs first, the jitter, the marks in prompts, and
    the seeds of plans that are given none. Threads and sockets are outside of this; use models and
    transports in memory.

    Raises:
        TimeoutError: the scenario has not ended after `timeout` virtual seconds, so something hangs.
        BadCall: the seed is not a whole number, 0 or more; or the call came from inside a trio run.
    """
    if type(seed) is not int or seed < 0:
        raise BadCall(f"seed={seed!r} is not allowed; give a whole number, 0 or more")
    return run_scenario(scenario, Simulation(seed), timeout=timeout)


def run_scenario(
    scenario: Callable[[Simulation], Awaitable[T]], simulation: Simulation, *, timeout: float
) -> Outcome[T]:
    """Do what `simulate` does, with a `simulation` that the caller has made and can look at afterwards."""
    if in_trio_run():
        raise BadCall("a simulation runs a trio of its own: call it from a plain function, not an async one")
    schedule = Random(f"{simulation.seed}/schedule")
    value, seconds = run_seeded(_run, scenario, simulation, timeout, random=schedule)
    return Outcome(simulation.seed, value, seconds, tuple(simulation.trace))


async def _run(
    scenario: Callable[[Simulation], Awaitable[T]], simulation: Simulation, timeout: float
) -> tuple[T, float]:
    with trio.move_on_after(timeout), seeded(Random(f"{simulation.seed}/chance")):
        return await scenario(simulation), trio.current_time()
    raise TimeoutError(
        f"the scenario has not ended after {timeout:g} virtual seconds (seed {simulation.seed})"
    )
