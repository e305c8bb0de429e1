from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import pytest

from ultra.clients import LocalClient, OpenAIClient, connect, provider_statuses
from ultra.clients.catalog import PROVIDERS
from ultra.clients.providers import key_variable
from ultra.errors import BadCall

KEY = "sk-0123456789abcdef"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        for variable in (*provider.keys, *provider.urls):
            monkeypatch.delenv(variable, raising=False)


def test_the_first_colon_divides_provider_and_model() -> None:
    client = connect("vllm:org/model:tag")
    assert (client.provider, client.model) == ("vllm", "org/model:tag")


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("openai", "openai_chat"),
        ("azure", "openai_chat"),
        ("anthropic", "anthropic"),
        ("gemini", "gemini"),
        ("ollama", "ollama"),
        ("openrouter", "openai_chat"),
        ("groq", "openai_chat"),
        ("mistral", "openai_chat"),
        ("deepseek", "openai_chat"),
        ("xai", "openai_chat"),
        ("together", "openai_chat"),
        ("vllm", "openai_chat"),
        ("llamacpp", "openai_chat"),
    ],
)
def test_every_provider_has_a_client(name: str, module: str) -> None:
    base_url = "https://my.openai.azure.com" if name == "azure" else None
    client = connect(f"{name}:m", api_key=KEY, base_url=base_url)
    assert type(client.dialect).__module__ == f"ultra.clients.dialects.{module}"
    assert client.provider == name


def test_a_key_in_the_environment_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", f"{KEY}\n")
    client = connect("groq:m")
    assert client._headers.value["authorization"] == f"Bearer {KEY}"


def test_a_missing_key_is_an_error_that_names_the_variable() -> None:
    with pytest.raises(BadCall, match="no key for openai: pass api_key or set OPENAI_API_KEY"):
        connect("openai:m")


def test_another_endpoint_may_need_no_key() -> None:
    assert isinstance(connect("openai:m", base_url="http://127.0.0.1:8000/v1"), OpenAIClient)


