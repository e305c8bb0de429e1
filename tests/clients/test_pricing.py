"""What calls cost."""

from __future__ import annotations

from typing import Any

import pytest

from ultra.clients.pricing import Price, PriceTier
from ultra.errors import BadCall
from ultra.messages.results import Usage


def test_a_call_costs_its_tokens_and_cached_ones_their_own_price() -> None:
    price = Price(input=2.0, output=10.0, cached_input=0.5)
    usage = Usage(input=1_000_000, cached=400_000, output=100_000, reasoning=90_000)
    assert price.of(usage) == pytest.approx(0.6 * 2 + 0.4 * 0.5 + 0.1 * 10)


def test_what_is_written_into_the_cache_has_its_own_price_in_each_tier() -> None:
    long = PriceTier(above=1_000_000, input=4.0, output=10.0, cache_write=5.0)
    price = Price(input=2.0, output=10.0, cached_input=0.5, cache_write=2.5, tiers=(long,))
    usage = Usage(input=1_000_000, cached=400_000, written=500_000, output=100_000)
    assert price.of(usage) == pytest.approx(0.1 * 2 + 0.4 * 0.5 + 0.5 * 2.5 + 0.1 * 10)
    assert price.of(Usage(input=2_000_000, written=2_000_000)) == pytest.approx(2 * 5)


def test_without_a_price_for_it_what_is_written_costs_as_the_others() -> None:
    assert Price(input=1.0, output=0).of(Usage(input=1_000_000, written=500_000)) == 1.0


def test_without_a_price_for_cached_tokens_they_cost_as_the_others() -> None:
    assert Price(input=1.0, output=0).of(Usage(input=1_000_000, cached=500_000)) == 1.0


def test_what_was_not_reported_costs_nothing() -> None:
    assert Price(input=1.0, output=1.0).of(Usage()) == 0


@pytest.mark.parametrize("bad", [-1, float("inf"), float("nan"), "1", True, None])
def test_a_price_is_a_number_of_dollars(bad: Any) -> None:
    with pytest.raises(BadCall, match="dollars"):
        Price(input=bad, output=1.0)
