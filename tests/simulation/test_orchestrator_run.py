"""The orchestrator's half of the simulation: all that can happen does happen, and nothing is broken."""

from __future__ import annotations

from collections import Counter

import pytest

from helpers.orchestrator_runs import orchestrator_run
from ultra.simulation.orchestrator.run import ENDINGS, NAMES, OrchestratorRun

SEEDS = 90


@pytest.fixture(scope="module")
def runs() -> list[OrchestratorRun]:
    return [orchestrator_run(seed) for seed in range(SEEDS)]


def _events(runs: list[OrchestratorRun], what: str) -> Counter[object]:
    """How often each last detail of such events occurs."""
    return Counter(event[-1] for run in runs for event in run.record.events if event[1] == what)


def test_nothing_is_broken(runs: list[OrchestratorRun]) -> None:
    violations = [str(violation) for run in runs for violation in run.record.violations]

    assert violations == []


def test_calls_end_in_every_way(runs: list[OrchestratorRun]) -> None:
    ends = _events(runs, "answered")

    assert ends["answer"] > 2 * SEEDS
    assert ends.keys() >= {
        "ActorCrashed",
        "ActorDown",
        "AllAttemptsFailed",
        "ModelUnregistered",
        "OrchestratorClosed",
        "QuorumNotReached",
    }


def test_orchestrators_end_in_every_way(runs: list[OrchestratorRun]) -> None:
    assert _events(runs, "left").keys() == ENDINGS.keys()


def test_models_are_called_fail_and_are_cancelled(runs: list[OrchestratorRun]) -> None:
    ends = _events(runs, "called")

    assert min(ends[""], ends["ModelError"], ends["Cancelled"]) > SEEDS


def test_models_are_taken_out_and_put_back(runs: list[OrchestratorRun]) -> None:
    registered = sum(_events(runs, "registered").values())

    assert registered > len(NAMES) * SEEDS
    assert _events(runs, "unregister").keys() == {False, True}


def test_actors_go_down_and_are_revived(runs: list[OrchestratorRun]) -> None:
    lifecycle = [event[1] for run in runs for event in run.record.events]

    assert lifecycle.count("down") > 5
    assert lifecycle.count("revived") > 5
