"""Whom `ultra ask` asks where nobody names a model: providers whose keys are set, or the embedded model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from helpers.chat_server import chat_server
from helpers.command_line import run_ultra
from ultra.cli.arguments import EMBEDDED_MODELS, Question, parse_models
from ultra.cli.default_models import choose_models
from ultra.clients.catalog import PROVIDERS
from ultra.clients.providers import models_with_keys
from ultra.errors import BadCall, MissingExtra
from ultra.messages.results import OrchestrationResult


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in PROVIDERS.values():
        for variable in (*provider.keys, *provider.urls):
            monkeypatch.delenv(variable, raising=False)


def test_each_provider_whose_key_is_set_is_asked_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "not-a-real-key")
    monkeypatch.setenv("GROQ_API_KEY", "neither")
    monkeypatch.setenv("OPENAI_API_KEY", " ")  # a key of blanks is none

    chosen = choose_models()

    assert [name.partition(":")[0] for name in chosen] == ["anthropic", "groq"]
    told = capsys.readouterr().err
    assert told == f"ultra: asking the providers whose keys are set: {chosen[0]}, {chosen[1]}\n"


def test_a_provider_without_models_of_known_names_or_without_keys_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "not-a-real-key")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://mine.example")
    monkeypatch.setenv("OLLAMA_API_KEY", "not-a-real-key")

    assert models_with_keys() == ()


def test_without_keys_the_embedded_model_is_asked_and_what_it_is_worth_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ultra.clients.local.embedded.find_model", lambda: Path("model.gguf"))

    assert choose_models() == EMBEDDED_MODELS

    told = capsys.readouterr().err
    assert told.startswith("ultra: no key is set, so a small local model answers, and often errs")
    assert told.count("\n") == 1


def test_without_keys_and_without_the_embedded_model_both_ways_out_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_model() -> Path:
        raise MissingExtra("the embedded model", "local")

    monkeypatch.setattr("ultra.clients.local.embedded.find_model", find_model)

    with pytest.raises(BadCall, match=r"no provider's key is set, such as OPENAI_API_KEY.*--extra local"):
        choose_models()


async def test_the_command_asks_the_provider_whose_key_is_set() -> None:
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", "--json", env=server.environment)

    result = msgspec.json.decode(done.stdout, type=OrchestrationResult)
    assert list(result.initial_responses) == ["gpt-4o-mini"]
    assert done.stderr == b"ultra: asking the providers whose keys are set: openai:gpt-4o-mini\n"


def test_voices_alone_are_known_as_such() -> None:
    assert Question(prompt="?", models=parse_models(EMBEDDED_MODELS)).is_to_embedded
    assert not Question(prompt="?", models=parse_models(["local:careful", "openai:any"])).is_to_embedded
    assert not Question(prompt="?").is_to_embedded
