"""Run a scenario of your own under a seed: its schedule, its clock and its faults are repeatable."""

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
    """What a simulated scenario returned, how many virtual seconds it took, and what it noted."""

    seed: int
    value: T
    seconds: float
    trace: tuple[str, ...]


class Simulation:
    """What a scenario gets: everything in it is decided by `seed`.

    Attributes:
        seed: of this run.
        random: for the scenario's own choices.
        plan: a `FaultPlan` for the scenario to add rules to, and to hand to what it tests.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(f"{seed}/scenario")
        self.plan = FaultPlan(seed)
        self.trace: list[str] = []

    def note(self, text: str) -> None:
        """Add a line to the trace, with the time [s]. Equal seeds should give equal traces."""
        self.trace.append(f"{trio.current_time():10.3f} s  {text}")


def simulate(
    scenario: Callable[[Simulation], Awaitable[T]], seed: int, *, timeout: float = 86_400.0
) -> Outcome[T]:
    """Run ``scenario(simulation)`` in a trio of its own, and return what came of it.

    The clock is virtual: it begins at 0 and jumps to the next timeout whenever all tasks wait, so that
    seconds take microseconds. Which ready task runs first is decided by the seed, and so are
    jitter, the marks in prompts, and the seeds of plans that are given none. Threads and sockets
    are outside of both; use models and transports in memory.

    Raises:
        TimeoutError: after `timeout` virtual seconds the scenario had not ended: something hangs.
        BadCall: the seed is not a whole number, 0 or more; or this was called from within trio.
    """
    if type(seed) is not int or seed < 0:
        raise BadCall(f"seed={seed!r} is not allowed; give a whole number, 0 or more")
    return run_scenario(scenario, Simulation(seed), timeout=timeout)


def run_scenario(
    scenario: Callable[[Simulation], Awaitable[T]], simulation: Simulation, *, timeout: float
) -> Outcome[T]:
    """As `simulate`, with a `simulation` that the caller has made, and can look at afterwards."""
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
