"""The short form of ``benchmarks/soak.py``: nothing is left over, and every run is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest


async def test_after_many_runs_with_faults_no_task_thread_or_file_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks.soak import soak  # noqa: PLC0415 - from the checkout

    caplog.set_level("CRITICAL", "ultra")
    report = await soak(200)

    assert report.success + report.degraded + report.failed == 200
    assert report.faults > 50
    assert report.degraded > 0
    assert [problem for problem in report.problems() if "memory" not in problem] == []
