"""`ultra ask` with a configuration: the one that was given, or the one in the working directory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from helpers.chat_server import chat_server
from helpers.command_line import run_ultra

if TYPE_CHECKING:
    from pathlib import Path

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
    result = json.loads(done.stdout)
    assert [step["name"] for step in result["steps"]] == ["initial"]
    assert list(result["initial_responses"]) == ["light"]


async def test_models_that_are_named_stand_before_the_configuration_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ultra.toml").write_text("this is no configuration", "utf-8")
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        done = await run_ultra("ask", "?", "--model", "openai:first", env=server.environment)

    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_configuration_has_a_strategy_with_its_options(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    own = '[run.strategy]\nname = "synthesize"\nstages = ["initial", "synthesis"]'
    path.write_text(CONFIGURATION.replace('[run]\nstages = ["initial"]', own), "utf-8")
    async with chat_server() as server:
        done = await run_ultra("ask", "Where?", "--config", str(path), "--json", env=server.environment)
        other = await run_ultra(
            *("ask", "Where?", "--config", str(path), "--strategy", "vote", "--json"), env=server.environment
        )

    assert done.returncode == 0
    assert [step["name"] for step in json.loads(done.stdout)["steps"]] == ["initial", "synthesis"]
    assert json.loads(other.stdout)["strategy"] == "vote"


OWN_CLASS = """\
[run]
strategy = "mine:Heaviest"
[models.a]
model = "openai:first"
"""

MODULE = """\
print("imported")
from ultra.strategies import Answer


class Heaviest:
    async def run(self, context):
        with context.step("initial"):
            return Answer(await context.ask_first(context.request, required=True), "selected")
"""


async def test_a_file_that_was_not_named_has_no_code_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ultra.toml").write_text(OWN_CLASS, "utf-8")
    (tmp_path / "mine.py").write_text(MODULE, "utf-8")
    async with chat_server() as server:
        found = await run_ultra("ask", "?", env=server.environment)
        checked = await run_ultra("config", "check", env=server.environment)
        named = await run_ultra("ask", "?", "--config", "ultra.toml", env=server.environment)

    for refused in (found, checked):
        assert (refused.returncode, refused.stdout) == (2, b"")
        assert refused.stderr.startswith(
            b"ultra: ultra.toml:2: run.strategy: 'mine:Heaviest' is not imported"
        )
    assert b"pass --config ultra.toml" in found.stderr
    assert b"ultra config check ultra.toml" in checked.stderr
    assert named.returncode == 0
    assert named.stdout.startswith(b"imported\n")


ELSEWHERE = '[run]\nstages = ["initial"]\n[models.a]\nmodel = "openai:first"\nbase_url = "{url}"\n{key}'

SENT_UNASKED = {
    "": "",
    "by its name": 'api_key = "${OPENAI_API_KEY}"\n',
    "in a header": 'api_key = "mine"\noptions = { extra_headers = { mine = "${OPENAI_API_KEY}" } }\n',
}


@pytest.mark.parametrize("key", SENT_UNASKED.values(), ids=SENT_UNASKED)
@pytest.mark.parametrize("command", [("ask", "?"), ("config", "check", "--ask")], ids=["ask", "check"])
async def test_a_file_that_was_not_named_gets_no_key_for_an_endpoint_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        text = ELSEWHERE.format(url=server.environment["OPENAI_BASE_URL"], key=key)
        (tmp_path / "ultra.toml").write_text(text, "utf-8")
        found = await run_ultra(*command, env={"OPENAI_API_KEY": "not-a-real-key"})
        asked_by_stranger = bool(server.scripts)
        option = ("--config",) if command[0] == "ask" else ()
        named = await run_ultra(*command, *option, "ultra.toml", env={"OPENAI_API_KEY": "not-a-real-key"})

    assert (found.returncode, asked_by_stranger) == (2, False)
    assert b"ultra.toml:5: models.a.base_url: the key in OPENAI_API_KEY is not sent" in found.stderr
    assert b"not-a-real-key" not in found.stdout + found.stderr
    assert named.returncode == 0


async def test_a_file_that_was_not_named_may_have_an_endpoint_with_a_key_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        url = server.environment["OPENAI_BASE_URL"]
        text = ELSEWHERE.format(url=url, key='api_key = "${MY_KEY}"\n')
        (tmp_path / "ultra.toml").write_text(text, "utf-8")
        done = await run_ultra("ask", "?", env={"OPENAI_API_KEY": "not-a-real-key", "MY_KEY": "mine"})

    assert done.returncode == 0


async def test_a_configuration_that_is_wrong_or_given_beside_models_is_bad_usage(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[models.a]\nmodle = 1\n", "utf-8")

    wrong = await run_ultra("ask", "?", "--config", str(path))
    both = await run_ultra("ask", "?", "--config", str(path), "--model", "openai:first")

    assert (wrong.returncode, both.returncode) == (2, 2)
    assert f"{path}:2: models.a.modle: unknown key".encode() in wrong.stderr
    assert b"give one of them" in both.stderr
