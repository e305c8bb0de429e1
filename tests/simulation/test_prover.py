"""Proof of the prover: the simulation sees each guarantee broken, and says which one it is.

A guarantee whose breakage goes unseen would not be checked.
"""

from __future__ import annotations

import pytest

from helpers.broken_runtimes import BROKEN_RUNTIMES, BrokenRuntime
from ultra.simulation.campaign import run_campaign
from ultra.simulation.record import GUARANTEES
from ultra.simulation.simulation import simulate

SEEDS = 200


def guarantees_broken(seed: int, guarantee: int) -> list[int]:
    """What a simulation says; it takes a second run, as campaigns make it, to see that two runs differ."""
    violations = run_campaign(seed, 1, processes=1) if guarantee == 12 else simulate(seed)
    return [violation.guarantee for violation in violations.violations]


@pytest.mark.parametrize("broken", BROKEN_RUNTIMES, ids=lambda broken: broken.apply.__name__)
def test_a_broken_runtime_is_caught(broken: BrokenRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.apply(monkeypatch)

    assert any(broken.guarantee in guarantees_broken(seed, broken.guarantee) for seed in range(SEEDS)), (
        f"{SEEDS} seeds saw nothing of it: {broken.apply.__doc__}"
    )


def test_every_guarantee_has_a_broken_runtime() -> None:
    assert {broken.guarantee for broken in BROKEN_RUNTIMES} == set(GUARANTEES)
