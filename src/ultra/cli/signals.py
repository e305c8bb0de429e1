"""Cancelling the work of a command at Ctrl-C or SIGTERM, so that it ends in order."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

__all__ = ["SERVICE_SIGNALS", "run_until_signalled"]

SERVICE_SIGNALS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)
"""What a service listens to; not every system has all of them."""


def run_until_signalled(work: Callable[[], Awaitable[None]]) -> int | None:
    """Run ``work()`` on trio until it ends, or SIGINT or SIGTERM cancels it.

    Return the signal, or None if none came. Further signals do nothing: a second Ctrl-C must not interrupt
    what closes after the first. If SIGINT is ignored, as in background jobs of a shell, it stays ignored.
    Raises what `work` raises.
    """
    caught: list[int] = []
    with _noting(caught) as numbers:
        failure = trio.run(_until_signalled, work, numbers, caught)
    if caught:
        return caught[0]
    if failure is not None:
        raise failure
    return None


@contextmanager
def _noting(caught: list[int]) -> Iterator[tuple[int, ...]]:
    """Note signals before and after trio takes them; without this, they would raise an exception."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        numbers.remove(signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: caught.append(number)) for number in numbers}
    try:
        yield tuple(numbers)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _until_signalled(
    work: Callable[[], Awaitable[None]], numbers: tuple[int, ...], caught: list[int]
) -> Exception | None:
    failure: Exception | None = None
    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as nursery:
            # Not the scope of the nursery: signals are taken until the work has ended.
            working = trio.CancelScope()
            nursery.start_soon(_cancel_on_signal, signals, working, caught)
            with working:
                if caught:
                    working.cancel()
                try:
                    await work()
                except Exception as error:  # noqa: BLE001 - raised outside, not in the nursery's exception group
                    failure = error
            nursery.cancel_scope.cancel()
    return failure


async def _cancel_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope, caught: list[int]) -> None:
    async for number in signals:
        caught.append(number)
        scope.cancel()
