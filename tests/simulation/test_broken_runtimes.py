"""Runtimes that are broken on purpose: the simulation sees each, and names the guarantee.

A check that sees no breakage would prove nothing.
"""

from __future__ import annotations

import gc
import sys

import pytest

from helpers.broken_runtimes import BROKEN_RUNTIMES, BrokenRuntime, watchers_are_forgotten
from ultra.simulation.campaign import run_campaign
from ultra.simulation.one_seed import run_seed
from ultra.simulation.record import GUARANTEES

SEEDS = 200

TELLING = (10, 0, 5, 18, 1, 3)
"""Seeds that are tried first: between them they have seen all that is broken here."""


def guarantees_broken(seed: int, guarantee: int) -> list[int]:
    """The guarantees that a simulation finds broken. Only a campaign compares two runs of one seed."""
    violations = run_campaign(seed, 1, processes=1) if guarantee == 12 else run_seed(seed)
    return [violation.guarantee for violation in violations.violations]


@pytest.mark.parametrize("broken", BROKEN_RUNTIMES, ids=lambda broken: broken.apply.__name__)
def test_a_broken_runtime_is_caught(broken: BrokenRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    broken.apply(monkeypatch)

    assert any(
        broken.guarantee in guarantees_broken(seed, broken.guarantee) for seed in (*TELLING, *range(SEEDS))
    ), f"{SEEDS} seeds saw nothing of it: {broken.apply.__doc__}"


def test_a_run_that_breaks_off_leaves_no_task_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    watchers_are_forgotten(monkeypatch)

    report = run_seed(0)
    gc.collect()

    assert any("the run broke off" in violation.message for violation in report.violations)
    assert complaints == []


def test_every_guarantee_has_a_broken_runtime() -> None:
    of_journals = {13}  # in test_broken_journals.py
    assert {broken.guarantee for broken in BROKEN_RUNTIMES} == set(GUARANTEES) - of_journals
