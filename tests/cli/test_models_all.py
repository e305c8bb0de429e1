"""`ultra models --all PROVIDER`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from helpers.command_line import run_ultra
from ultra.cli import app
from ultra.faults.provider import simulated_provider

HOSTILE = "bad\x1b]0;owned\x07\u202e\r\nopenai:fake \x9b31m"

MODELS = ["gpt-4o-2024-08-06", "something-new", HOSTILE, "n" * 500]


async def test_the_models_of_a_provider_are_listed_with_what_is_known_of_each() -> None:
    async with simulated_provider(models=MODELS) as provider:
        done = await run_ultra("models", "--all", "openai", env=provider.environment)

    assert (done.returncode, done.stderr) == (0, b"")
    head, known, unknown, hostile, long = done.stdout.decode().splitlines()
    assert head.split()[:3] == ["model", "window", "answer"]
    assert known.split() == (
        [
            "openai:gpt-4o-2024-08-06",
            "128,000",
            "16,384",
            "text,",
            "images,",
            "pdf",
            "yes",
            "schema",
            "no",
            "?",
        ]
    )
    assert unknown.split() == ["openai:something-new", "?", "?", "text,", "?", "?", "?", "?", "?"]
    assert hostile.startswith("openai:bad␛]0;owned␇\N{REPLACEMENT CHARACTER} openai:fake")
    assert long.split()[0] == "openai:" + "n" * 92 + "…"
    assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(done.stdout.decode())


async def test_json_has_everything_and_no_control_characters() -> None:
    async with simulated_provider(models=MODELS) as provider:
        done = await run_ultra("models", "--all", "anthropic", "--json", env=provider.environment)

    assert (done.returncode, done.stderr) == (0, b"")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert [model["name"] for model in found] == [f"anthropic:{name}" for name in MODELS]
    assert found[1]["info"]["context_window"] is None
    assert b"\x1b" not in done.stdout
    assert b"\xc2\x9b" not in done.stdout


@pytest.mark.parametrize("protocol", ["gemini", "ollama"])
async def test_other_protocols_have_their_lists(protocol: str) -> None:
    async with simulated_provider(models=["a"]) as provider:
        done = await run_ultra("models", "--all", protocol, env=provider.environment)
    assert done.stdout.decode().splitlines()[1].split()[0] == f"{protocol}:a"


async def test_a_provider_without_models_is_told() -> None:
    async with simulated_provider(models=[]) as provider:
        done = await run_ultra("models", "--all", "ollama", env=provider.environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"ultra: ollama offers no models\n")


@pytest.mark.parametrize(
    ("provider", "env", "code", "says"),
    [
        ("openai", {}, 1, "no key for openai: pass api_key or set OPENAI_API_KEY"),
        ("opnai", {}, 1, "there is no provider 'opnai'; the providers are: local, openai"),
        ("ollama", {"OLLAMA_HOST": "127.0.0.1:9"}, 1, "ollama: cannot connect"),
        ("ollama", {"OLLAMA_HOST": "http://"}, 1, "base_url must look like"),
    ],
)
async def test_an_error_is_one_line_and_with_json_a_document(
    provider: str, env: dict[str, str], code: int, says: str
) -> None:
    done = await run_ultra("models", "--all", provider, env=env)
    assert (done.returncode in {code, 2}, done.stdout) == (True, b"")
    assert says in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1

    told = await run_ultra("models", "--all", provider, "--json", env=env)
    assert says in json.loads(told.stdout)["error"]["message"]


async def test_a_refusal_shows_no_key() -> None:
    key = "sk-a-key-that-must-not-be-seen"
    async with simulated_provider(api_key="another-key") as provider:
        done = await run_ultra(
            "models", "--all", "openai", env=provider.environment | {"OPENAI_API_KEY": key}
        )
    assert done.returncode == 1
    assert key.encode() not in done.stderr
    assert b"[auth, HTTP 401]" in done.stderr


def test_the_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["models", "--help"]) == 0
    assert "--all PROVIDER" in capsys.readouterr().out
