"""Trio's schedule decided by a seed. The only module that touches trio's private switches.

Trio shuffles the tasks that are ready to run, so that nobody comes to rely on an order. For
hypothesis it has two private names that make the shuffle repeatable: with
``_ALLOW_DETERMINISTIC_SCHEDULING`` the tasks are sorted by age before they are shuffled, and ``_r`` is the
`random.Random` that shuffles. A test stands watch over both (``test_determinism.py``).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio
from trio._core import _run as _scheduler
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from random import Random

__all__ = ["run_seeded", "seeded_schedule"]

T = TypeVar("T")


@contextmanager
def seeded_schedule(random: Random) -> Iterator[None]:
    """Let `random` decide which ready task runs first in the runs that are begun inside the block.

    The switches belong to the process: runs in other threads are scheduled by `random` too, and so are
    not repeatable. They are set back when the block is left.
    """
    before = _scheduler._ALLOW_DETERMINISTIC_SCHEDULING, _scheduler._r  # noqa: SLF001 - see the module's text
    _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # noqa: SLF001
    _scheduler._r = random  # noqa: SLF001
    try:
        yield
    finally:
        _scheduler._ALLOW_DETERMINISTIC_SCHEDULING, _scheduler._r = before  # type: ignore[misc] # noqa: SLF001


def run_seeded(function: Callable[..., Awaitable[T]], *args: object, random: Random) -> T:
    """``trio.run(function, *args)``, scheduled by `random` and in virtual time.

    The clock begins at 0 and jumps to the next timeout whenever all tasks wait, so seconds take
    microseconds. Threads and sockets would make both the schedule and the clock unrepeatable. Raises
    what `function` raises.
    """
    with seeded_schedule(random):
        return trio.run(function, *args, clock=MockClock(autojump_threshold=0))
