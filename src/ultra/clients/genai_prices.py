"""Prices from genai-prices (extra ``prices``), which knows more models, and is renewed more often.

The catalog has prices of its own for the models that people use. genai-prices is asked only where a program
says so: to import it takes about a second and brings pydantic and a second HTTP library, and to let it count
a call takes longer than the call does. So its prices are read once, as a `Price`, and it sends nothing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from ultra.clients.pricing import Price, PriceTier
from ultra.errors import BadCall, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GENAI_PRICES", "PriceList", "listed_price"]

PriceList = Literal["genai-prices"]
"""The lists of prices that can be named in place of a `Price`."""

GENAI_PRICES: Final[PriceList] = "genai-prices"

_LISTED: Final = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok")

_PROVIDERS: Final[Mapping[str, str]] = {"gemini": "google", "xai": "x-ai"}
"""The names of providers there, where they differ from ours."""


def listed_price(provider: str, model: str) -> Price:
    """Return what genai-prices says that this model costs today.

    Prices for single requests, searches and sound are left out: a `Usage` does not count them.

    Raises:
        MissingExtra: genai-prices is not installed.
        BadCall: it has no price for this model.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise MissingExtra("a price of genai-prices", "prices") from error
    try:
        _, known = get_snapshot().find_provider_model(model, None, _PROVIDERS.get(provider, provider), None)
    except LookupError:
        raise BadCall(
            f"genai-prices has no price for {provider}:{model}; give one: Price(input=…, output=…)"
        ) from None
    # Constraints by day and time are judged once, now.
    return _price(known.get_prices(datetime.now(UTC)), f"{provider}:{model}")


def _price(listed: Any, model: str) -> Price:  # noqa: ANN401 - a library without which this is type-checked, too
    rates = [getattr(listed, name) for name in _LISTED]
    if rates[0] is None or rates[1] is None:
        raise BadCall(f"genai-prices has no price for tokens of {model}; give one: Price(input=…, output=…)")
    starts = sorted({tier.start for rate in rates for tier in getattr(rate, "tiers", ())})
    tiers = tuple(PriceTier(above=start, **_rates(rates, start)) for start in starts)
    return Price(**_rates(rates, 0), tiers=tiers)


def _rates(rates: list[Any], start: int) -> dict[str, Any]:
    """Return the rates for prompts of more than `start` tokens."""
    names = ("input", "output", "cached_input", "cache_write")
    return {name: _rate(rate, start) for name, rate in zip(names, rates, strict=True)}


def _rate(rate: Any, start: int) -> float | None:  # noqa: ANN401 - as above
    if rate is None:
        return None
    found = getattr(rate, "base", rate)
    for tier in getattr(rate, "tiers", ()):  # in the order of their starts
        if tier.start <= start:
            found = tier.price
    return float(found)
