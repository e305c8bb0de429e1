"""What each dialect makes of the same words of the caller."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ultra.clients import (
    AnthropicClient,
    AzureOpenAIClient,
    CallOptions,
    GeminiClient,
    HTTPClient,
    OllamaClient,
    OpenAIClient,
)

EVERYTHING = CallOptions(
    system="Be kind.",
    temperature=0.5,
    max_tokens=9,
    stop=("END", "STOP"),
    seed=1,
    top_p=0.9,
    reasoning_effort="low",
)
USER = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be kind."}


def sent(client: HTTPClient, options: CallOptions, *, stream: bool) -> Any:
    return msgspec.json.decode(client._request("Hi", options, stream=stream).content)


def openai(provider: str = "openai", base_url: str = "https://api.openai.com/v1") -> HTTPClient:
    return OpenAIClient("m", provider=provider, base_url=base_url)


def anthropic() -> HTTPClient:
    return AnthropicClient("m", provider="anthropic", base_url="https://api.anthropic.com")


def gemini() -> HTTPClient:
    return GeminiClient("m", provider="gemini", base_url="https://generativelanguage.googleapis.com")


def ollama() -> HTTPClient:
    return OllamaClient("m", provider="ollama", base_url="http://127.0.0.1:11434")


def test_openai_gets_every_option_under_its_name() -> None:
    assert sent(openai(), EVERYTHING, stream=False) == {
        "model": "m",
        "messages": [SYSTEM, USER],
        "temperature": 0.5,
        "top_p": 0.9,
        "max_completion_tokens": 9,
        "stop": ["END", "STOP"],
        "seed": 1,
        "reasoning_effort": "low",
    }


def test_other_servers_of_the_dialect_get_the_older_name_of_max_tokens() -> None:
    body = sent(openai("vllm", "http://127.0.0.1:8000/v1"), EVERYTHING, stream=False)
    assert body["max_tokens"] == 9
    assert "max_completion_tokens" not in body


def test_mistral_gets_its_own_name_of_the_seed_and_no_stream_options() -> None:
    body = sent(openai("mistral", "https://api.mistral.ai/v1"), EVERYTHING, stream=True)
    assert body["random_seed"] == 1
    assert body["stream"] is True
    assert not {"seed", "stream_options"} & set(body)


def test_a_stream_asks_openai_for_usage() -> None:
    body = sent(openai(), CallOptions(), stream=True)
    assert body == {
        "model": "m",
        "messages": [USER],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_anthropic_gets_every_option_that_it_has() -> None:
    assert sent(anthropic(), EVERYTHING, stream=True) == {
        "model": "m",
        "max_tokens": 9,
        "system": "Be kind.",
        "messages": [USER],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END", "STOP"],
        "output_config": {"effort": "low"},
        "stream": True,
    }


def test_anthropic_always_gets_max_tokens() -> None:
    assert sent(anthropic(), CallOptions(), stream=False) == {
        "model": "m",
        "max_tokens": 4096,
        "messages": [USER],
    }


def test_gemini_gets_every_option_under_its_name() -> None:
    assert sent(gemini(), EVERYTHING, stream=False) == {
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "systemInstruction": {"parts": [{"text": "Be kind."}]},
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "maxOutputTokens": 9,
            "stopSequences": ["END", "STOP"],
            "seed": 1,
            "thinkingConfig": {"thinkingLevel": "low"},
        },
    }


def test_gemini_streams_at_another_address() -> None:
    assert gemini()._url(stream=True).endswith("/v1beta/models/m:streamGenerateContent?alt=sse")


def test_ollama_gets_every_option_under_its_name() -> None:
    assert sent(ollama(), EVERYTHING, stream=False) == {
        "model": "m",
        "messages": [SYSTEM, USER],
        "options": {"temperature": 0.5, "top_p": 0.9, "num_predict": 9, "stop": ["END", "STOP"], "seed": 1},
        "think": "low",
        "stream": False,
    }


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        (OpenAIClient, {"authorization": "Bearer key"}),
        (AzureOpenAIClient, {"api-key": "key"}),
        (AnthropicClient, {"x-api-key": "key", "anthropic-version": "2023-06-01"}),
        (GeminiClient, {"x-goog-api-key": "key"}),
        (OllamaClient, {"authorization": "Bearer key"}),
    ],
)
def test_the_key_travels_in_the_providers_header(client: type[OpenAIClient], headers: dict[str, str]) -> None:
    made = client("m", provider="p", base_url="https://x.example", api_key="key")
    assert made._headers.value.items() >= headers.items()


def test_one_stop_text_is_a_list_of_one() -> None:
    assert sent(openai(), CallOptions(stop="END"), stream=False)["stop"] == ["END"]
