"""Which price the answers of a registered model have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.clients.genai_prices import GENAI_PRICES, listed_price
from ultra.clients.pricing import Price
from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.clients.adapter import ClientAdapter
    from ultra.clients.genai_prices import PriceList

__all__ = ["check_price", "price_of"]


def check_price(given: object) -> None:
    """Raise `BadCall` unless `given` is a price, the name of a list of prices, or None."""
    if not (given is None or isinstance(given, Price) or given == GENAI_PRICES):
        raise BadCall(f"price is {given!r}; it must be a Price object, {GENAI_PRICES!r}, or None")


def price_of(
    given: Price | PriceList | None, clients: Sequence[object], adapters: Sequence[ClientAdapter]
) -> Price | None:
    """Return the price as given, from the list that is named, or as the clients know it.

    Several deployments have the price of the dearest, so that no run costs more than is said. Where one has
    no price, the model has none.

    Raises:
        BadCall: the list has no price for one of the clients, or the client does not say what it is.
        MissingExtra: the list is not installed.
    """
    if isinstance(given, Price):
        return given
    known = [adapter.info.price for adapter in adapters] if given is None else list(map(_listed, clients))
    prices = [price for price in known if price is not None]
    if len(prices) < len(known):
        return None
    return max(prices, key=lambda price: price.input + price.output)


def _listed(client: object) -> Price:
    provider, model = (getattr(client, name, None) for name in ("provider", "model"))
    if not (isinstance(provider, str) and isinstance(model, str)):
        raise BadCall(
            f"price is {GENAI_PRICES!r}, and this client has no provider and model to look up; give its "
            "price: Price(input=…, output=…)"
        )
    return listed_price(provider, model)
