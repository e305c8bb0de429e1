"""Single-flight: equal requests that come while one is under way share its call, mid-stream too.

After Go's ``golang.org/x/sync/singleflight``, which has neither streaming nor waiters that leave early.
"""

from __future__ import annotations

from io import StringIO
from math import inf
from typing import TYPE_CHECKING

import trio

from ultra._support.log import get_logger
from ultra.errors import LoopUnavailable, UltraError

if TYPE_CHECKING:
    from ultra.actors.model.messages import ResponseListener
    from ultra.errors import ModelError
    from ultra.messages import Completion

__all__ = ["Abandoned", "SharedCall", "Waiter"]

log = get_logger("ultra.model")


class Abandoned(UltraError):
    """Nobody waits for the answer any more, so the call was cancelled. Nobody is left to see this."""


class Waiter:
    """One request that waits for the answer of a shared call.

    `deadline` is a `trio.current_time`. `listener`, if there is one, hears the text as it comes and of
    attempts that failed. One that raises hears no more: its fault must not break a call that others share.
    """

    __slots__ = ("call", "deadline", "has_left", "heard_text", "listener", "wake")

    def __init__(self, deadline: float = inf, listener: ResponseListener | None = None) -> None:
        self.deadline = deadline
        self.listener = listener
        self.call: SharedCall | None = None
        self.has_left = False
        self.heard_text = False
        self.wake: trio.Event | None = None

    def hear(self, text: str, *, begins: bool) -> None:
        """Pass a piece of text on to the listener, if it is still there."""
        if self.listener is None or self.has_left:
            return
        begins = begins or not self.heard_text
        self.heard_text = True
        try:
            self.listener.chunk(text, begins=begins)
        except Exception:
            self.listener = None
            log.exception("listener failed")

    def hear_of_retry(self, attempt: int, error: ModelError, wait: float) -> None:
        """Pass on that another attempt follows."""
        if self.listener is None or self.has_left:
            return
        try:
            self.listener.retrying(attempt, error, wait)
        except Exception:
            self.listener = None
            log.exception("listener failed")

    def leave(self) -> None:
        """Stop waiting; `SharedCall.wait` returns for this waiter."""
        self.has_left = True
        if self.call is not None:
            self.call.remove(self)
        if self.wake is not None:
            self.wake.set()


class SharedCall:
    """One call under way, retries included: the text so far, and the waiters who want the answer.

    Each part of the call runs within `scope`; when the last waiter leaves, that is cancelled. `ended`:
    there is a `completion` or a `failure`, or neither where the call broke off.
    """

    __slots__ = (
        "_restart",
        "_retry",
        "_scope",
        "_text",
        "_waiters",
        "abandoned",
        "attempts",
        "cached",
        "completion",
        "cost",
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
        self.abandoned = False
        self._waiters: dict[Waiter, None] = {}
        self._scope: trio.CancelScope | None = None
        self._text: StringIO | None = None  # one buffer: pieces of their own would take many times the room
        self._restart = False
        self._retry: tuple[int, ModelError, float] | None = None  # attempt, error, time of the next one

    # --- waiters -------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The latest deadline of the waiters (`trio.current_time`)."""
        return max((waiter.deadline for waiter in self._waiters), default=-inf)

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens to the text as it comes."""
        return any(waiter.listener is not None for waiter in self._waiters)

    @property
    def lost_its_loop(self) -> bool:
        """Whether it failed because the asyncio loop ended on which the client's coroutine ran."""
        return self.failure is not None and isinstance(self.failure.__cause__, LoopUnavailable)

    def add(self, waiter: Waiter) -> None:
        """Add a waiter; it hears the text so far at once, then what follows.

        Between two attempts it hears what all are waiting for.
        """
        waiter.call = self
        waiter.heard_text = False  # what it heard of another call that broke off counts no more
        self._waiters[waiter] = None
        if self._retry is not None:
            attempt, error, due = self._retry
            waiter.hear_of_retry(attempt, error, max(0.0, due - trio.current_time()))
        elif self.completion is not None:
            waiter.hear(self.completion.content, begins=True)
        elif self._text is not None:
            waiter.hear(self._text.getvalue(), begins=True)

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter that has left; without any, the call is cancelled."""
        waiter.call = None
        del self._waiters[waiter]
        if not (self._waiters or self.ended or self.completion is not None):
            self.abandoned = True
            if self._scope is not None:
                self._scope.cancel()

    async def wait(self, waiter: Waiter) -> None:
        """Wait until there is an answer, the call has ended without one, or `waiter` has left."""
        if not (self.ended or waiter.has_left or self.completion is not None):
            waiter.wake = trio.Event()
            await waiter.wake.wait()

    # --- the call ------------------------------------------------------------------------------------

    def scope(self, deadline: float = inf) -> trio.CancelScope:
        """Return the scope for the next part of the call: an attempt, or the wait before one."""
        self._scope = trio.CancelScope(deadline=deadline)
        if self.abandoned:
            self._scope.cancel()
        return self._scope

    async def sleep(self, seconds: float) -> None:
        """Wait before the next attempt. Raises `Abandoned` if all waiters leave."""
        with self.scope():
            await trio.sleep(seconds)
        self.check()

    def check(self) -> None:
        """Raise `Abandoned` if nobody waits any more."""
        if self.abandoned:
            raise Abandoned("nobody waits for this answer any more")

    def start_attempt(self) -> None:
        """Count another attempt; what was streamed by the last one counts no more."""
        self.attempts += 1
        self._retry = None
        self.restart_text()

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Tell the waiters that this attempt has failed, and that the next follows in `wait` seconds."""
        self._retry = attempt, error, trio.current_time() + wait
        for waiter in tuple(self._waiters):
            waiter.hear_of_retry(attempt, error, wait)

    def restart_text(self) -> None:
        """Let the text start from the beginning: what was heard so far counts no more."""
        if self._text is not None:
            self._text = None
            self._restart = True

    def hear(self, text: str) -> None:
        """Take a piece of text from the stream."""
        if self._text is None:
            self.first_text_at = trio.current_time()
        self._tell(text)

    def complete(self, completion: Completion, *, cached: bool = False) -> None:
        """Take the whole answer; listeners hear what they have not heard of it."""
        self.completion = completion
        self.cached = cached
        if self._text is not None or self.is_heard:
            self._tell_rest(completion)
        self._wake_waiters()

    def end(self) -> None:
        """Nothing more will come: let the waiters go."""
        self.ended = True
        if self.completion is None:
            self._wake_waiters()

    def _tell_rest(self, completion: Completion) -> None:
        heard = "" if self._text is None else self._text.getvalue()
        if not completion.content.startswith(heard):
            self._text = None
            self._restart = True
            heard = ""
        if self.is_heard and len(heard) < len(completion.content):
            self._tell(completion.content[len(heard) :])

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if waiter.wake is not None:
                waiter.wake.set()

    def _tell(self, text: str) -> None:
        begins, self._restart = self._restart, False
        if self._text is None:
            self._text = StringIO()
        self._text.write(text)
        for waiter in tuple(self._waiters):
            waiter.hear(text, begins=begins)
