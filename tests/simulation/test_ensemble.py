"""The orchestrator's part of the simulation: users meet with all that can happen, and nothing is broken."""

from __future__ import annotations

import logging
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from ultra.simulation.determinism import run_seeded
from ultra.simulation.ensemble import ENDINGS, NAMES, Ensemble

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = 90


@pytest.fixture(scope="module")
def ensembles() -> Iterator[list[Ensemble]]:
    logger = logging.getLogger("ultra")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield [run_seeded(_live, seed, random=Random(f"{seed}/schedule")) for seed in range(SEEDS)]
    logger.setLevel(level)


async def _live(seed: int) -> Ensemble:
    ensemble = Ensemble(seed)
    await ensemble.live()
    return ensemble


def _events(ensembles: list[Ensemble], what: str) -> Counter[object]:
    """How often each last detail of such events occurs."""
    return Counter(
        event[-1] for ensemble in ensembles for event in ensemble.record.events if event[1] == what
    )


def test_nothing_is_broken(ensembles: list[Ensemble]) -> None:
    violations = [str(violation) for ensemble in ensembles for violation in ensemble.record.violations]

    assert violations == []


def test_calls_end_in_every_way(ensembles: list[Ensemble]) -> None:
    ends = _events(ensembles, "answered")

    assert ends["answer"] > 2 * SEEDS
    assert ends.keys() >= {
        "ActorCrashed",
        "ActorDown",
        "AllAttemptsFailed",
        "ModelUnregistered",
        "OrchestratorClosed",
        "QuorumNotReached",
    }


def test_orchestrators_end_in_every_way(ensembles: list[Ensemble]) -> None:
    assert _events(ensembles, "left").keys() == ENDINGS.keys()


def test_models_are_called_fail_and_are_cancelled(ensembles: list[Ensemble]) -> None:
    ends = _events(ensembles, "called")

    assert min(ends[""], ends["ModelError"], ends["Cancelled"]) > SEEDS


def test_models_are_taken_out_and_put_back(ensembles: list[Ensemble]) -> None:
    registered = sum(_events(ensembles, "registered").values())

    assert registered > len(NAMES) * SEEDS
    assert _events(ensembles, "unregister").keys() == {False, True}


def test_actors_go_down_and_are_revived(ensembles: list[Ensemble]) -> None:
    lifecycle = [event[1] for ensemble in ensembles for event in ensemble.record.events]

    assert lifecycle.count("down") > 5
    assert lifecycle.count("revived") > 5
