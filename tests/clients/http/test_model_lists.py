"""Asking providers which models they offer."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import trio

from helpers.local_model import needs_model
from helpers.provider_calls import KEY, PROTOCOLS
from ultra.clients import OfferedModel, connect, list_models
from ultra.clients.catalog import ModelInfo, model_info
from ultra.errors import BadCall, ModelError
from ultra.faults.provider import simulated_provider

URLS = {
    "openai": "https://api.openai.com/v1/models",
    "anthropic": "https://api.anthropic.com/v1/models?limit=1000",
    "gemini": "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000",
    "ollama": "http://127.0.0.1:11434/api/tags",
    "openrouter": "https://openrouter.ai/api/v1/models",
    "groq": "https://api.groq.com/openai/v1/models",
    "together": "https://api.together.xyz/v1/models",
}


class Server(httpx.AsyncBaseTransport):
    """Gives one answer after the other, the last one again and again."""

    def __init__(self, *answers: Any, status: int = 200) -> None:
        self.answers = list(answers)
        self.status = status
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return httpx.Response(answer, json={"error": {"message": "it is not here"}})
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        return httpx.Response(self.status, content=content, headers={"content-type": "application/json"})


async def listed(provider: str, *answers: Any, **settings: Any) -> tuple[list[OfferedModel], Server]:
    server = Server(*answers)
    found = await list_models(provider, api_key=KEY, transport=server, **settings)
    return list(found), server


def names(found: list[OfferedModel]) -> list[str]:
    return [model.name for model in found]


@pytest.fixture(autouse=True)
def _no_addresses_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "OLLAMA_HOST"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name != "openai_responses"])
@pytest.mark.parametrize("count", [0, 1, 1_000, 2_001])
async def test_the_lists_of_all_pages_are_joined(protocol: str, count: int) -> None:
    models = [f"model-{number}" for number in range(count)]
    async with simulated_provider(models=models) as provider:
        found = await list_models(protocol, api_key=KEY, base_url=provider.base_url(protocol))

        assert [model.name for model in found] == [f"{protocol}:{name}" for name in models]
        pages = max(1, -(-count // 1_000)) if protocol in {"anthropic", "gemini"} else 1
        assert [request.method for request in provider.requests] == ["GET"] * pages
        assert all(request.has_key for request in provider.requests)


@pytest.mark.parametrize(
    ("provider", "answer", "expected"),
    [
        ("openai", {"data": [{"id": "gpt-4o-2024-08-06"}, {"id": "odd"}]}, ["gpt-4o-2024-08-06", "odd"]),
        ("anthropic", {"data": [{"id": "claude-sonnet-4-5"}], "has_more": False}, ["claude-sonnet-4-5"]),
        (
            "gemini",
            {
                "models": [
                    {"name": "models/gemini-2.5-pro", "supportedGenerationMethods": ["generateContent"]},
                    {"name": "models/embedding", "supportedGenerationMethods": ["embedContent"]},
                    {"name": "models/any"},
                ]
            },
            ["gemini-2.5-pro", "any"],
        ),
        ("gemini", {}, []),
        (
            "ollama",
            {"models": [{"name": "llama3.2:latest"}, {"model": "qwen3"}]},
            ["llama3.2:latest", "qwen3"],
        ),
        (
            "together",
            [{"id": "meta-llama/Llama-3.3-70B-Instruct-Turbo"}],
            ["meta-llama/Llama-3.3-70B-Instruct-Turbo"],
        ),
        ("openrouter", {"data": [{"id": "anthropic/claude-sonnet-4.5"}]}, ["anthropic/claude-sonnet-4.5"]),
        ("groq", {"data": [{"id": None}, {"id": 7}, {}, {"id": "  "}, {"id": "a"}, {"id": "a"}]}, ["a"]),
    ],
)
async def test_each_dialect_reads_its_own_list(provider: str, answer: Any, expected: list[str]) -> None:
    found, server = await listed(provider, answer)

    assert names(found) == [f"{provider}:{name}" for name in expected]
    assert [str(request.url) for request in server.requests] == [URLS[provider]]
    for model, name in zip(found, expected, strict=True):
        assert model.info.name == model_info(provider, name).name


async def test_the_providers_own_numbers_go_before_those_of_the_catalog() -> None:
    own = {"id": "gpt-4o", "context_length": 64_000, "max_completion_tokens": 1_000}
    odd = {"id": "gpt-4o-mini", "context_length": "much", "max_model_len": -1, "context_window": 0}

    found, _ = await listed("openai", {"data": [own, odd]})

    assert [(m.info.context_window, m.info.output_limit) for m in found] == [
        (64_000, 1_000),
        (128_000, 16_384),
    ]
    assert found[0].info.price == model_info("openai", "gpt-4o").price


async def test_a_list_at_another_address_has_no_prices_and_headers_of_the_user() -> None:
    found, server = await listed(
        "openai",
        {"data": [{"id": "gpt-4o"}]},
        base_url="https://gateway.example/v1",
        extra_headers={"X-Team": "blue"},
    )
    assert found == [OfferedModel(name="openai:gpt-4o", info=found[0].info)]
    assert (found[0].info.price, found[0].info.images) == (None, True)
    (request,) = server.requests
    assert (request.method, request.headers["x-team"]) == ("GET", "blue")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.content == b""


async def test_an_address_without_its_version_is_tried_with_it() -> None:
    found, server = await listed(
        "vllm", 404, {"data": [{"id": "m", "max_model_len": 4_096}]}, base_url="http://h:1"
    )
    assert [str(request.url) for request in server.requests] == ["http://h:1/models", "http://h:1/v1/models"]
    assert found == [OfferedModel(name="vllm:m", info=ModelInfo(context_window=4_096))]


@pytest.mark.parametrize(
    ("provider", "answer", "says", "kind"),
    [
        ("openai", b"<html>Sign in</html>", "breaks the protocol", "protocol"),
        ("openai", b"", "its body is empty", "protocol"),
        ("openai", {"data": "many"}, "breaks the protocol", "protocol"),
        ("openai", {"object": "list"}, "it is no list of models", "protocol"),
        ("openai", b"3", "breaks the protocol", "protocol"),
        ("anthropic", {"error": {"type": "api_error", "message": "oh no"}}, "oh no", None),
        ("gemini", {"models": {}}, "breaks the protocol", "protocol"),
        ("ollama", {"error": "no models here"}, "no models here", None),
        ("ollama", b"null", "breaks the protocol", "protocol"),
    ],
)
async def test_what_is_no_list_is_an_error(
    provider: str, answer: Any, says: str | None, kind: str | None
) -> None:
    if says is None:
        answer, says, kind = b"3", "breaks the protocol", "protocol"
    with pytest.raises(ModelError) as caught:
        await listed(provider, answer)
    assert says in str(caught.value)
    assert kind is None or caught.value.kind == kind
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(("status", "kind"), [(401, "auth"), (429, "rate_limit"), (500, "server")])
async def test_a_refusal_is_told_in_the_providers_words(status: int, kind: str) -> None:
    with pytest.raises(ModelError, match="it is not here") as caught:
        await listed("openai", status)
    assert (caught.value.kind, caught.value.status) == (kind, status)


async def test_where_nothing_is_found_the_error_names_the_address() -> None:
    with pytest.raises(ModelError, match=r"asked at https://h\.example/v1/models; is base_url that of"):
        await listed("openai", 404, base_url="https://h.example/v1")


async def test_a_list_without_an_end_is_an_error() -> None:
    class Endless(Server):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await super().handle_async_request(request)
            return httpx.Response(200, json={"models": [], "nextPageToken": str(len(self.requests))})

    server = Endless({})
    with pytest.raises(ModelError, match="more than 100 pages"):
        await list_models("gemini", api_key=KEY, transport=server)
    assert len(server.requests) == 100


async def test_a_list_of_far_too_many_models_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultra.clients.http.offered_models._MOST_MODELS", 5)
    page = [{"data": [{"id": f"m{n}{i}"} for i in range(3)], "has_more": True} for n in range(3)]
    with pytest.raises(ModelError, match="more than 5 models"):
        await listed("anthropic", *page)
    found, _ = await listed("openai", {"data": [{"id": f"m{n}"} for n in range(5)]})
    assert len(found) == 5


@pytest.mark.parametrize(
    "answer", [{"data": [], "has_more": True}, {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}]
)
async def test_a_page_that_names_itself_as_the_next_ends_the_list(answer: Any) -> None:
    found, server = await listed("anthropic", answer)
    assert len(found) <= 1
    assert len(server.requests) <= 2


async def test_a_server_that_cannot_be_reached_is_told() -> None:
    with pytest.raises(ModelError, match="cannot connect") as caught:
        await list_models("ollama", base_url="http://127.0.0.1:9")
    assert caught.value.kind == "connection"


async def test_without_a_key_or_a_provider_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadCall, match="no key for openai: pass api_key or set OPENAI_API_KEY"):
        await list_models("openai")
    with pytest.raises(BadCall, match="there is no provider 'opnai'"):
        await list_models("opnai")


async def test_azure_lists_models_only_at_an_endpoint_with_a_path() -> None:
    with pytest.raises(BadCall, match="does not list the deployments"):
        await listed("azure", {"data": []}, base_url="https://name.openai.azure.com")
    _, server = await listed("azure", {"data": []}, base_url="https://name.openai.azure.com/openai/v1")
    assert str(server.requests[0].url) == "https://name.openai.azure.com/openai/v1/models"


@needs_model
async def test_the_embedded_model_lists_its_voices() -> None:
    found = await list_models("local")
    assert names(list(found))[0] == "local:careful"
    assert all(model.info.images is False for model in found)


async def test_a_client_lists_the_models_beside_its_own() -> None:
    async with simulated_provider(models=["a", "b"]) as provider:
        client = connect("openai:a", base_url=provider.base_url("openai"), api_key=KEY)
        assert [model.name for model in await client.list_models()] == ["openai:a", "openai:b"]
        assert (await client.generate("Why?")).content
        await client.aclose()
