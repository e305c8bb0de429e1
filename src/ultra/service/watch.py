"""What is counted and logged of each request, beside its answer."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final

from structlog.contextvars import bind_contextvars, bound_contextvars, unbind_contextvars

from ultra._support.async_library import library
from ultra._support.histogram import Histogram, HistogramCounts
from ultra._support.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ultra.messages.observers import ObserverGroup
    from ultra.service.http import Request

__all__ = ["RequestCounters", "WatchedRequest"]

KEYS: Final = 256
"""How many keys are told apart; an authenticator of one's own may know any number of names."""

OTHERS: Final = "other"

_HUNG_UP: Final = 499
"""The status of requests whose clients were gone before the reply, as nginx has it."""

_log = get_logger("ultra.service")


class WatchedRequest:
    """One request: `status` of its reply, once there is one, and the name of the `key` that asks."""

    def __init__(self, route: str) -> None:
        self.route = route
        self.status = _HUNG_UP
        self.key = ""

    def asked_by(self, key: str) -> None:
        """Note whose key it is; log lines name it from now on, those of the run, too."""
        self.key = key
        if key:
            bind_contextvars(key=key)


class RequestCounters:
    """Counts the requests of one service since it was made. `route_of` names the address of a path."""

    def __init__(self, route_of: Callable[[str], str]) -> None:
        self.active = 0
        self._route_of = route_of
        self._requests: dict[tuple[str, int, str], int] = {}
        self._seconds: dict[str, Histogram] = {}
        self._keys: set[str] = set()

    @contextmanager
    def watching(self, request: Request, name: str, observers: ObserverGroup) -> Iterator[WatchedRequest]:
        """Count a request that is answered in the block; what is logged in it has its `name`."""
        watched, method = WatchedRequest(self._route_of(request.path)), request.method
        now = library().current_time
        began = now()
        self.active += 1
        with (
            bound_contextvars(request_id=name),
            observers.received(request.headers) if observers else nullcontext(),
        ):
            del request  # with its body
            try:
                yield watched
            finally:
                self.active -= 1
                seconds = now() - began
                self._count(watched, seconds)
                _log.info(
                    "request ended",
                    method=method,
                    route=watched.route,
                    status=watched.status,
                    seconds=round(seconds, 3),
                )
                if watched.key:  # a server may use a task for many requests
                    unbind_contextvars("key")

    def _count(self, watched: WatchedRequest, seconds: float) -> None:
        key = watched.key
        if key not in self._keys and len(self._keys) >= KEYS:
            key = OTHERS
        self._keys.add(key)
        label = watched.route, watched.status, key
        self._requests[label] = self._requests.get(label, 0) + 1
        histogram = self._seconds.get(watched.route)
        if histogram is None:
            histogram = self._seconds[watched.route] = Histogram()
        histogram.add(seconds)

    def requests(self) -> Mapping[tuple[str, int, str], int]:
        """Return how many requests there were, by address, status and name of the key."""
        return dict(self._requests)

    def seconds(self) -> Mapping[str, HistogramCounts]:
        """Return how long they took, by address."""
        return {route: each.snapshot() for route, each in self._seconds.items()}
