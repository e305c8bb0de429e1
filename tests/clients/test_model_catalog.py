"""What the catalog knows of models, and under which names."""

from __future__ import annotations

import json
import re
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.local_model import needs_model
from ultra.clients import catalog, connect
from ultra.clients.adapter import ClientAdapter
from ultra.clients.catalog import PROVIDERS, Facts, ModelInfo, model_info
from ultra.clients.pricing import Price
from ultra.clients.quirks import Quirks
from ultra.errors import BadCall

KEY = "test-key-0123456789"

DATA = json.loads((Path(catalog.__file__).parent / "models.json").read_text("utf-8"))

ROWS = [(provider, name) for provider, rows in DATA["models"].items() for name in rows]


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("openai:gpt-4o", "openai:gpt-4o"),
        ("openai:gpt-4o-2024-08-06", "openai:gpt-4o"),
        ("openai:gpt-4o-2024-05-13", "openai:gpt-4o-2024-05-13"),
        ("openai:GPT-4o", "openai:gpt-4o"),
        ("openai:gpt-4-0613", "openai:gpt-4"),
        ("openai:gpt-4-32k-0314", "openai:gpt-4-32k"),
        ("anthropic:claude-sonnet-4-5-20250929", "anthropic:claude-sonnet-4-5"),
        ("anthropic:claude-3-5-sonnet-latest", "anthropic:claude-3-5-sonnet"),
        ("anthropic:claude-sonnet-4-0", "anthropic:claude-sonnet-4"),
        ("gemini:models/gemini-2.5-flash", "gemini:gemini-2.5-flash"),
        ("gemini:gemini-2.5-flash-preview-09-2025", "gemini:gemini-2.5-flash"),
        ("gemini:gemini-1.5-pro-002", "gemini:gemini-1.5-pro"),
        ("mistral:mistral-large", "mistral:mistral-large-latest"),
        ("xai:grok-4-0709", "xai:grok-4"),
        ("openrouter:anthropic/claude-sonnet-4.5", "anthropic:claude-sonnet-4-5"),
        ("openrouter:anthropic/claude-3.7-sonnet:thinking", "anthropic:claude-3-7-sonnet"),
        ("openrouter:google/gemini-2.5-pro", "gemini:gemini-2.5-pro"),
        ("openrouter:meta-llama/llama-3.3-70b-instruct:free", "meta-llama:llama-3.3-70b-instruct"),
        ("openai:us.anthropic.claude-sonnet-4-5-20250929-v1:0", "anthropic:claude-sonnet-4-5"),
        ("openai:bedrock/anthropic.claude-3-haiku-20240307-v1:0", "anthropic:claude-3-haiku"),
        ("openai:anthropic/claude-sonnet-4-5@20250929", "anthropic:claude-sonnet-4-5"),
        ("openai:qwen-plus-2025-07-28", "qwen:qwen-plus"),
        ("openai:command-r-plus", "cohere:command-r-plus-08-2024"),
        ("azure:gpt-4o", "openai:gpt-4o"),
        (
            "together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
            "together:meta-llama/Llama-3.3-70B-Instruct-Turbo",
        ),
        ("ollama:llama3.2", "ollama:llama3.2"),
        ("ollama:qwen2.5:7b-instruct-q4_K_M", "ollama:qwen2.5"),
        ("ollama:gemma3:1b-it-qat", "ollama:gemma3:1b"),
        ("ollama:llama3.2-vision:11b", "ollama:llama3.2-vision"),
        ("openai:gpt-5.9-ultra", "openai:gpt-5"),
        ("anthropic:claude-opus-9", "anthropic:claude"),
        ("openai:something-new", ""),
        ("openrouter:nobody/something", ""),
        ("azure:my-deployment", ""),
        ("vllm:Qwen/Qwen3-8B", ""),
        ("acme:large", ""),
    ],
)
def test_a_model_is_found_under_all_of_its_names(name: str, row: str) -> None:
    provider, _, model = name.partition(":")
    assert model_info(provider, model).name == row


def test_of_a_model_that_nobody_knows_nothing_is_told() -> None:
    assert model_info("openai", "something-new") == ModelInfo()
    assert ModelInfo().told() == {}


def test_a_family_tells_no_price_and_no_limit_of_answers() -> None:
    info = model_info("anthropic", "claude-opus-9-20300101")
    assert (info.context_window, info.price, info.output_limit) == (200_000, None, None)


def test_a_gateway_and_another_address_have_prices_of_their_own() -> None:
    assert model_info("openrouter", "openai/gpt-4o").price is None
    assert connect("openai:gpt-4o", api_key=KEY).info.price == Price(input=2.5, output=10, cached_input=1.25)
    elsewhere = connect("openai:gpt-4o", api_key=KEY, base_url="https://gateway.example/v1")
    assert elsewhere.info.price is None
    assert elsewhere.info.context_window == 128_000


def test_ollama_is_never_asked_for_a_larger_window_without_being_told() -> None:
    assert model_info("ollama", "llama3.1").context_window == 32_768
    assert model_info("ollama", "gemma2:9b").context_window == 8_192
    assert model_info("ollama", "my-own").context_window == 32_768
    assert connect("ollama:llama3.1", context_window=100_000).info.context_window == 100_000


def test_a_program_may_tell_more_than_the_catalog_knows() -> None:
    told = connect(
        "vllm:my-model",
        context_window=8_192,
        output_limit=1_000,
        images=True,
        tools=False,
        output="json",
        price=Price(input=1, output=2),
        quirks=Quirks(no_system=True),
    )
    assert told.info == ModelInfo(
        context_window=8_192,
        output_limit=1_000,
        images=True,
        tools=False,
        output="json",
        price=Price(input=1, output=2),
        quirks=Quirks(no_system=True),
    )
    assert ClientAdapter(told).info == told.info


