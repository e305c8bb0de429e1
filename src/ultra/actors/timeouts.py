"""How long one attempt at a call may take: all of it, until the first text, between two pieces of it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from trio import CancelScope

__all__ = ["AttemptTimer", "Timeouts"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """Bounds on one attempt [s]: all of it, until the first text, and between two pieces of text.

    The last two apply where the answer is streamed.
    """

    attempt: float = 120.0
    first_token: float = 60.0
    idle: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not (isinstance(value, (int, float)) and value > 0):
                raise BadCall(f"timeout {name} is {value!r}; it must be a number of seconds above 0")


class AttemptTimer:
    """Holds one attempt to its `Timeouts`, from `start` on, by moving the deadline of `scope`."""

    __slots__ = ("_end", "_limit", "_scope", "_timeouts", "_waits_for")

    def __init__(self, timeouts: Timeouts, scope: CancelScope) -> None:
        self._timeouts = timeouts
        self._scope = scope
        self._end = inf
        self._limit = inf
        self._waits_for = "a turn"

    def start(self, *, streams: bool) -> None:
        """The attempt begins now."""
        self._end = trio.current_time() + self._timeouts.attempt
        if streams:
            self._expect("the first piece of the answer", self._timeouts.first_token)
        else:
            self._expect("the whole answer", self._timeouts.attempt)

    def heard(self) -> None:
        """A piece of text has come."""
        self._expect("the next piece of the answer", self._timeouts.idle)

    def error(self) -> ModelError:
        """What to raise when the scope was cancelled because time was over."""
        return ModelError(f"{self._waits_for} did not come within {self._limit:g} s", kind="timeout")

    def _expect(self, waits_for: str, seconds: float) -> None:
        deadline = trio.current_time() + seconds
        if deadline >= self._end:
            deadline, waits_for, seconds = self._end, "the whole answer", self._timeouts.attempt
        self._scope.deadline = deadline
        self._waits_for = waits_for
        self._limit = seconds
