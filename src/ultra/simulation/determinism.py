"""Trio's schedule decided by a seed. The only module that touches trio's private switches.

Trio shuffles the tasks that are ready to run, so that nobody comes to rely on an order. For
hypothesis it has two private names that make the shuffle repeatable: with
``_ALLOW_DETERMINISTIC_SCHEDULING`` the tasks are sorted by age before they are shuffled, and ``_r`` is the
`random.Random` that shuffles. Trio's mock clock jumps by way of statistics that it has to gather, and asks
the real time whenever it is asked for its own; both are cut short here by replacing two of its methods.
Tests stand watch over all of these names (``test_determinism.py``).
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeVar

import trio
from trio._core import _run as _scheduler
from trio.testing import MockClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from random import Random

__all__ = ["Standstill", "run_seeded", "seeded_schedule", "unheard"]

T = TypeVar("T")


class Standstill(Exception):
    """All tasks of a run wait, for nothing that time could bring."""


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


def run_seeded(
    function: Callable[..., Awaitable[T]], *args: object, random: Random, horizon: float = inf
) -> T:
    """``trio.run(function, *args)``, scheduled by `random` and in virtual time.

    The clock begins at 0 and jumps to the next timeout whenever all tasks wait, so seconds take
    microseconds. Threads and sockets would make both the schedule and the clock unrepeatable. Raises
    what `function` raises, and `trio.TrioInternalError` from `Standstill` when, `horizon` seconds from the
    start or later, all tasks wait without a timeout: shielded tasks in a deadlock would do so for ever.
    """
    with seeded_schedule(random):
        return trio.run(function, *args, clock=_virtual_clock(horizon))


def _virtual_clock(horizon: float) -> MockClock:
    clock = MockClock(autojump_threshold=0)
    sleep_time = clock.deadline_to_sleep_time
    next_deadline = inf

    def sleep_until(deadline: float) -> float:
        nonlocal next_deadline
        next_deadline = deadline
        if deadline == inf and clock.current_time() >= horizon:
            raise Standstill
        return sleep_time(deadline)

    def autojump() -> None:
        if clock._virtual_base < next_deadline < inf:  # noqa: SLF001 - see the module's text
            clock._virtual_base = next_deadline  # noqa: SLF001

    clock.deadline_to_sleep_time = sleep_until  # type: ignore[method-assign]
    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign]
    clock._autojump = autojump  # type: ignore[method-assign] # noqa: SLF001
    return clock


@contextmanager
def unheard() -> Iterator[None]:
    """Let `gc.collect` destroy the tasks of a run that broke off without complaints that nobody ran them.

    Their ``finally`` blocks run when they are collected. At a time of the collector's choosing, that would
    be in the middle of a later simulation, which then would depend on more than its seed.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        sys.unraisablehook = hook
