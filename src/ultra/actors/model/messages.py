"""The message to a model actor, and the local objects of a request, which stay with the asker."""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Protocol

import trio

from ultra.actors.model.spending import NOTHING_SPENT
from ultra.actors.runtime.message import Message
from ultra.messages.request import ModelRequest
from ultra.messages.results import ModelResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.actors.model.spending import Spent
    from ultra.bridge.caller import Caller
    from ultra.errors import ModelError
    from ultra.messages.chat import ReasoningPart

__all__ = [
    "AnswerSlot",
    "Generate",
    "LocalRequest",
    "LocalRequests",
    "ResponseListener",
    "seconds_until",
]


class Generate(Message[ModelResponse], frozen=True, kw_only=True, gc=False):
    """Ask for the answer to `request`. The reply is a `ModelResponse`; a failure is `AllAttemptsFailed`.

    A value, which could come from another process. What is none (a listener, the caller's context) stays
    in `LocalRequests` under the same `id`.

    Attributes:
        id: the name of the request, unique in all processes.
        run_id: the run that asks, which log lines name; None: the request is none of a run.
        stage: the step that asks; response, events and log lines name it.
        use_cache: whether the answer of an equal request may be used, from the cache or from a call that
            is under way.
        scope: for whom the answer is; only requests of the same scope share answers and calls.
        time_left: seconds until the asker stops waiting; no retry starts later. None: no bound.
    """

    id: str
    run_id: str | None = None
    stage: str
    request: ModelRequest
    use_cache: bool = True
    scope: str | None = None
    time_left: float | None = None


class ResponseListener(Protocol):
    """Gets the text of an answer while it is written, and its reasoning. All methods must return at once."""

    def chunk(self, text: str, *, begins: bool) -> None:
        """Take the next piece of text; with `begins`, the text before it is void."""

    def reasoning(self, part: ReasoningPart, *, begins: bool) -> None:
        """Take the next piece of reasoning, likewise; with `begins` it may be empty."""

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Take note that this attempt (from 1) has failed, and that the next follows in `wait` seconds."""


class AnswerSlot(Protocol):
    """Where one answer of a run is kept, so that it need not be paid twice."""

    async def kept(self) -> ModelResponse | None:
        """Return the answer that was given to this already; None: there is none."""

    async def keep(self, response: ModelResponse) -> None:
        """Keep the answer; it goes to the asker only afterwards. Cancelled, it is kept all the same."""


class LocalRequest:
    """What an asker in this process keeps for its `Generate`.

    Attributes:
        listener: gets the text while it is written.
        caller: says on which asyncio loop an async client may run, and which context variables it sees.
        deadline: when the asker stops waiting because the answer is late (`trio.current_time`); if it stops
            before, the answer is needless. None: as `Generate.time_left` says.
        spent: what the calls have used so far; an asker that gives up gets no reply that says it.
        attempts: how often the client had been called when the asker stopped waiting.
        slot: where the answer is kept, and may be already; None: nowhere.
    """

    __slots__ = ("attempts", "caller", "deadline", "listener", "slot", "spent")

    def __init__(
        self,
        listener: ResponseListener | None = None,
        caller: Caller | None = None,
        deadline: float | None = None,
        slot: AnswerSlot | None = None,
    ) -> None:
        self.slot = slot
        self.spent: Spent = NOTHING_SPENT
        self.listener = listener
        self.caller = caller
        self.deadline = deadline
        self.attempts = 0


class LocalRequests:
    """The requests of this process that are under way, by id.

    ::

        with requests.subscribed(message.id, LocalRequest(listener, caller)):
            response = await ref.ask(message)
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, LocalRequest] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, request_id: str, local: LocalRequest) -> None:
        """Keep `local` until `discard`."""
        self._known[request_id] = local

    def discard(self, request_id: str) -> None:
        """Remove what was kept, if there is anything."""
        self._known.pop(request_id, None)

    def get(self, request_id: str) -> LocalRequest:
        """Return what is kept for the request; for one of another process, an empty `LocalRequest`."""
        return self._known.get(request_id) or LocalRequest()

    @contextmanager
    def subscribed(self, request_id: str, local: LocalRequest) -> Iterator[None]:
        """Keep `local` inside the block."""
        self.add(request_id, local)
        try:
            yield
        finally:
            self.discard(request_id)


def seconds_until(deadline: float) -> float | None:
    """Return the seconds until `deadline` (`trio.current_time`), 0 if it is over; None: it is infinite."""
    return None if deadline == inf else max(0.0, deadline - trio.current_time())
