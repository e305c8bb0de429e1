"""What calls cost: prices per million tokens, in US dollars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.checks import check_count, check_number, shown
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.messages.results import Usage

__all__ = ["Price", "PriceTier"]

_TOKENS: Final = 1_000_000


class PriceTier(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all tokens of a call cost whose prompt has more than `above` tokens; dollars for a million.

    `cached_input` and `cache_write` are as in `Price`.

    Raises:
        BadCall: a number is not allowed.
    """

    above: int
    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None

    def __post_init__(self) -> None:
        check_count("above", self.above)
        _check_dollars(self)


class Price(Struct, frozen=True, kw_only=True):
    """Dollars for a million tokens of the prompt and of the answer, reasoning included.

    `cached_input` is for the part of the prompt that the provider read from its cache; None: no discount.
    `cache_write` is for the part that it wrote into its cache; None: no more than for the rest. Anthropic
    takes 1.25 times the price of `input` for what it keeps for five minutes, and twice that for an hour.
    `tiers` are the prices of calls with long prompts, where a provider has them: of those whose `above` the
    prompt exceeds, the one with the highest holds for all tokens of the call.

    Raises:
        BadCall: a number is not allowed.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    tiers: tuple[PriceTier, ...] = ()

    def __post_init__(self) -> None:
        _check_dollars(self)
        tiers: object = self.tiers
        if not (isinstance(tiers, tuple | list) and all(isinstance(tier, PriceTier) for tier in tiers)):
            raise BadCall(f"tiers is {shown(tiers)}; it must be a tuple of PriceTier objects")

    def of(self, usage: Usage) -> float:
        """Return what a call with this usage costs, in dollars; what was not reported costs nothing."""
        prompt = usage.input or 0
        reached = [tier for tier in self.tiers if prompt > tier.above]
        rates = max(reached, key=lambda tier: tier.above) if reached else self
        cached = min(usage.cached or 0, prompt)
        written = min(usage.written or 0, prompt - cached)
        cached_price = rates.input if rates.cached_input is None else rates.cached_input
        write_price = rates.input if rates.cache_write is None else rates.cache_write
        return (
            (prompt - cached - written) * rates.input
            + cached * cached_price
            + written * write_price
            + (usage.output or 0) * rates.output
        ) / _TOKENS


def _check_dollars(rates: Price | PriceTier) -> None:
    for name in ("input", "output", "cached_input", "cache_write"):
        value = getattr(rates, name)
        if value is None and name.startswith("cache"):
            continue
        check_number(f"the price {name}", value, unit="dollars for a million tokens")
