"""A queue of calls for another thread."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallQueue"]

BATCH: Final = 128
"""How many calls are made in one go before the other thread's loop gets to its other work."""


class CallQueue:
    """Calls that another thread makes, in the order in which they were put.

    To wake a thread that waits for I/O takes tens of microseconds, to add to a deque next to nothing. So the
    thread is woken once for all calls that are put before it gets to them::

        queue = CallQueue(token.run_sync_soon)  # a trio token: its run makes the calls
        queue.put(results.append, 1)
        queue.put(results.append, 2)
        queue.flush()  # one wake-up for both

    Args:
        wake: makes the other thread call what it is given, soon.
    """

    __slots__ = ("_calls", "_wake", "_woken")

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        self._wake = wake
        self._calls: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._woken = False

    def put(self, function: Callable[..., object], *args: object) -> None:
        """Have ``function(*args)`` called after the next `flush`; it must not raise. For any thread."""
        self._calls.append((function, args))

    def flush(self) -> None:
        """Wake the other thread if there are calls for it and it has not been woken yet. For any thread.

        Never blocks. Raises what `wake` raises; the calls then wait for the next flush.
        """
        # Two threads may both see that it has not been woken: then it is woken twice, which does no harm.
        if self._calls and not self._woken:
            self._woken = True
            try:
                self._wake(self.deliver)
            except BaseException:
                self._woken = False
                raise

    def deliver(self) -> None:
        """Make the calls that wait. For the other thread only."""
        # Before the first look into the deque, so that a call that is added after the last look wakes again.
        self._woken = False
        try:
            for _ in range(min(len(self._calls), BATCH)):
                function, args = self._calls.popleft()
                function(*args)
        finally:
            self.flush()
