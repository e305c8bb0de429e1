"""What importing Ultra costs beside what it stands on.

What is measured is a program's second start and every later one: the first start writes the bytecode
of each module, and the later ones read it. That holds for both sides and for the standard library,
whatever this process was told about bytecode. So the interpreters get a directory of their own for it,
which the round of warming up fills.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from tempfile import TemporaryDirectory

from benchmarks.harness import Row, compare

__all__ = ["import_time"]

BASE = "import trio, msgspec, structlog"
TARGET = 1.25


def _running(statement: str, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return time.perf_counter() - start


def import_time(*, brief: bool) -> list[Row]:
    """A fresh interpreter each time, which finds the bytecode that an earlier one has written."""
    with TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        base = partial(_running, BASE, environment)
        rows = []
        # Public names are imported when they are first used, so what a program pays is the second row.
        for statement in ("import ultra", "from ultra import MultiLLMOrchestrator"):
            rows += compare(
                statement,
                partial(_running, statement, environment),
                {BASE: (base, TARGET)},
                rounds=1 if brief else 15,
            )
    return rows
