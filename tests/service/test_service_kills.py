"""A service that is killed at random moments: no run is lost, and each client reads all of its own."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING

import pytest

from helpers.service_kills import kill_again_and_again

if TYPE_CHECKING:
    from pathlib import Path

# httpx leaves the body of a request behind that a killed service did not read.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ByteStream.__aiter__:pytest.PytestUnraisableExceptionWarning"
)

KILLS = int(os.environ.get("ULTRA_KILLS", "100"))
"""How often the long test kills the service, over as many runs."""


async def test_clients_of_a_service_that_is_killed_read_their_runs_to_the_end(tmp_path: Path) -> None:
    counts = await kill_again_and_again(tmp_path, Random(1), kills=3, runs=5)
    assert counts["runs"] >= 4


@pytest.mark.long
async def test_a_hundred_kills_of_a_service_over_a_hundred_runs(tmp_path: Path) -> None:
    counts = await kill_again_and_again(tmp_path, Random(2), kills=KILLS, runs=KILLS)
    assert counts["interrupted"] >= KILLS / 10  # so many runs, at least, were under way at a kill
    assert counts["broken"] >= KILLS / 10
