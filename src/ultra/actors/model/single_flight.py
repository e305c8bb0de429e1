"""Single-flight: equal requests that come while a call is under way share that call.

A request that joins in the middle of a stream gets the text so far first. After Go's
``golang.org/x/sync/singleflight``, which has neither streams nor waiters that leave early.
"""

from __future__ import annotations

from io import StringIO
from math import inf
from typing import TYPE_CHECKING, Final, Literal, Protocol

import trio

from ultra._support.log import current_scope, get_logger, log_scope
from ultra.actors.model.spending import NOTHING_SPENT
from ultra.errors import LoopUnavailable, UltraError
from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import JoinedReasoning, reasoning_pieces

if TYPE_CHECKING:
    from ultra.actors.model.messages import LocalRequest
    from ultra.actors.model.spending import Spent
    from ultra.errors import ModelError
    from ultra.messages import Completion, Usage

__all__ = ["Abandoned", "SharedCall", "Waiter"]

log = get_logger("ultra.model")


class Abandoned(UltraError):
    """No request waits for the answer any more, so the call was cancelled. No caller gets this error."""


class Waiter:
    """One request that waits for the answer of a shared call.

    `deadline` is a `trio.current_time`. The listener of `local`, if there is one, gets text and reasoning
    while they are written, and is told of failed attempts. A listener that raises is dropped, and the error
    is logged, since other requests share the call. `local.spent` is kept at what the answer has cost so far.
    """

    __slots__ = (
        "attempts",
        "call",
        "deadline",
        "has_left",
        "is_late",
        "listener",
        "local",
        "reads",
        "scope",
        "spent_before",
        "text_begins",
        "thoughts",
        "wake",
    )

    def __init__(self, deadline: float, local: LocalRequest) -> None:
        self.deadline = deadline
        self.scope = current_scope()
        self.is_late = False
        self.attempts = 0
        self.local = local
        self.listener = local.listener
        self.spent_before = NOTHING_SPENT  # in calls that were broken off
        self.call: SharedCall | None = None
        self.reads: trio.CancelScope | None = None  # in which its slot is read, ahead of a call
        self.has_left = False
        self.text_begins = True  # with the next piece; what was heard before is void
        self.thoughts: Literal["none", "heard", "void"] = "none"
        self.wake: trio.Event | None = None

    def void_what_was_heard(self) -> None:
        """Take what was heard so far as void."""
        self.text_begins = True
        if self.thoughts == "heard":
            self.thoughts = "void"

    def hear(self, text: str) -> None:
        """Pass a piece of text to the listener, if there is one."""
        if self.listener is None or self.has_left:
            return
        if self.thoughts == "void":
            self.hear_reasoning(_NOTHING)
        begins, self.text_begins = self.text_begins, False
        try:
            self.listener.chunk(text, begins=begins)
        except Exception as error:  # noqa: BLE001 - logged there
            self._drop_listener(error)

    def hear_reasoning(self, part: ReasoningPart) -> None:
        """Pass a piece of reasoning to the listener, if there is one."""
        if self.listener is None or self.has_left:
            return
        before, self.thoughts = self.thoughts, "heard"
        try:
            self.listener.reasoning(part, begins=before != "heard")
        except Exception as error:  # noqa: BLE001 - logged there
            self._drop_listener(error)

    def hear_the_end(self) -> None:
        """Tell the listener that reasoning is void, if no other has followed it."""
        if self.thoughts == "void":
            self.hear_reasoning(_NOTHING)

    def hear_of_retry(self, attempt: int, error: ModelError, wait: float) -> None:
        """Tell the listener that another attempt follows."""
        if self.listener is None or self.has_left:
            return
        try:
            self.listener.retrying(attempt, error, wait)
        except Exception as failure:  # noqa: BLE001 - logged there
            self._drop_listener(failure)

    def spend(self, spent: Spent) -> None:
        """Keep what the call has used so far."""
        if not self.has_left:
            self.local.spent = self.spent_before.plus(spent)

    def _drop_listener(self, error: Exception) -> None:
        self.listener = None
        with log_scope(self.scope):  # the call may be that of another request
            log.error("listener failed", exc_info=error)

    def leave(self, *, late: bool = False) -> None:
        """Stop waiting; `SharedCall.wait` returns for this waiter. `late`: since its time is over."""
        self.has_left = True
        self.is_late = self.is_late or late
        if self.call is not None:
            self.attempts = self.call.attempts
            self.call.remove(self)
        if self.reads is not None:
            self.reads.cancel()
        if self.wake is not None:
            self.wake.set()


