"""The short form of ``benchmarks/soak.py``: nothing is left over, and every run is accounted for."""

from __future__ import annotations

import pytest

from helpers.event_loops import on_asyncio
from helpers.paths import ROOT


@pytest.fixture(autouse=True)
def _in_checkout(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    caplog.set_level("CRITICAL", "ultra")


async def test_after_many_runs_with_faults_no_task_thread_socket_or_file_is_left() -> None:
    await assert_nothing_is_left_of(200)


@on_asyncio
async def test_after_many_runs_from_asyncio_nothing_is_left_either() -> None:
    await assert_nothing_is_left_of(200)


async def assert_nothing_is_left_of(runs: int) -> None:
    from benchmarks.soak import soak  # noqa: PLC0415 - from the checkout

    report = await soak(runs)

    ended = report.success + report.degraded + report.failed + report.left + report.cancelled
    assert ended == report.runs == runs
    assert report.faults > runs // 4
    assert min(report.success, report.degraded, report.left) > 0
    assert report.untidy == 0
    # So few runs say nothing about memory.
    assert [problem for problem in report.problems() if "memory" not in problem] == []
