"""What a crash is: an exception, and neither a cancellation nor an interrupt on its way through."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Self

import trio

from ultra.errors import StrayCancelled

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["CrashBarrier", "follows_cancellation"]


class CrashBarrier:
    """A context manager that keeps the exception that leaves its block, if it is a crash, in `crash`.

    Cancellation, KeyboardInterrupt and the like are no crashes and pass through. A group that has both
    is split: the crash is kept, and the rest goes on.
    """

    __slots__ = ("crash",)

    def __init__(self) -> None:
        self.crash: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if isinstance(error, Exception):
            self.crash = error
            return True
        if isinstance(error, trio.Cancelled):
            return self._caught_if_stray(error)
        if isinstance(error, BaseExceptionGroup):
            crash, rest = _split(error)
            self.crash = crash
            if rest is None or self._caught_if_stray(rest):
                return True
            if crash is not None:
                raise rest from None
        return False

    def _caught_if_stray(self, error: BaseException) -> bool:
        """Keep cancellation as a crash if it is none: no scope around this block was cancelled."""
        if not _is_cancellation(error) or trio.current_effective_deadline() == -inf:
            return False
        stray = StrayCancelled(error)
        self.crash = stray if self.crash is None else ExceptionGroup("a crash", [self.crash, stray])
        return True


def _split(group: BaseExceptionGroup[BaseException]) -> tuple[Exception | None, BaseException | None]:
    """Split `group` into what is a crash and what is not."""
    try:
        return group.split(Exception)
    except Exception:  # noqa: BLE001 - its class may have a `derive` of its own
        return BaseExceptionGroup("a group of a class that fails to split", group.exceptions).split(Exception)


def _is_cancellation(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_cancellation(inner) for inner in error.exceptions)
    return isinstance(error, trio.Cancelled)


def follows_cancellation(error: BaseException | None) -> bool:
    """Return whether `error` was raised while a cancellation was on its way, in a ``finally`` for example."""
    seen = set()
    while error is not None and id(error) not in seen:
        if _is_cancellation(error):
            return True
        seen.add(id(error))
        error = error.__context__
    return False
