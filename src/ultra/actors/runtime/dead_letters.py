"""Messages that were accepted and not handled: the newest of them, each with the reason."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Literal

import trio
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["DeadLetter", "DeadLetterReason", "DeadLetters"]

DeadLetterReason = Literal["stopped", "down", "crashed", "overflow", "abandoned", "fault"]
"""Why a message was not handled.

stopped, down: the actor has ended. crashed: the message crashed it each time it was delivered. overflow: a
newer message pushed it out of a full inbox. abandoned: its asker waits no longer. fault: it was injected.
"""


class DeadLetter(Struct, frozen=True):
    """A message that was accepted and then not handled, at `time` (`trio.current_time()`)."""

    path: str
    message: object
    reason: DeadLetterReason
    time: float


class DeadLetters:
    """Keep the newest `capacity` dead letters, oldest first; `total` counts all that there were."""

    def __init__(self, capacity: int) -> None:
        self.total = 0
        self._letters: deque[DeadLetter] = deque(maxlen=capacity)

    def add(self, path: str, message: object, reason: DeadLetterReason) -> None:
        """Record that `message`, sent to the actor at `path`, was not handled."""
        self.total += 1
        self._letters.append(DeadLetter(path, message, reason, trio.current_time()))

    def newest(self, count: int) -> list[DeadLetter]:
        """Return the last `count` that are kept, oldest first."""
        return [*islice(reversed(self._letters), count)][::-1]

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))

    def __len__(self) -> int:
        return len(self._letters)
