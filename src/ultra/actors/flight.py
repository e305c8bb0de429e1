"""Single-flight: equal requests that come while one is under way share its call, mid-stream too.

After Go's ``golang.org/x/sync/singleflight``; streaming and leaving early are what it does not have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ultra.messages import Completion

__all__ = ["Flight", "OnChunk"]

OnChunk = Callable[[str, bool], None]
"""Takes the next piece of text, and whether the text begins anew with it."""


class Flight:
    """One call under way: the text so far, who listens, and how many still want the answer.

    `deadline` (`trio.current_time`) is the latest of those who joined. `scope` is cancelled when nobody
    is left.
    """

    def __init__(self) -> None:
        self.deadline = -float("inf")
        self.scope = trio.CancelScope()
        self.attempts = 0
        self.first_text_at: float | None = None
        self.completion: Completion | None = None
        self.error: Exception | None = None
        self.landed = trio.Event()
        self._passengers = 0
        self._listeners: list[OnChunk] = []
        self._text: list[str] = []
        self._restart = False

    @property
    def is_heard(self) -> bool:
        """Whether somebody listens to the text as it comes."""
        return bool(self._listeners)

    def board(self, deadline: float, listener: OnChunk | None) -> None:
        """One more wants the answer; `listener` hears the text so far at once, then what follows."""
        self._passengers += 1
        self.deadline = max(self.deadline, deadline)
        if listener is not None:
            self._listeners.append(listener)
            if self._text:
                listener("".join(self._text), False)  # noqa: FBT003 - the listener's own signature

    def leave(self, listener: OnChunk | None) -> None:
        """One does not want the answer any more; the last one to leave cancels the call."""
        self._passengers -= 1
        if listener is not None:
            self._listeners.remove(listener)
        if self._passengers == 0:
            self.scope.cancel()

    def begin_attempt(self) -> None:
        """What was streamed so far belongs to an attempt that failed: the text will begin anew."""
        self.attempts += 1
        if self._text:
            self._text.clear()
            self._restart = True

    def hear(self, text: str) -> None:
        """A piece of text has come from the stream."""
        if self.first_text_at is None or self._restart:
            self.first_text_at = trio.current_time()
        self._tell(text)

    def land(self, completion: Completion) -> None:
        """The whole answer is there; listeners get what they have not heard of it."""
        heard = "".join(self._text)
        if not completion.content.startswith(heard):
            self._text.clear()
            self._restart = True
            self._tell(completion.content)
        elif len(heard) < len(completion.content):
            self._tell(completion.content[len(heard) :])
        self.completion = completion

    def _tell(self, text: str) -> None:
        restart, self._restart = self._restart, False
        self._text.append(text)
        for listener in tuple(self._listeners):
            listener(text, restart)
