"""What calls cost: prices per million tokens, in US dollars."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.messages.results import Usage

__all__ = ["Price"]

_TOKENS: Final = 1_000_000


class Price(Struct, frozen=True, kw_only=True):
    """Dollars for a million tokens of the prompt and of the answer, reasoning included.

    `cached_input` is for the part of the prompt that the provider read from its cache; None: no discount.
    """

    input: float
    output: float
    cached_input: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None and name == "cached_input":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise BadCall(
                    f"the price {name} is {value!r}; it must be a number of dollars for a million tokens, "
                    "0 or more"
                )

    def of(self, usage: Usage) -> float:
        """Return what a call with this usage costs, in dollars; what was not reported costs nothing."""
        cached = min(usage.cached or 0, usage.input or 0)
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = (usage.input or 0) - cached
        return (fresh * self.input + cached * cached_price + (usage.output or 0) * self.output) / _TOKENS
