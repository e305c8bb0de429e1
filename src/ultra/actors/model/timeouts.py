"""The timeouts of one attempt: in all, until the first text, and between two pieces of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import trio
from msgspec import Struct

from ultra._support.checks import check_seconds
from ultra.errors import ModelError

if TYPE_CHECKING:
    from trio import CancelScope

    from ultra._support.reminders import Reminder, Reminders

__all__ = ["AttemptTimer", "Timeouts"]


class Timeouts(Struct, frozen=True, kw_only=True):
    """The timeouts of one attempt, in seconds.

    Attributes:
        attempt: for the whole attempt, over all deployments that are tried in it.
        first_token: until the first text of a stream; each deployment has so many seconds of its own.
        idle: between two pieces of a stream.
    """

    attempt: float = 120.0
    first_token: float = 60.0
    idle: float = 30.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_seconds(f"timeout {name}", getattr(self, name), positive=True, endless=True)


class AttemptTimer:
    """The deadline of one attempt, which begins now; pieces of text move it.

    A piece of text only notes the new deadline. If that were the deadline of the scope, trio would have to
    sort all deadlines again for each piece. ::

        timer = AttemptTimer(timeouts, reminders, streams=True)
        with trio.CancelScope() as scope, timer.bounding(scope):
            ...  # call timer.heard() for each piece of text
    """

    __slots__ = ("_end", "_expected", "_limit", "_reminder", "_reminders", "_scope", "_timeouts", "deadline")

    def __init__(self, timeouts: Timeouts, reminders: Reminders, *, streams: bool) -> None:
        now = trio.current_time()
        self._scope: CancelScope | None = None
        self._reminder: Reminder | None = None
        self._reminders = reminders
        self._timeouts = timeouts
        self._end = now + timeouts.attempt
        self.deadline = self._expect_answer(now, streams=streams)

    def bounding(self, scope: CancelScope) -> Self:
        """Return the context manager in which the scope is cancelled once the deadline has passed."""
        self._scope = scope
        return self

    def __enter__(self) -> Self:
        self._remind()
        return self

    def __exit__(self, *_: object) -> None:
        self._scope = None
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None  # text that comes late sets no other one

    def restart(self, *, streams: bool) -> None:
        """Expect the first text of another deployment; the end of the whole attempt stays."""
        self._move(self._expect_answer(trio.current_time(), streams=streams))

    def heard(self) -> None:
        """Take note of a piece of text."""
        self._move(self._expect("the next piece of the answer", trio.current_time(), self._timeouts.idle))

    def error(self) -> ModelError:
        """Return the error to raise when the deadline has passed."""
        return ModelError(f"{self._expected} did not come within {self._limit:g} s", kind="timeout")

    def _move(self, deadline: float) -> None:
        self.deadline = deadline
        if self._reminder is not None and deadline < self._reminder.due:
            self._reminder.cancel()
            self._remind()

    def _remind(self) -> None:
        self._reminder = self._reminders.add(self.deadline, self._ring)

    def _ring(self) -> None:
        if trio.current_time() < self.deadline:
            self._remind()
        elif self._scope is not None:
            self._scope.cancel()

    def _expect_answer(self, now: float, *, streams: bool) -> float:
        """Note that nothing has come yet, and return the deadline (`trio.current_time`)."""
        if streams:
            return self._expect("the first piece of the answer", now, self._timeouts.first_token)
        return self._expect_whole()

    def _expect_whole(self) -> float:
        self._expected, self._limit = "the whole answer", self._timeouts.attempt
        return self._end

    def _expect(self, expected: str, now: float, seconds: float) -> float:
        """Note what is expected next, and return the deadline (`trio.current_time`)."""
        if now + seconds >= self._end:
            return self._expect_whole()
        self._expected, self._limit = expected, seconds
        return now + seconds
