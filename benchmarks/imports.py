"""What importing Ultra costs beside what it stands on."""

from __future__ import annotations

import subprocess
import sys
import time
from functools import partial

from benchmarks.harness import Row, compare

__all__ = ["import_time"]


def _running(statement: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - start


def import_time(*, brief: bool) -> list[Row]:
    """A fresh interpreter each time."""
    rows = []
    # Public names are imported when they are first used, so what a program pays in the end counts, too.
    for statement in ("import ultra", "from ultra import MultiLLMOrchestrator"):
        rows += compare(
            statement,
            partial(_running, statement),
            {"import trio, msgspec, structlog": (partial(_running, "import trio, msgspec, structlog"), 1.25)},
            rounds=1 if brief else 15,
        )
    return rows
