"""Using a journal that may not work for a while: the same is tried again and again."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from ultra._support.log import get_logger
from ultra.errors import JournalDamaged, JournalUnavailable, text_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["OUTAGE_SECONDS", "persist"]

T = TypeVar("T")

OUTAGE_SECONDS: Final = 30.0
"""Seconds for which a reader waits for a journal that does not work."""

_FIRST_WAIT: Final = 0.05
_LONGEST_WAIT: Final = 1.0
"""Seconds between two tries."""

log = get_logger("ultra.durable")


async def persist(work: Callable[[], Awaitable[T]], run_id: str, within: float = inf) -> T:
    """Return what ``await work()`` returns, which is tried again while the journal does not work. On trio.

    Args:
        work: a use of the journal.
        run_id: for the log, which tells once of each outage.
        within: seconds from the first failure, after which no other try is begun.

    Raises:
        JournalUnavailable: it has not worked for so long.
        JournalDamaged: at once, since that will not be better.
    """
    wait = _FIRST_WAIT
    until: float | None = None
    while True:
        try:
            return await work()
        except JournalDamaged:
            raise
        except JournalUnavailable as error:
            now = trio.current_time()
            if until is None:
                log.warning("journal unavailable", run_id=run_id, error=text_of(error))
                until = now + within
            if now + wait > until:
                raise
        await trio.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT)
