"""Work in pieces: a generator that yields every few milliseconds, so that others can run in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    T = TypeVar("T")
    Work: TypeAlias = Generator[None, None, T]

__all__ = ["run_at_once", "run_in_pieces"]


def run_at_once(work: Work[T]) -> T:
    """Do the work, and return what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result


async def run_in_pieces(
    work: Work[T], checkpoint: Callable[[], Awaitable[None]] = trio.lowlevel.checkpoint
) -> T:
    """Do the work, and let others run by `checkpoint` after each piece. If cancelled, it ends there."""
    while True:
        try:
            next(work)
        except StopIteration as ended:
            result: T = ended.value
            return result
        await checkpoint()
