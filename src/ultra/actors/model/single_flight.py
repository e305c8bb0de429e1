"""Single-flight: equal requests that come while one is under way share its call, mid-stream too.

After Go's ``golang.org/x/sync/singleflight``; streaming and leaving early are what it does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from math import inf
from typing import TYPE_CHECKING

import trio

from ultra._support.log import get_logger
from ultra.errors import LoopUnavailable, UltraError

if TYPE_CHECKING:
    from ultra.errors import ModelError
    from ultra.messages.results import Completion

__all__ = ["Deserted", "Flight", "OnChunk", "OnRetry", "Passenger"]

log = get_logger("ultra.model")

OnChunk = Callable[[str, bool], None]
"""Takes the next piece of text, and whether a text begins with it, for the first time or anew."""

OnRetry = Callable[[int, "ModelError", float], None]
"""Takes the number of the attempt that failed (from 1), its error, and the seconds until the next one."""


class Deserted(UltraError):
    """Nobody wants the answer any more, so the call was cancelled. Nobody is left to see this."""


class Passenger:
    """One request that wants the answer.

    `deadline` is a `trio.current_time`. `listener` hears the text as it comes, if there is one, and
    `on_retry` of the attempts that failed.
    """

    __slots__ = ("deadline", "flight", "has_left", "listener", "on_retry", "told", "wake")

    def __init__(self, deadline: float, listener: OnChunk | None, on_retry: OnRetry | None = None) -> None:
        self.deadline = deadline
        self.listener = listener
        self.on_retry = on_retry
        self.flight: Flight | None = None
        self.has_left = False
        self.told = False
        self.wake: trio.Event | None = None

    def hear(self, text: str, *, begins: bool) -> None:
        """Pass on a piece of text, to a listener that is still there.

        One that raises is heard no more: its fault must not break a call that others share.
        """
        if self.listener is None or self.has_left:
            return
        begins = begins or not self.told
        self.told = True
        try:
            self.listener(text, begins)
        except Exception:  # noqa: BLE001 - whatever it raises
            self.listener = None
            log.write("error", "listener failed", exc_info=True)

    def hear_of_retry(self, attempt: int, error: ModelError, wait: float) -> None:
        """Pass on that another attempt follows, as `hear` passes on text."""
        if self.on_retry is None or self.has_left:
            return
        try:
            self.on_retry(attempt, error, wait)
        except Exception:  # noqa: BLE001 - whatever it raises
            self.on_retry = None
            log.write("error", "listener failed", exc_info=True)

    def leave(self) -> None:
        """Want the answer no longer; whoever waits in `Flight.wait` for this passenger returns."""
        self.has_left = True
        if self.flight is not None:
            self.flight.lose(self)
        if self.wake is not None:
            self.wake.set()


class Flight:
    """One call under way, with its retries: the text so far, and the passengers who want the answer.

    The call runs within `scope`; when the last passenger leaves, that is cancelled. `ended`: there is
    a `completion` or a `failure`, or neither where the call broke off.
    """

    __slots__ = (
        "_passengers",
        "_restart",
        "_retry",
        "_scope",
        "_text",
        "attempts",
        "cached",
        "completion",
        "cost",
        "deserted",
        "ended",
        "failure",
        "first_text_at",
    )

    def __init__(self) -> None:
        self.attempts = 0
        self.first_text_at: float | None = None
        self.cached = False
        self.cost: float | None = None
        self.completion: Completion | None = None
        self.failure: Exception | None = None
        self.ended = False
        self.deserted = False
        self._passengers: dict[Passenger, None] = {}
        self._scope: trio.CancelScope | None = None
        self._text: StringIO | None = None  # one buffer: pieces of their own would take many times the room
        self._restart = False
        self._retry: tuple[int, ModelError, float] | None = None  # attempt, error, time of the next one

    # --- passengers ----------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The latest deadline of those who are aboard (`trio.current_time`)."""
        return max((passenger.deadline for passenger in self._passengers), default=-inf)

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens to the text as it comes."""
        # A list, since most calls have one passenger, and to make a generator costs several times as much.
        return bool([passenger for passenger in self._passengers if passenger.listener is not None])

    @property
    def lost_its_loop(self) -> bool:
        """Whether it failed since the asyncio loop has ended that the client's coroutine ran on."""
        return self.failure is not None and isinstance(self.failure.__cause__, LoopUnavailable)

    def board(self, passenger: Passenger) -> None:
        """One more wants the answer; it hears the text so far at once, then what follows.

        Between two attempts it hears what all are waiting for.
        """
        passenger.flight = self
        passenger.told = False  # what it heard aboard another flight that broke off counts no more
        self._passengers[passenger] = None
        if self._retry is not None:
            attempt, error, due = self._retry
            passenger.hear_of_retry(attempt, error, max(0.0, due - trio.current_time()))
        elif passenger.listener is None:
            return
        elif self.completion is not None:
            passenger.hear(self.completion.content, begins=True)
        elif self._text is not None:
            passenger.hear(self._text.getvalue(), begins=True)

    def lose(self, passenger: Passenger) -> None:
        """One does not want the answer any more; the last one to leave cancels the call."""
        passenger.flight = None
        del self._passengers[passenger]
        if not (self._passengers or self.ended or self.completion is not None):
            self.deserted = True
            if self._scope is not None:
                self._scope.cancel()

    async def wait(self, passenger: Passenger) -> None:
        """Wait until there is an answer, the flight has ended otherwise, or `passenger` has left."""
        if not (self.ended or passenger.has_left or self.completion is not None):
            passenger.wake = trio.Event()
            await passenger.wake.wait()

    # --- the call ------------------------------------------------------------------------------------

    def scope(self, deadline: float = inf) -> trio.CancelScope:
        """A scope for the next part of the call: an attempt, or the wait before one."""
        self._scope = trio.CancelScope(deadline=deadline)
        if self.deserted:
            self._scope.cancel()
        return self._scope

    async def sleep(self, seconds: float) -> None:
        """Wait for the time of the next attempt. Raises `Deserted` if all passengers leave."""
        with self.scope():
            await trio.sleep(seconds)
        self.check()

    def check(self) -> None:
        """Raise `Deserted` if nobody wants the answer any more."""
        if self.deserted:
            raise self.desertion()

    def desertion(self) -> Deserted:
        """What to raise when `scope` was cancelled because nobody wants the answer any more."""
        return Deserted("nobody waits for this answer any more")

    def begin_attempt(self) -> None:
        """What was streamed so far belongs to an attempt that failed: the text will begin anew."""
        self.attempts += 1
        self._retry = None
        self.restart_text()

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """The attempt with this number has failed, and the next one follows in `wait` seconds."""
        self._retry = attempt, error, trio.current_time() + wait
        for passenger in tuple(self._passengers):
            passenger.hear_of_retry(attempt, error, wait)

    def restart_text(self) -> None:
        """What was heard so far counts no more: the text begins anew."""
        if self._text is not None:
            self._text = None
            self._restart = True

    def hear(self, text: str) -> None:
        """A piece of text has come from the stream."""
        if self._text is None:
            self.first_text_at = trio.current_time()
        self._tell(text)

    def land(self, completion: Completion, *, cached: bool = False) -> None:
        """The whole answer is there; listeners get what they have not heard of it."""
        self.completion = completion
        self.cached = cached
        if self._text is not None or self.is_heard:
            self._tell_rest(completion)
        self._wake_passengers()

    def _tell_rest(self, completion: Completion) -> None:
        heard = "" if self._text is None else self._text.getvalue()
        if not completion.content.startswith(heard):
            self._text = None
            self._restart = True
            heard = ""
        if self.is_heard and len(heard) < len(completion.content):
            self._tell(completion.content[len(heard) :])

    def end(self) -> None:
        """Nothing more will come: let those go who wait."""
        self.ended = True
        if self.completion is None:
            self._wake_passengers()

    def _wake_passengers(self) -> None:
        for passenger in self._passengers:
            if passenger.wake is not None:
                passenger.wake.set()

    def _tell(self, text: str) -> None:
        begins, self._restart = self._restart, False
        if self._text is None:
            self._text = StringIO()
        self._text.write(text)
        for passenger in tuple(self._passengers):
            passenger.hear(text, begins=begins)
