"""What the calls that are made for one answer use: failed ones, broken ones and lost hedges, too."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Protocol, Self

from msgspec import Struct

from ultra.clients.plain_values import plain_usage
from ultra.errors import ModelError
from ultra.messages.results import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.actors.model.metrics import MetricsRecorder
    from ultra.clients.pricing import Price
    from ultra.messages.results import Completion

__all__ = ["NOTHING_SPENT", "CountedCall", "Spending", "Spent"]


class Spent(Struct, frozen=True, gc=False):
    """Tokens, and their dollars; None: none were counted, or there is no price."""

    usage: Usage | None = None
    cost: float | None = None

    def plus(self, other: Spent) -> Spent:
        """Return both together."""
        usage = other.usage if self.usage is None else self.usage.plus(other.usage)
        cost = self.cost
        if other.cost is not None:
            cost = other.cost if cost is None else cost + other.cost
        return Spent(usage, cost)


NOTHING_SPENT = Spent()


class Payer(Protocol):
    """Who is told what the calls for an answer have used so far."""

    def spend(self, spent: Spent) -> None:
        """Take the sum of all calls, those under way included."""


class Spending:
    """The tokens and the dollars of all calls that are made for one answer, as far as they are counted.

    Args:
        price: of the model; None: it has none.
        metrics: where each call counts when it has ended.
        payer: is told the sum so far when it has changed.
    """

    __slots__ = ("_ended", "_metrics", "_payer", "_price", "_under_way")

    def __init__(self, price: Price | None, metrics: MetricsRecorder, payer: Payer) -> None:
        self._price = price
        self._metrics = metrics
        self._payer = payer
        self._ended: tuple[Usage, ...] = ()
        self._under_way: dict[CountedCall, Usage] = {}

    def call(self) -> CountedCall:
        """Return a context manager in which one call is made; at its end, however it ends, it counts."""
        return CountedCall(self)

    def lost(self, answer: Completion) -> Usage | None:
        """Return the tokens of the calls that have ended but for the one that gave this answer."""
        lost = list(self._ended)
        for number, usage in enumerate(lost):
            # By identity, and only once: a client may give the same counts, in the same object, each time.
            if usage is answer.usage:
                del lost[number]
                break
        return _sum(lost)

    def seen(self, call: CountedCall, usage: Usage) -> None:
        """Note what a call has used so far."""
        self._under_way[call] = usage
        self._tell()

    def ended(self, call: CountedCall, usage: Usage | None) -> None:
        """Note what a call has used in all; None: as much as was seen."""
        seen = self._under_way.pop(call, None)
        if usage is None or (usage.input is None and usage.output is None):
            usage = seen
        if usage is None:
            return
        self._ended += (usage,)
        self._metrics.used(usage, self._cost(usage))
        self._tell()

    def _tell(self) -> None:
        usages = [*self._ended, *self._under_way.values()]
        cost = None if self._price is None else fsum(map(self._price.of, usages))
        self._payer.spend(Spent(_sum(usages), cost))

    def _cost(self, usage: Usage) -> float | None:
        return None if self._price is None else self._price.of(usage)


class CountedCall:
    """One call of a client, while it is under way."""

    __slots__ = ("_spending", "_usage")

    def __init__(self, spending: Spending) -> None:
        self._spending = spending
        self._usage: Usage | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        told = plain_usage(error.usage) if isinstance(error, ModelError) else None
        self._spending.ended(self, told if self._usage is None else self._usage)

    def seen(self, usage: Usage) -> None:
        """Note what the provider has counted so far."""
        self._spending.seen(self, usage)

    def answered(self, completion: Completion) -> None:
        """Note what the answer says that it has used."""
        self._usage = completion.usage


def _sum(usages: Iterable[Usage]) -> Usage | None:
    total: Usage | None = None
    for usage in usages:
        total = usage if total is None else total.plus(usage)
    return total