def test_the_endpoint_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1/")
    client = connect("openai:m", api_key=KEY)
    assert client.dialect.url(stream=False) == "https://gateway.example/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "options", "url"),
    [
        (
            "https://my.openai.azure.com/",
            {},
            "https://my.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://my.openai.azure.com/openai/v1",
            {},
            "https://my.openai.azure.com/openai/v1/chat/completions",
        ),
        (
            "https://my.services.ai.azure.com/models",
            {"api_version": "2024-05-01-preview"},
            "https://my.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
    ],
)
def test_azure_takes_a_resource_or_a_path(base_url: str, options: dict[str, str], url: str) -> None:
    client = connect("azure:gpt 4", api_key=KEY, base_url=base_url, **options)
    assert client.dialect.url(stream=False) == url
    assert client._headers.value["api-key"] == KEY
    assert "authorization" not in client._headers.value


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434/api/chat"),
        ("0.0.0.0:1234", "http://0.0.0.0:1234/api/chat"),
        (":1234", "http://127.0.0.1:1234/api/chat"),
        ("[::1]:1234", "http://[::1]:1234/api/chat"),
        ("https://ollama.com/", "https://ollama.com/api/chat"),
    ],
)
def test_ollamas_host_is_written_as_for_its_official_client(
    monkeypatch: pytest.MonkeyPatch, host: str, url: str
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert connect("ollama:m").dialect.url(stream=False) == url


@pytest.mark.parametrize(
    ("name", "base_url", "url"),
    [
        ("anthropic:m", None, "https://api.anthropic.com/v1/messages"),
        ("anthropic:m", "http://127.0.0.1:1/", "http://127.0.0.1:1/v1/messages"),
        (
            "gemini:models/m",
            None,
            "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent",
        ),
        ("gemini:m", "http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1/models/m:generateContent"),
        ("groq:m", None, "https://api.groq.com/openai/v1/chat/completions"),
        ("deepseek:m", None, "https://api.deepseek.com/chat/completions"),
    ],
)
def test_a_base_url_is_written_as_for_the_official_client(name: str, base_url: str | None, url: str) -> None:
    assert connect(name, api_key=KEY, base_url=base_url).dialect.url(stream=False) == url


def test_azure_without_a_resource_says_what_to_set() -> None:
    with pytest.raises(BadCall, match="no endpoint of its own: pass base_url or set AZURE_"):
        connect("azure:m", api_key=KEY)


def test_local_alone_is_the_careful_voice() -> None:
    if not {each.name: each for each in provider_statuses()}["local"].available:
        pytest.skip('the extra "local" is not installed')
    client = connect("local", temperature=0.7)
    assert isinstance(client, LocalClient)
    assert (client.provider, client.model) == ("local", "careful")
    assert client.options.temperature == 0.7


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("opnai:m", {}, "there is no provider 'opnai'; the providers are: local, openai, azure, "),
        (
            "openai",
            {"api_key": KEY},
            "names no model; .* as in 'openai:gpt-4o-mini'",
        ),
        (
            "openai:m",
            {"api_key": KEY, "temprature": 1},
            "unknown option 'temprature'; the options of openai are: .*temperature",
        ),
        ("openai:m", {"api_key": KEY, "temperature": "hot"}, "an option of the call is not allowed: .*float"),
        ("openai:m", {"api_key": KEY, "temperature": float("nan")}, "temperature must be a finite number"),
        ("openai:m", {"api_key": KEY, "max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ("openai:m", {"api_key": KEY, "timeout": 0}, "timeout must be greater than 0, not 0"),
        ("openai:m", {"api_key": KEY, "timeout": "5 s"}, "a limit of openai is not allowed"),
        ("openai:m", {"api_key": KEY, "api_version": "1"}, "unknown option 'api_version'"),
        ("openai:m", {"api_key": KEY, "base_url": "api.openai.com/v1"}, "must look like 'https://host/path'"),
        ("local:careful", {"api_key": KEY}, "the embedded model takes no api_key"),
    ],
)
def test_a_bad_call_is_refused_with_the_choices(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        connect(name, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["sk-with space-inside", "sk-schlüssel-123", "sk-two\nlines-12345"])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(BadCall, match="characters that no key has") as caught:
        connect("openai:m", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("given", [{"api_key": 5}, {"api_key": b"sk"}, {"base_url": 5}, {"transport": 5}])
def test_what_has_the_wrong_type_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=f"{next(iter(given))} must be"):
        connect("openai:x", **{"api_key": KEY, **given})


@pytest.mark.parametrize("headers", [{"x-key": f"{KEY}\n"}, {"x-key": f"ü{KEY}"}, {"x key": KEY}, {"": KEY}])
def test_a_header_that_cannot_be_sent_is_refused_without_showing_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(BadCall, match="extra_headers") as caught:
        connect("openai:x", api_key="k", extra_headers=headers)
    assert KEY not in str(caught.value)


def test_a_client_shows_provider_and_model_and_never_its_key() -> None:
    client = connect("openai:gpt-4o-mini", api_key=KEY)
    assert repr(client) == "<OpenAIClient openai:gpt-4o-mini>"
    assert KEY not in f"{vars(client)} {vars(client._connections)} {vars(client.dialect)}"


def refuse(*address: object) -> None:
    raise ConnectionRefusedError


def test_statuses_say_what_can_be_used_and_why_the_rest_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", KEY)
    monkeypatch.setattr(socket, "create_connection", refuse)
    found = {status.name: status for status in provider_statuses()}
    assert list(found) == list(PROVIDERS)
    assert (found["mistral"].available, found["mistral"].detail) == (True, "key in MISTRAL_API_KEY")
    assert (found["openai"].available, found["openai"].detail) == (False, "OPENAI_API_KEY is not set")
    assert found["azure"].detail == "AZURE_OPENAI_ENDPOINT is not set"
    assert not found["vllm"].available
    assert found["vllm"].detail == "no server listens at http://localhost:8000/v1"
    assert KEY not in str(found)


def test_importing_the_clients_does_not_import_httpx() -> None:
    program = "import sys, ultra.clients; ultra.clients.connect; print('httpx' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"


# --- keys and tokens ----------------------------------------------------------------------------------


def test_a_bearer_token_goes_to_a_gateway_in_its_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", " gateway-token-1\n")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://gateway.example")
    client = connect("anthropic:m")
    assert client.options.extra_headers == {"authorization": "Bearer gateway-token-1"}
    assert "x-api-key" not in client._headers.value
    assert "gateway-token-1" not in repr(client.options)
    assert key_variable("anthropic") == "ANTHROPIC_AUTH_TOKEN"
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    assert connect("anthropic:m")._headers.value["x-api-key"] == KEY
    assert connect("anthropic:m", api_key="argument-1")._headers.value["x-api-key"] == "argument-1"


@pytest.mark.parametrize("blank", ["", "  \n", "\t"])
def test_a_key_of_blanks_is_no_key(monkeypatch: pytest.MonkeyPatch, blank: str) -> None:
    monkeypatch.setenv("GROQ_API_KEY", blank)
    with pytest.raises(BadCall, match="no key for groq"):
        connect("groq:m")
    with pytest.raises(BadCall, match="no key for groq"):
        connect("groq:m", api_key=blank)
    status = next(status for status in provider_statuses() if status.name == "groq")
    assert (status.available, status.detail) == (False, "GROQ_API_KEY is not set")
