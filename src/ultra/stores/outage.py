"""What becomes of a store that does not work: it is not used for a while, and the log says so once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

import trio

from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Outage", "Unavailable"]

_log = get_logger("ultra.cache")

RETRY_INTERVAL: Final = 30.0
"""Seconds for which a store that does not work is not used."""


class Unavailable(Exception):
    """The store does not work now; the log says why."""


class Outage:
    """Remembers that a store has failed, until it works again. Threads may share it.

    Args:
        where: fields of each log event: which store it is, and what was done with it.
    """

    def __init__(self, **where: str) -> None:
        self._where: Mapping[str, str] = where
        self._lock = threading.Lock()
        self._now = ContinuousClock()
        self._over_at: float | None = None

    async def check(self) -> None:
        """Raise `Unavailable` if the store has failed within the last 30 seconds.

        A checkpoint where it raises.
        """
        with self._lock:
            out = self._over_at is not None and self._now() < self._over_at
        if out:
            await trio.lowlevel.checkpoint()
            raise Unavailable

    def begin(self, error: BaseException) -> None:
        """Note that the store failed with `error`: it is not used for the next 30 seconds."""
        with self._lock:
            self._over_at = self._now() + RETRY_INTERVAL
        self.warn(error, retry_in=RETRY_INTERVAL)

    def end(self) -> None:
        """Note that the store worked."""
        with self._lock:
            was_out, self._over_at = self._over_at is not None, None
        if was_out:
            _log.info("cache available again", **self._where)

    def warn(self, error: BaseException, **fields: object) -> None:
        """Log that the store failed, and go on using it."""
        _log.warning("cache unavailable", **self._where, error=str(error) or repr(error), **fields)
