"""What a model actor is asked, and what stays beside the message with whoever asks."""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ultra.actors.runtime.message import Message
from ultra.messages.request import ModelRequest
from ultra.messages.results import ModelResponse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.bridge.caller import Caller
    from ultra.errors import ModelError

__all__ = ["Generate", "LocalRequest", "LocalRequests", "ResponseListener"]


class Generate(Message[ModelResponse], frozen=True, kw_only=True):
    """Answer `request`. The reply is a `ModelResponse`; a failure raises `AllAttemptsFailed`.

    A value: it could come from another process. What cannot travel (a listener, the caller's context)
    stays in `LocalRequests` under the same `id`.

    Attributes:
        id: names the request, in this process or another.
        stage: the step that asks; it labels response, events and log lines.
        use_cache: whether an equal request's answer, kept or under way, will do.
        time_left: seconds until the asker stops waiting; no retry starts that could not begin by then.
            None: no bound.
    """

    id: str
    stage: str
    request: ModelRequest
    use_cache: bool = True
    time_left: float | None = None


class ResponseListener(Protocol):
    """Hears how an answer comes about. Both methods return at once."""

    def chunk(self, text: str, *, begins: bool) -> None:
        """Take the next piece of text; with `begins`, what came before counts no more."""

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Take note that attempt number `attempt` (from 1) failed, and the next follows in `wait` seconds."""


class LocalRequest(NamedTuple):
    """What an asker in this process keeps beside its `Generate`.

    `listener` hears the text as it comes; `caller` says on whose loop an async client may run, and whose
    context variables it sees.
    """

    listener: ResponseListener | None = None
    caller: Caller | None = None


_NOTHING = LocalRequest()


class LocalRequests:
    """The requests of this process that are under way, by id: subscribe beside the message.

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
        """Forget what was kept, if anything was."""
        self._known.pop(request_id, None)

    def get(self, request_id: str) -> LocalRequest:
        """Return what is kept for the request; nothing for one of another process."""
        return self._known.get(request_id, _NOTHING)

    @contextmanager
    def subscribed(self, request_id: str, local: LocalRequest) -> Iterator[None]:
        """Keep `local` inside the block."""
        self.add(request_id, local)
        try:
            yield
        finally:
            self.discard(request_id)


def seconds(deadline: float, now: float) -> float | None:
    """Return how many seconds are left until `deadline`; None where it is infinite."""
    return None if deadline == inf else max(0.0, deadline - now)
