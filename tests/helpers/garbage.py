"""Collecting garbage often, in a process that has imported half a million objects."""

from __future__ import annotations

import gc

__all__ = ["collect_garbage"]


def collect_garbage() -> None:
    """Collect all garbage, and let the next collection look only at what is made after this one.

    What is alive now is never collected, even when it is garbage later. So use it between tests, or at the
    end of one.
    """
    gc.collect()
    gc.freeze()
