"""How long one attempt at a call may take: all of it, until the first text, between two pieces of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from trio import CancelScope

__all__ = ["AttemptTimer", "Timeouts"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """Bounds on one attempt [s]: all of it, until the first text, and between two pieces of text.

    The last two apply where the answer is streamed. Of several deployments each has its own time until the
    first text, and all together have one attempt.
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
    """Holds one attempt, which begins now, to its `Timeouts`.

    `scope` has to be entered with the `deadline`, and set; pieces of text then move its deadline.
    """

    __slots__ = ("_end", "_limit", "_timeouts", "_waits_for", "deadline", "scope")

    def __init__(self, timeouts: Timeouts, *, streams: bool) -> None:
        now = trio.current_time()
        self.scope: CancelScope | None = None
        self._timeouts = timeouts
        self._end = now + timeouts.attempt
        self.deadline = self._expect_answer(now, streams=streams)

    def begin_anew(self, *, streams: bool) -> None:
        """Somebody else answers, and is given the time until the first piece; the whole ends as before."""
        self._move(self._expect_answer(trio.current_time(), streams=streams))

    def heard(self) -> None:
        """A piece of text has come."""
        self._move(self._expect("the next piece of the answer", trio.current_time(), self._timeouts.idle))

    def error(self) -> ModelError:
        """What to raise when the scope was cancelled because time was over."""
        return ModelError(f"{self._waits_for} did not come within {self._limit:g} s", kind="timeout")

    def _move(self, deadline: float) -> None:
        self.deadline = deadline
        if self.scope is not None:
            self.scope.deadline = deadline

    def _expect_answer(self, now: float, *, streams: bool) -> float:
        """Note that nothing has come yet, and return until when it is waited for."""
        if streams:
            return self._expect("the first piece of the answer", now, self._timeouts.first_token)
        return self._expect_whole()

    def _expect_whole(self) -> float:
        self._waits_for, self._limit = "the whole answer", self._timeouts.attempt
        return self._end

    def _expect(self, waits_for: str, now: float, seconds: float) -> float:
        """Note what is waited for, and return until when (`trio.current_time`)."""
        if now + seconds >= self._end:
            return self._expect_whole()
        self._waits_for, self._limit = waits_for, seconds
        return now + seconds
