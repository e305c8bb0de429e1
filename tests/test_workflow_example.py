"""The example on DBOS: a process is killed, another goes on, and asks for no answer that was paid."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from helpers.paths import EXAMPLES

if "ULTRA_TESTS_NEED_DBOS" not in os.environ:
    pytest.importorskip("dbos", reason="DBOS is not installed: uv run --group workflows pytest -m long")


@pytest.mark.long
def test_an_ensemble_that_is_killed_goes_on_and_asks_for_no_paid_answer_again() -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "durable_dbos.py")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    killed, answer, calls = done.stdout.splitlines()
    assert killed == "killed, when two of three answers were there"
    assert answer == "answer: They agree: Paris."
    asked, merged = calls.removeprefix("calls: ").removesuffix(", which merged").split("; then ")
    # The slow one was in flight when the process was killed.
    assert Counter(asked.split(", ")) == {"quick": 1, "steady": 1, "slow": 2}
    assert merged in {"quick", "steady", "slow"}
