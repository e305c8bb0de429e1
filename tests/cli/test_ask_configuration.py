"""`ultra ask` with a configuration: the one that was given, or the one in the working directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from chat_server import chat_server
from program import run_ultra

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

CONFIGURATION = """\
[run]
stages = ["initial"]

[models.heavy]
model = "openai:first"
weight = 2
price = { input = 1000.0, output = 1000.0 }

[models.light]
model = "openai:second"
"""


async def test_a_configuration_in_the_working_directory_is_used_and_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ultra.toml").write_text(CONFIGURATION, "utf-8")
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", env=server.environment)

    output = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"ultra: ultra.toml: heavy, light\n")
    assert "--- initial: heavy" in output
    assert "--- meta" not in output
    assert output.endswith("\ncost: $0.0100, without light\n")


async def test_a_configuration_can_be_given_and_its_models_chosen(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIGURATION, "utf-8")
    async with chat_server() as server:
        done = await run_ultra(
            *("ask", "Where?", "--config", str(path), "--models", "light", "--json"), env=server.environment
        )

    assert done.returncode == 0
    assert list(json.loads(done.stdout)["stages"]["initial"]) == ["light"]


async def test_models_that_are_named_stand_before_the_configuration_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ultra.toml").write_text("this is no configuration", "utf-8")
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        done = await run_ultra("ask", "?", "--model", "openai:first", env=server.environment)

    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_configuration_that_is_wrong_or_given_beside_models_is_bad_usage(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[models.a]\nmodle = 1\n", "utf-8")

    wrong = await run_ultra("ask", "?", "--config", str(path))
    both = await run_ultra("ask", "?", "--config", str(path), "--model", "openai:first")

    assert (wrong.returncode, both.returncode) == (2, 2)
    assert f"{path}:2: models.a.modle: unknown key".encode() in wrong.stderr
    assert b"give one of them" in both.stderr