@pytest.mark.parametrize("quirks", [{"no_sytem": True}, {"no_system": "yes"}])
def test_quirks_that_do_not_exist_are_refused(quirks: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=r"no_sytem|bool"):
        connect("openai:gpt-4o", api_key=KEY, quirks=quirks)


def test_what_is_told_goes_before_the_catalog_and_quirks_are_joined() -> None:
    client = connect("openai:gpt-4o", api_key=KEY, images=False, quirks=Quirks(no_stream=True))
    assert (client.info.images, client.info.pdf) == (False, True)
    assert client.info.quirks == Quirks(
        renamed=(("max_tokens", "max_completion_tokens"),), no_stream=True, no_file_urls=True
    )


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"imagse": True}, "unknown option 'imagse'.*images, pdf, audio"),
        ({"images": "yes"}, "what is told of the model is not allowed: .*images"),
        ({"output": "jsn"}, "Invalid enum value 'jsn'"),
        ({"output_limit": 0}, "output_limit must be at least 1"),
        ({"price": 3}, "price"),
    ],
)
def test_a_wrong_fact_is_refused(told: dict[str, Any], says: str) -> None:
    with pytest.raises(BadCall, match=says):
        connect("vllm:m", **told)


@needs_model
def test_the_embedded_model_is_known() -> None:
    with pytest.raises(BadCall, match="cannot be told"):
        connect("local:careful", images=True)
    info = connect("local:careful").info
    assert info.images is False
    assert info.context_window == connect("local:careful").context_window


def test_a_client_of_ones_own_may_tell_what_it_can() -> None:
    class Client:
        info = ModelInfo(images=True)

        async def generate(self, prompt: str) -> str:
            return prompt

    class Odd(Client):
        info = "much"  # type: ignore[assignment]
        context_window = 100

    assert ClientAdapter(Client()).info == ModelInfo(images=True)
    assert ClientAdapter(Odd()).info == ModelInfo(context_window=100)


# --- the data ------------------------------------------------------------------------------------------


def test_the_data_say_when_and_from_where_they_are() -> None:
    assert date.fromisoformat(DATA["gathered"]).year >= 2026
    assert DATA["sources"]
    days = [row["gathered"] for rows in DATA["models"].values() for row in rows.values() if "gathered" in row]
    assert all(re.fullmatch(r"20\d\d-\d\d(-\d\d)?", day) for day in days)
    assert {provider for provider in PROVIDERS if provider in DATA["models"]} >= {
        *("openai", "anthropic", "gemini", "ollama", "groq", "mistral", "deepseek", "xai", "together")
    }


@pytest.mark.parametrize("provider", DATA["models"])
def test_every_row_is_found_by_its_name_and_makes_sense(provider: str) -> None:
    for name in DATA["models"][provider]:
        info = model_info(provider, name)
        assert info.name == f"{provider}:{name}"
        assert msgspec.json.decode(msgspec.json.encode(info), type=ModelInfo) == info
        assert info.context_window is None or 2_000 <= info.context_window <= 10_000_000, name
        assert info.output_limit is None or info.output_limit < (info.context_window or 10**9), name
        assert not (info.tools is False and (info.parallel_tools or info.output == "tool")), name
        price = info.price
        if price is not None:
            assert 0 <= price.input <= price.output <= 1_000 or provider == "groq", name
            assert price.cached_input is None or price.cached_input <= price.input, name
            written = price.cache_write
            assert written is None or price.input <= written <= 2 * price.input, name
            assert all((tier.cache_write is None) == (written is None) for tier in price.tiers), name
            levels = [(0, price.input, price.output), *((t.above, t.input, t.output) for t in price.tiers)]
            assert all(below < above for below, above in pairwise(levels)), name


def test_aliases_and_families_name_no_row_twice() -> None:
    for provider, aliases in DATA["aliases"].items():
        for alias, name in aliases.items():
            assert model_info(provider, alias).name == f"{provider}:{name}"
            assert alias not in DATA["models"][provider]
    for provider, families in DATA["families"].items():
        assert all("price" not in row for row in families.values())
        assert provider in DATA["models"]


def test_every_example_of_a_provider_with_rows_is_known() -> None:
    for name, provider in PROVIDERS.items():
        if name in DATA["models"]:
            assert model_info(name, provider.example.partition(":")[2]).name, provider.example


@given(st.sampled_from([*PROVIDERS, "acme"]), st.text(max_size=300))
def test_any_name_can_be_looked_up(provider: str, name: str) -> None:
    assert isinstance(model_info(provider, name), ModelInfo)


@given(st.sampled_from(ROWS), st.sampled_from(["-20300101", "-2030-01-01", "-latest", "-preview", "-v1:0"]))
def test_a_version_of_a_known_model_is_that_model(row: tuple[str, str], version: str) -> None:
    provider, name = row
    if provider != "ollama":
        assert model_info(provider, name + version).told() == model_info(provider, name).told()


def test_a_name_of_a_million_characters_costs_no_more_than_a_short_one() -> None:
    assert model_info("openai", "gpt-4o-" + "-1234" * 200_000).name == "openai:gpt-4o"


def test_facts_are_joined_without_losing_what_was_told() -> None:
    info = ModelInfo(name="a:b", images=True, quirks=Quirks(no_system=True))
    assert info.with_facts(Facts()) is info
    joined = info.with_facts(Facts(images=False, quirks=Quirks(no_stream=True)))
    assert joined == ModelInfo(name="a:b", images=False, quirks=Quirks(no_system=True, no_stream=True))
