"""What importing Ultra costs beside what it stands on."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.harness import Row, compare

__all__ = ["import_time"]


def _importing(modules: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
    return time.perf_counter() - start


def import_time(*, brief: bool) -> list[Row]:
    """A fresh interpreter each time."""
    return compare(
        "import ultra",
        lambda: _importing("ultra"),
        {"import trio, msgspec, structlog": (lambda: _importing("trio, msgspec, structlog"), 1.25)},
        rounds=1 if brief else 15,
    )
