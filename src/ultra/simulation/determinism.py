"""Let a seed decide trio's schedule and clock. The only module that touches trio's private switches.

Trio shuffles the tasks that are ready to run, so that programs do not come to rely on an order. It has two
private names, made for hypothesis, that make the shuffle repeatable: with
``_ALLOW_DETERMINISTIC_SCHEDULING`` the tasks are sorted by age before they are shuffled, and ``_r`` is the
`random.Random` that shuffles. Trio's mock clock gathers statistics to find the next deadline, and asks for
the real time whenever it is asked for its own; both cost too much here, so two of its methods are
replaced. Tests watch all of these names (``test_determinism.py``).
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

__all__ = ["Deadlock", "run_seeded", "seeded_schedule", "unraisable_errors_ignored"]

T = TypeVar("T")


class Deadlock(Exception):
    """All tasks of a run wait, and none of them has a timeout."""


@contextmanager
def seeded_schedule(random: Random) -> Iterator[None]:
    """Let `random` decide which ready task runs first, in the trio runs that begin inside the block.

    The switches belong to the process: runs in other threads are scheduled by `random` too, and are then
    not repeatable. The switches are set back when the block is left.
    """
    before = _scheduler._ALLOW_DETERMINISTIC_SCHEDULING, _scheduler._r  # noqa: SLF001 - see the module's text
    _scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # noqa: SLF001 - Final to others
    _scheduler._r = random  # noqa: SLF001
    try:
        yield
    finally:
        _scheduler._ALLOW_DETERMINISTIC_SCHEDULING, _scheduler._r = before  # type: ignore[misc] # noqa: SLF001 - Final to others


def run_seeded(
    function: Callable[..., Awaitable[T]],
    *args: object,
    random: Random,
    time_limit: float = inf,
    on_idle: Callable[[], None] = lambda: None,
) -> T:
    """Run ``function(*args)`` in a trio run that is scheduled by `random`, in virtual time.

    The clock begins at 0 and jumps to the next deadline whenever all tasks wait, so seconds take
    microseconds. Before each jump `on_idle` is called, outside of all tasks. Threads and sockets would make
    both the schedule and the clock unrepeatable.

    Raises:
        trio.TrioInternalError: from `Deadlock`. After `time_limit` virtual seconds, all tasks wait and
            none has a timeout. Without a limit such a run never ends.
        BaseException: what `function` raises.
    """
    with seeded_schedule(random):
        return trio.run(function, *args, clock=_virtual_clock(time_limit, on_idle))


def _virtual_clock(time_limit: float, on_idle: Callable[[], None]) -> MockClock:
    clock = MockClock(autojump_threshold=0)
    sleep_time = clock.deadline_to_sleep_time
    next_deadline = inf

    def sleep_until(deadline: float) -> float:
        nonlocal next_deadline
        next_deadline = deadline
        if deadline == inf and clock.current_time() >= time_limit:
            raise Deadlock
        return sleep_time(deadline)

    def autojump() -> None:
        on_idle()
        if clock._virtual_base < next_deadline < inf:  # noqa: SLF001 - see the module's text
            clock._virtual_base = next_deadline  # noqa: SLF001

    # These methods are replaced in this clock alone.
    clock.deadline_to_sleep_time = sleep_until  # type: ignore[method-assign] # see above
    clock.current_time = partial(getattr, clock, "_virtual_base")  # type: ignore[method-assign] # see above
    clock._autojump = autojump  # type: ignore[method-assign] # noqa: SLF001 - see above
    return clock


@contextmanager
def unraisable_errors_ignored() -> Iterator[None]:
    """Let `gc.collect` destroy the tasks of a run that broke off, without warnings and messages.

    The ``finally`` blocks of these tasks run when the tasks are collected. Without a collection here, that
    could be in the middle of a later simulation, which would then depend on more than its seed.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        sys.unraisablehook = hook
