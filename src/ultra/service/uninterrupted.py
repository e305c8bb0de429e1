"""Work that a cancellation does not interrupt, for a bounded time: a store may hang."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import anyio

from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PATIENCE", "NoAnswer", "uninterrupted"]

PATIENCE: Final = 10.0
"""Seconds that such work takes at most. The journals and limits of Ultra's own give up before."""

_log = get_logger("ultra.service")


class NoAnswer(TimeoutError):
    """What must not be interrupted has taken too long."""


@contextmanager
def uninterrupted(what: str, **told: str) -> Iterator[None]:
    """Let the block go on where its task is cancelled, for at most `PATIENCE` seconds in all.

    `what` has not ended then is logged, with what else is `told`.

    Raises:
        NoAnswer: the block took longer, and was cancelled.
    """
    with anyio.move_on_after(PATIENCE, shield=True) as scope:
        yield
    if scope.cancelled_caught:
        _log.error("no answer in time", what=what, seconds=PATIENCE, **told)
        raise NoAnswer(f"{what} has not ended within {PATIENCE:g} s")
