"""What the processes of one service share of each model: its rates, its pauses, its circuit, its calls.

Each process has an object of its own, a `SharedModels`, which is a view of the same state. What a process
tells reaches the others by itself. So a call waits for the store only to take its place among the calls of
all, where its model has a rate, and to learn whether another process makes the very same call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages import Completion
    from ultra.stores.contracts import TaskStatus

__all__ = [
    "CALL_SECONDS",
    "FlightKey",
    "Listener",
    "ModelNews",
    "ModelRates",
    "Reservation",
    "SharedModels",
    "SharedUnavailable",
    "buckets_of",
]

CALL_SECONDS: Final = 10.0
"""How long the lease of a call lasts that nobody renews: its process has died."""

FlightKey: TypeAlias = bytes
"""The digest of a model and what it is asked for whom; it tells nothing about the prompt."""


class SharedUnavailable(Exception):
    """The store cannot be read or changed now; the message says why."""


class ModelRates(Struct, frozen=True):
    """The rates of one model: token buckets that hold the units of a minute. None: no limit."""

    requests_per_minute: float | None
    tokens_per_minute: float | None


def buckets_of(rates: ModelRates) -> list[tuple[str, float, float]]:
    """Return the buckets of these rates: kind, what it holds, units a minute. Each call needs one request."""
    requests, tokens = rates.requests_per_minute, rates.tokens_per_minute
    found = []
    if requests is not None:
        found.append(("requests", max(1.0, requests), requests))
    if tokens is not None:
        found.append(("tokens", tokens, tokens))
    return found


class Reservation(Struct, frozen=True, kw_only=True):
    """What a call has taken of the rates of its model.

    Attributes:
        wait: seconds from now until the call may start, so that all calls together keep to the rates.
        taken: whether it has taken anything: not, where it would have to wait for longer than it may.
        at: when, by the clock of the store; `SharedModels.settle` needs it.
        left: requests and tokens that are there after it; infinite where there is no limit.
        replicas: how many processes have been there within the last minute, this one included.
    """

    wait: float
    taken: bool
    at: float
    left: tuple[float, float]
    replicas: int


class ModelNews(Struct, frozen=True, kw_only=True):
    """What has become of a model in one process, for the others.

    `paused`: its provider wants no call for so many seconds. `opened`: its circuit is open for so long.
    `closed`: it is closed again.
    """

    model: str
    kind: Literal["paused", "opened", "closed"]
    seconds: float = 0.0


Listener: TypeAlias = "Callable[[ModelNews], None]"


@runtime_checkable
class SharedModels(Protocol):
    """The view that one process has of what all share. On trio, in one trio run at a time.

    Only while `keep_connected` runs is anything told or heard, and only then are calls leased: what `tell`,
    `settle` and `finish` take is passed on by that task, and lost without it.
    """

    async def reserve(
        self,
        model: str,
        rates: ModelRates,
        tokens: float,
        max_wait: float,
        *,
        owed: tuple[float, float] = (0.0, 0.0),
    ) -> Reservation:
        """Take one request, and so many tokens, of the rates of a model, first come, first served.

        What is not there yet is taken in advance, and the call waits for it by itself. A process should have
        one such call of each model at a time: then none is served less than others. More tokens than the
        bucket holds are all that it holds. Cancelled, it has taken that or nothing.

        `owed` are requests and tokens that were used without asking, while the store did not work. They are
        taken first, and in any case. With a `max_wait` below 0, nothing else is.

        Raises:
            SharedUnavailable: nothing was taken, as far as is known.
        """
        ...

    def settle(
        self, model: str, rates: ModelRates, at: float, *, requests: float = 0.0, tokens: float = 0.0
    ) -> None:
        """Correct, soon, what a reservation has taken: by what it used more, or, below 0, less.

        Nothing is returned to a bucket that was full meanwhile: then more would be used than it allows.
        """
        ...

    def tell(self, news: ModelNews) -> None:
        """Tell all other processes, soon. Those that start later hear of it, too, as long as it holds."""
        ...

    def listen(self, model: str, listener: Listener) -> Callable[[], None]:
        """Call `listener` with what others tell of a model; return what ends that."""
        ...

    async def begin(self, key: FlightKey) -> bool:
        """Return whether this process may make a call: no other one is making it. Then `finish` it.

        A call is leased for `CALL_SECONDS`, and the lease is renewed meanwhile.

        Raises:
            SharedUnavailable: it is not known.
        """
        ...

    def finish(self, key: FlightKey, answer: Completion | None) -> None:
        """End a call, soon, and leave its answer for those that wait for it; None: there is none for them."""
        ...

    async def wait(self, key: FlightKey) -> Completion | None:
        """Wait until the process that makes a call has finished it or died, and return its answer.

        Raises:
            SharedUnavailable: it is not known.
        """
        ...

    async def keep_connected(self, *, task_status: TaskStatus | None = None) -> None:
        """Pass on what is told, and hear what others tell, until cancelled; see `KeepsConnections`."""
        ...

    async def aclose(self) -> None:
        """Release what is held. May be called again."""
        ...
