"""What importing Ultra costs beside what it stands on."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from benchmarks.harness import Row, compare

__all__ = ["import_time"]

BASE = "import trio, msgspec, structlog"


def _running(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def import_time(*, brief: bool) -> list[Row]:
    """A fresh interpreter each time."""
    rows = []
    # Public names are imported when they are first used, so what a program pays in the end counts, too.
    for statement, target in (("import ultra", 1.25), ("from ultra import MultiLLMOrchestrator", None)):
        rows += compare(
            statement,
            partial(_running, statement),
            {BASE: (partial(_running, BASE), target)},
            rounds=1 if brief else 15,
        )
    return rows
