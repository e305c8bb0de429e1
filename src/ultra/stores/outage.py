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

_MOST_WORDS: Final = 2000


class Unavailable(Exception):
    """The store does not work now; the log says why."""


class Outage:
    """Remembers that a store has failed, until it works again. Threads may share it.

    Args:
        title: what the log calls it.
        retry_in: seconds for which it is not used after it has failed.
        where: fields of each log event: which store it is, and what was done with it.
    """

    def __init__(self, title: str = "cache", retry_in: float = RETRY_INTERVAL, **where: str) -> None:
        self._title = title
        self._retry_in = retry_in
        self._where: Mapping[str, str] = where
        self._lock = threading.Lock()
        self._now = ContinuousClock()
        self._over_at: float | None = None

    @property
    def is_on(self) -> bool:
        """Whether the store has failed within the last 30 seconds, or `retry_in`."""
        if self._over_at is None:
            return False
        with self._lock:
            over_at: float | None = self._over_at  # another thread may have ended the outage
            return over_at is not None and self._now() < over_at

    async def check(self) -> None:
        """Raise `Unavailable` if the store has failed within the last 30 seconds.

        A checkpoint where it raises.
        """
        if self.is_on:
            await trio.lowlevel.checkpoint()
            raise Unavailable

    def begin(self, error: BaseException, **fields: object) -> None:
        """Note that the store failed with `error`: it is not used for a while."""
        with self._lock:
            self._over_at = self._now() + self._retry_in
        self.warn(error, retry_in=self._retry_in, **fields)

    def end(self) -> None:
        """Note that the store worked."""
        if self._over_at is None:
            return
        with self._lock:
            was_out, self._over_at = self._over_at is not None, None
        if was_out:
            _log.info(f"{self._title} available again", **self._where)

    def warn(self, error: BaseException, **fields: object) -> None:
        """Log that the store failed, and go on using it."""
        _log.warning(f"{self._title} unavailable", **self._where, error=_words(error), **fields)


def _words(error: BaseException) -> str:
    try:
        return (str(error) or repr(error))[:_MOST_WORDS]
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the store may be anybody's code, and so may its exceptions
        return type(error).__qualname__
