"""Prices from genai-prices, and which price the answers of a model have."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest

from ultra import MultiLLMOrchestrator, Price, PriceTier
from ultra.clients import connect
from ultra.clients.genai_prices import listed_price
from ultra.errors import BadCall, MissingExtra
from ultra.messages.results import Usage
from ultra.testing import FakeModel

KEY = "test-key-0123456789"


def price(*clients: Any, given: Any = None) -> Price | None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("m", list(clients), price=given)
    found: Price | None = orchestrator._registry.get("m").price
    return found


def test_a_model_has_the_price_of_the_catalog_unless_another_is_given() -> None:
    client = connect("openai:gpt-4o-mini", api_key=KEY)
    assert price(client) == Price(input=0.15, output=0.6, cached_input=0.075)
    assert price(client, given=Price(input=1, output=1)) == Price(input=1, output=1)
    assert price(FakeModel("yes")) is None
    assert price(connect("openai:gpt-4o", api_key=KEY, price=Price(input=0, output=0))) == Price(
        input=0, output=0
    )


def test_several_deployments_have_the_price_of_the_dearest_or_none() -> None:
    mini, large = (connect(f"openai:{name}", api_key=KEY) for name in ("gpt-4o-mini", "gpt-4o"))
    assert price(mini, large) == large.info.price
    assert price(mini, FakeModel("yes")) is None


async def test_an_answer_of_a_known_model_has_a_cost() -> None:
    model = FakeModel("yes", usage=Usage(input=1_000_000, output=1_000_000))
    model.info = connect("openai:gpt-4o", api_key=KEY).info
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", model)
        response = await orchestrator.get_model_response("m", "Q")
    assert response.cost == pytest.approx(12.5)


def test_long_prompts_have_the_price_of_their_tier() -> None:
    tiers = (
        PriceTier(above=200, input=4, output=40, cached_input=1),
        PriceTier(above=100, input=2, output=20),
    )
    tiered = Price(input=1, output=10, cached_input=0.5, tiers=tiers)
    million = 1_000_000
    assert tiered.of(Usage(input=100, output=1)) * million == pytest.approx(110)
    assert tiered.of(Usage(input=101, output=1, cached=50)) * million == pytest.approx(222)
    assert tiered.of(Usage(input=300, output=1, cached=100)) * million == pytest.approx(800 + 100 + 40)


@pytest.mark.parametrize("above", [0, -1, True, 1.5, "1"])
def test_a_tier_begins_above_a_number_of_tokens(above: Any) -> None:
    with pytest.raises(BadCall, match="above"):
        PriceTier(above=above, input=1, output=1)
    with pytest.raises(BadCall, match="tiers"):
        Price(input=1, output=1, tiers=(above,))


@pytest.mark.parametrize("given", ["genai", 3, {"input": 1}])
def test_another_price_is_refused(given: Any) -> None:
    with pytest.raises(BadCall, match="it must be a Price object, 'genai-prices', or None"):
        price(FakeModel("yes"), given=given)


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(MissingExtra, match="'prices'"):
        price(connect("openai:gpt-4o", api_key=KEY), given="genai-prices")


class TestWithGenaiPrices:
    @pytest.fixture(autouse=True)
    def _needs_it(self) -> None:
        pytest.importorskip("genai_prices", reason="the extra prices is not installed")

    @pytest.mark.parametrize(
        ("name", "usage"),
        [
            ("openai:gpt-4o-2024-08-06", {"input": 1_000, "output": 100, "cached": 400}),
            ("anthropic:claude-sonnet-4-5-20250929", {"input": 1_000, "output": 100, "cached": 400}),
            ("anthropic:claude-sonnet-4-5", {"input": 300_000, "output": 100, "cached": 400}),
            ("gemini:gemini-2.5-pro", {"input": 200_000, "output": 100}),
            ("gemini:gemini-2.5-pro", {"input": 200_001, "output": 100}),
            ("xai:grok-4", {"input": 1_000, "output": 100, "cached": 400}),
            ("groq:llama-3.3-70b-versatile", {"input": 1_000, "output": 100}),
            ("anthropic:claude-opus-5", {"input": 1_000, "output": 100, "cached": 100, "written": 500}),
        ],
    )
    def test_a_call_costs_what_the_library_itself_says(self, name: str, usage: dict[str, int]) -> None:
        import genai_prices  # noqa: PLC0415 - an extra

        provider, _, model = name.partition(":")
        theirs = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage["input"],
                output_tokens=usage["output"],
                cache_read_tokens=usage.get("cached", 0),
                cache_write_tokens=usage.get("written", 0),
            ),
            model,
            provider_id={"gemini": "google", "xai": "x-ai"}.get(provider, provider),
        )
        counted = Usage(
            input=usage["input"],
            output=usage["output"],
            cached=usage.get("cached"),
            written=usage.get("written"),
        )
        ours = listed_price(provider, model).of(counted)
        assert Decimal(ours) == pytest.approx(theirs.total_price, rel=Decimal("1e-9"))

    def test_it_is_asked_where_it_is_named(self) -> None:
        client = connect("openai:gpt-4o", api_key=KEY, base_url="https://elsewhere.example/v1")
        assert price(client) is None
        assert price(client, given="genai-prices") == listed_price("openai", "gpt-4o")

    @pytest.mark.parametrize("name", ["openai:my-own", "vllm:m"])
    def test_a_model_that_it_does_not_know_is_refused(self, name: str) -> None:
        with pytest.raises(BadCall, match=f"genai-prices has no price for {name}"):
            price(connect(name, api_key=KEY), given="genai-prices")

    def test_a_client_that_does_not_say_what_it_is_is_refused(self) -> None:
        with pytest.raises(BadCall, match="has no provider and model"):
            price(FakeModel("yes"), given="genai-prices")