_NOTHING: Final = ReasoningPart()


class CallMaker(Protocol):
    """What makes a shared call."""

    def given_up_late(self) -> None:
        """Take note that nobody waits for the answer any more, since it is late."""


class SharedCall:
    """One call with its retries, while it is under way: the text so far, and who waits for the answer.

    The handler that makes the call runs each part of it within `scope`. When the last waiter leaves, that
    scope is cancelled; `maker` is told then, if the answer was late for any of them. After
    `end` there is a `completion` or a `failure`; there is neither if the call was
    broken off. ::

        shared = SharedCall()
        shared.add(waiter)
        shared.hear("Par")  # all waiters get it, and later ones, too
        shared.complete(completion)
    """

    __slots__ = (
        "_retry",
        "_scope",
        "_text",
        "_thoughts",
        "_waiters",
        "abandoned",
        "attempts",
        "cached",
        "completion",
        "ended",
        "failure",
        "first_text_at",
        "given_up_late",
        "lost_usage",
        "maker",
        "spent",
    )

    def __init__(self) -> None:
        self.attempts = 0
        self.first_text_at: float | None = None
        self.cached = False
        self.spent = NOTHING_SPENT
        self.lost_usage: Usage | None = None
        self.completion: Completion | None = None
        self.failure: Exception | None = None
        self.ended = False
        self.abandoned = False
        self.given_up_late = False
        self.maker: CallMaker | None = None
        self._waiters: dict[Waiter, None] = {}
        self._scope: trio.CancelScope | None = None
        self._text: StringIO | None = None  # one buffer: a list of pieces would take many times the memory
        self._thoughts: JoinedReasoning | None = None
        self._retry: tuple[int, ModelError, float] | None = None  # attempt, error, time of the next one

    # --- waiters -------------------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """The latest deadline of the waiters (`trio.current_time`)."""
        return max((waiter.deadline for waiter in self._waiters), default=-inf)

    @property
    def is_heard(self) -> bool:
        """Whether any waiter has a listener."""
        for waiter in self._waiters:  # noqa: SIM110 - in each call, and a generator takes longer
            if waiter.listener is not None:
                return True
        return False

    @property
    def waits_after(self) -> ModelError | None:
        """The error of the latest attempt, while the call waits for the next one."""
        return None if self._retry is None else self._retry[1]

    @property
    def lost_its_loop(self) -> bool:
        """Whether it failed because the asyncio loop of its caller ended, on which the client ran."""
        return self.failure is not None and isinstance(self.failure.__cause__, LoopUnavailable)

    def add(self, waiter: Waiter) -> None:
        """Add a waiter, which gets reasoning and text so far at once, and then what follows.

        Between two attempts it is told of the retry for which all wait.
        """
        waiter.call = self
        waiter.void_what_was_heard()  # text of an earlier call that was broken off is void
        self._waiters[waiter] = None
        if self.spent.usage is not None:
            waiter.spend(self.spent)
        if self._retry is not None:
            attempt, error, due = self._retry
            waiter.hear_of_retry(attempt, error, max(0.0, due - trio.current_time()))
            return
        for part in self._reasoning_so_far():
            waiter.hear_reasoning(part)
        if self.completion is not None:
            waiter.hear(self.completion.content)
        elif self._text is not None:
            waiter.hear(self._text.getvalue())

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter that has left; if it was the last one, cancel the call."""
        waiter.call = None
        del self._waiters[waiter]
        self.given_up_late = self.given_up_late or waiter.is_late
        self._forget_failure()
        if not (self._waiters or self.ended or self.completion is not None):
            self.abandoned = True
            if self._scope is not None:
                self._scope.cancel()
            if self.given_up_late and self.maker is not None:
                self.maker.given_up_late()

    async def wait(self, waiter: Waiter) -> None:
        """Wait until there is an answer, the call has ended, or `waiter` has left."""
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

    def check(self) -> None:
        """Raise `Abandoned` if no waiter is left."""
        if self.abandoned:
            raise Abandoned("no request waits for this answer any more")

    async def sleep(self, seconds: float) -> None:
        """Wait before the next attempt; raise `Abandoned` if all waiters leave."""
        with self.scope():
            await trio.sleep(seconds)
        self.check()

    def start_attempt(self) -> None:
        """Count another attempt; the text of the last one is void."""
        self.attempts += 1
        self._retry = None
        self.restart_text()

    def spend(self, spent: Spent) -> None:
        """Take what all attempts have used so far, and tell all waiters."""
        self.spent = spent
        for waiter in self._waiters:
            waiter.spend(spent)

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Tell all waiters that this attempt has failed, and that the next follows in `wait` seconds."""
        self._retry = attempt, error, trio.current_time() + wait
        for waiter in tuple(self._waiters):
            waiter.hear_of_retry(attempt, error, wait)

    def restart_text(self) -> None:
        """Let text and reasoning start from the beginning: what there is so far is void."""
        if self._text is None and self._thoughts is None:
            return
        self._text = self._thoughts = None
        for waiter in self._waiters:
            waiter.void_what_was_heard()

    def hear(self, text: str) -> None:
        """Take a piece of text from the stream, and pass it to all waiters."""
        if self._text is None:
            self.first_text_at = trio.current_time()
        self._tell(text)

    def hear_reasoning(self, part: ReasoningPart) -> None:
        """Take a piece of reasoning from the stream, and pass it to all waiters."""
        if self._thoughts is None:
            self._thoughts = JoinedReasoning()
        self._thoughts.add(part)
        for waiter in tuple(self._waiters):
            waiter.hear_reasoning(part)

    def complete(self, completion: Completion, *, cached: bool = False) -> None:
        """Take the whole answer; listeners get what they have not got of it."""
        self.completion = completion
        self.cached = cached
        if self._text is not None or self._thoughts is not None or self.is_heard:
            self._tell_rest(completion)
        self._wake_waiters()

    def end(self) -> None:
        """End the call, and wake the waiters if there is no answer."""
        self.ended = True
        if self.completion is None:
            self._wake_waiters()
        self._forget_failure()

    def _forget_failure(self) -> None:
        if self.ended and not self._waiters:
            # Nobody will look at it again; and it refers to itself: traceback, frame, this object.
            self.failure = self._retry = None

    def _tell_rest(self, completion: Completion) -> None:
        heard = "" if self._text is None else self._text.getvalue()
        if not completion.content.startswith(heard):
            self.restart_text()
            heard = ""
        if not self.is_heard:
            return
        if self._thoughts is None:
            for part in reasoning_pieces(completion):
                self.hear_reasoning(part)
        if len(heard) < len(completion.content):
            self._tell(completion.content[len(heard) :])
        for waiter in tuple(self._waiters):
            waiter.hear_the_end()

    def _reasoning_so_far(self) -> list[ReasoningPart]:
        if self._thoughts is not None:
            return self._thoughts.parts()
        return [] if self.completion is None else reasoning_pieces(self.completion)

    def _wake_waiters(self) -> None:
        for waiter in self._waiters:
            if waiter.wake is not None:
                waiter.wake.set()

    def _tell(self, text: str) -> None:
        if self._text is None:
            self._text = StringIO()
        self._text.write(text)
        for waiter in tuple(self._waiters):
            waiter.hear(text)
