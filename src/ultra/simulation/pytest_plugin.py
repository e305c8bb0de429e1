"""A plugin for pytest: fault plans and simulations whose seeds are reported when a test fails.

pytest loads this by the entry point ``pytest11`` in every environment where Ultra is installed, so nothing
heavy is imported until a test asks for a fixture. It works with pytest-trio and without it.
See docs/testing.md.
"""

from __future__ import annotations

import shlex
from os.path import relpath
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from ultra.faults.plan import FaultPlan
    from ultra.simulation.user_scenarios import Outcome, Simulation

__all__ = ["SimulationRunner", "fault_plan", "simulation"]

T = TypeVar("T")

MOST_NOTES: Final = 50
"""How many of a simulation's last notes the report of a failure shows."""


class _Seeded:
    """What one test got from this plugin, for the report of its failure."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.plans: list[FaultPlan] = []
        self.notes: list[str] = []


_SEEDED: Final = pytest.StashKey[_Seeded]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--ultra-seed``."""
    group = parser.getgroup("ultra", "fault injection and simulation (ultra)")
    group.addoption(
        "--ultra-seed",
        type=_seed,
        metavar="N",
        help="seed of the fixtures fault_plan and simulation: replays what a failed test did "
        "(default: another one for each test)",
    )


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)  # argparse tells of it
    return int(text)


_seed.__name__ = "whole number, 0 or more,"  # argparse: "invalid ... value"


@pytest.fixture
def fault_plan(request: pytest.FixtureRequest) -> FaultPlan:
    """Give the test a `FaultPlan` without rules. Each test has another seed.

    When the test fails, the report shows the seed, what the plan did, and the command that repeats it.
    """
    from ultra.faults.plan import FaultPlan  # noqa: PLC0415 - see the module's text

    seeded = _seeded(request)
    plan = FaultPlan(seeded.seed)
    seeded.plans.append(plan)
    return plan


@pytest.fixture
def simulation(request: pytest.FixtureRequest) -> SimulationRunner:
    """Give the test a function that runs a scenario under a seeded schedule, in virtual time.

    When the test fails, the report shows the seed, the last notes, and the command that repeats it.
    """
    return SimulationRunner(_seeded(request))


class SimulationRunner:
    """The fixture `simulation`. Call it with a scenario: ``outcome = simulation(scenario)``.

    `seed` decides the whole run.
    """

    def __init__(self, seeded: _Seeded) -> None:
        self.seed = seeded.seed
        self._seeded = seeded

    def __call__(
        self, scenario: Callable[[Simulation], Awaitable[T]], *, timeout: float = 86_400.0
    ) -> Outcome[T]:
        """Run ``scenario(simulation)`` in a trio run of its own, as `ultra.faults.simulate` does.

        Use it in plain ``def`` tests: an async test of pytest-trio is inside a trio run already.

        Raises:
            TimeoutError: the scenario has not ended after `timeout` virtual seconds, so something hangs.
            BadCall: the call came from inside a trio run.
        """
        from ultra.simulation.user_scenarios import Simulation, run_scenario  # noqa: PLC0415 - see the module's text

        simulation = Simulation(self.seed)
        self._seeded.plans.append(simulation.plan)
        self._seeded.notes = simulation.trace
        return run_scenario(scenario, simulation, timeout=timeout)


def _seeded(request: pytest.FixtureRequest) -> _Seeded:
    """Return what both fixtures of one test share: they have the same seed."""
    stash: pytest.Stash = request.node.stash
    if _SEEDED not in stash:
        given = request.config.getoption("--ultra-seed")
        stash[_SEEDED] = _Seeded(SystemRandom().randrange(2**32) if given is None else given)
    return stash[_SEEDED]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the seed to the report of a test that has failed."""
    del call
    report = yield
    seeded = item.stash.get(_SEEDED, None)
    if report.failed and seeded is not None:
        report.sections.append((f"ultra seed {seeded.seed}", _told(item, seeded)))
    return report


def _told(item: pytest.Item, seeded: _Seeded) -> str:
    file = Path(relpath(item.path, item.config.invocation_params.dir)).as_posix()
    name = item.nodeid.partition("::")[2]
    test = shlex.quote(f"{file}::{name}" if name else file)
    lines = [f"to replay it: pytest {test} --ultra-seed {seeded.seed}"]
    lines += [str(plan) for plan in seeded.plans if plan.rules]
    lines += seeded.notes[-MOST_NOTES:]
    return "\n".join(lines)
