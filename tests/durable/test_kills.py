"""Processes that are killed at random moments: no accepted run is lost, and nothing is paid twice."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from helpers.kills import kill_again_and_again

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_processes_lose_no_run_and_pay_no_answer_twice(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, Random(1), kills=2, runs=5)


@pytest.mark.long
def test_a_hundred_kills_over_a_hundred_runs(tmp_path: Path) -> None:
    counts = kill_again_and_again(tmp_path, Random(2), kills=100, runs=100)
    assert counts["interrupted"] >= 50  # so many runs were under way when their process was killed
