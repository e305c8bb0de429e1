"""Messages that were accepted and not handled: what they were, and the reason; never the messages."""

from __future__ import annotations

from collections import deque
from itertools import islice
from sys import getsizeof
from typing import TYPE_CHECKING, Literal

import trio
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DeadLetter", "DeadLetterReason", "DeadLetters"]

DeadLetterReason = Literal["stopped", "down", "crashed", "overflow", "abandoned", "fault"]
"""Why a message was not handled.

stopped, down: the actor has ended. crashed: the message crashed it each time it was delivered. overflow: a
newer message pushed it out of a full inbox. abandoned: its asker waits no longer. fault: it was injected.
"""


class DeadLetter(Struct, frozen=True):
    """A message that was accepted and then not handled, at `time` (`trio.current_time()`).

    It says of what type the message was, and its size in memory without what it refers to [bytes]. The
    message itself, which may be large or secret, is not kept.
    """

    path: str
    message_type: str
    size: int
    reason: DeadLetterReason
    time: float


class DeadLetters:
    """Keep the newest `capacity` dead letters, oldest first; `total` counts all that there were."""

    def __init__(self, capacity: int) -> None:
        self.total = 0
        self.observer: Callable[[object], None] | None = None
        """Is called with each message that is not handled; for tests, which keep what they need of it."""
        self._letters: deque[DeadLetter] = deque(maxlen=capacity)

    def add(self, path: str, message: object, reason: DeadLetterReason) -> None:
        """Record that `message`, sent to the actor at `path`, was not handled."""
        self.total += 1
        if self.observer is not None:
            self.observer(message)
        kind = type(message).__qualname__
        self._letters.append(DeadLetter(path, kind, _size_of(message), reason, trio.current_time()))

    def newest(self, count: int) -> list[DeadLetter]:
        """Return the last `count` that are kept, oldest first."""
        return [*islice(reversed(self._letters), count)][::-1]

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))

    def __len__(self) -> int:
        return len(self._letters)


def _size_of(message: object) -> int:
    try:
        return getsizeof(message)
    except Exception:  # noqa: BLE001 - `__sizeof__` may be anybody's code
        return object.__sizeof__(message)
