"""Processes that are killed at random moments: no accepted run is lost, and nothing is paid twice."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from helpers.kills import kill_again_and_again
from helpers.redis_server import redis_process

if TYPE_CHECKING:
    from pathlib import Path


def test_killed_processes_lose_no_run_and_pay_no_answer_twice(tmp_path: Path) -> None:
    kill_again_and_again(tmp_path, Random(1), kills=2, runs=5)


@pytest.mark.long
def test_the_same_with_the_journal_in_redis(tmp_path: Path) -> None:
    (folder := tmp_path / "server").mkdir()
    with redis_process(folder, durable=True) as server:
        (tmp_path / "journal").write_text(server.url)
        kill_again_and_again(tmp_path, Random(3), kills=50, runs=60)


@pytest.mark.long
def test_a_hundred_kills_over_a_hundred_runs(tmp_path: Path) -> None:
    counts = kill_again_and_again(tmp_path, Random(2), kills=100, runs=100)
    assert counts["interrupted"] >= 5  # so many runs, at least, were under way when their process was killed
