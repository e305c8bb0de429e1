"""What to do about a store that does not work: leave it alone for a while, and say so once."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

import trio

from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Outage", "Unavailable"]

_log = get_logger("ultra.cache")

# Seconds for which a store that does not work is left alone.
RETRY_INTERVAL: Final = 30.0


class Unavailable(Exception):
    """The store does not work now; the cause is in the log."""


class Outage:
    """Remembers that a store failed. The threads of several trio runs may share it.

    Args:
        where: fields of every log event that tell the store and what was done with it.
    """

    def __init__(self, **where: str) -> None:
        self._where: Mapping[str, str] = where
        self._lock = threading.Lock()
        self._now = ContinuousClock()
        self._over_at: float | None = None

    async def check(self) -> None:
        """Raise `Unavailable` if the store failed less than half a minute ago.

        A checkpoint where it raises.
        """
        with self._lock:
            out = self._over_at is not None and self._now() < self._over_at
        if out:
            await trio.lowlevel.checkpoint()
            raise Unavailable

    def begin(self, error: BaseException) -> None:
        """Leave the store alone from now on, because of `error`."""
        with self._lock:
            self._over_at = self._now() + RETRY_INTERVAL
        self.warn(error, retry_in=RETRY_INTERVAL)

    def end(self) -> None:
        """The store worked."""
        with self._lock:
            was_out, self._over_at = self._over_at is not None, None
        if was_out:
            _log.info("cache available again", **self._where)

    def warn(self, error: BaseException, **fields: Any) -> None:  # noqa: ANN401 - fields of a log event
        """Say that the store failed this once."""
        _log.warning("cache unavailable", **self._where, error=str(error) or repr(error), **fields)
