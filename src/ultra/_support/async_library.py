"""Which async library runs the code that asks: trio, or another one in the same thread."""

from __future__ import annotations

import sniffio
from trio.lowlevel import in_trio_run

__all__ = ["in_trio"]


def in_trio() -> bool:
    """Return whether this is called by a task or a callback of a trio run.

    In guest mode, and in the asyncio half of trio-asyncio, a trio run belongs to the same thread and another
    library is calling; sniffio tells them apart.
    """
    return in_trio_run() and sniffio.thread_local.name == "trio"
