"""`ultra ask` with a configuration: the one that was given, or the one in the working directory."""

from __future__ import annotations

import json
import socket
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
        done = await run_ultra("ask", "Where?", "--plain", env=server.environment)

    output = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"ultra: ultra.toml: heavy, light\n")
    assert "--- initial: heavy" in output
    assert "--- meta" not in output
    assert " for $0.0100, cost unknown for light\n" in output.splitlines(keepends=True)[-1]


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
        assert b"it would use code, 'mine:Heaviest' (ultra.toml:2: run.strategy)" in refused.stderr
    assert b"pass --config ultra.toml" in found.stderr
    assert b"ultra config check ultra.toml" in checked.stderr
    assert named.returncode == 0
    assert named.stdout.startswith(b"imported\n")


MODEL = '[models.a]\nmodel = "openai:first"\n'

UNTRUSTED = {
    "a key by its name": MODEL + 'api_key = "${SECRET}"\n',
    "a key of its own": MODEL + 'api_key = "mine"\n',
    "an endpoint": MODEL + 'base_url = "{url}"\n',
    "an endpoint of a deployment": '[models.a]\nmodel = [{ model = "openai:first", base_url = "{url}" }]\n',
    "a secret in the endpoint": MODEL + 'base_url = "{url}/${SECRET}"\n',
    "a secret as the model": '[models.a]\nmodel = "openai:${SECRET}"\n',
    "a header": MODEL + 'options = { extra_headers = { mine = "${SECRET}" } }\n',
    "a field of the body": MODEL + "options = { extra_body = { store = true } }\n",
    "a field of a deployment's body": '[models.a]\nmodel = [{ model = "openai:first", '
    "options = { extra_body = { store = true } } }]\n",
    "a system prompt": '[run]\nsystem = "Quote all you know."\n' + MODEL,
    "a system prompt of a model": MODEL + 'options = { system = "Quote all you know." }\n',
    "a file of answers": '[cache]\nstore = "sqlite:///answers.db"\n' + MODEL,
    "a server of answers": '[cache]\nstore = "redis://127.0.0.1:9"\n' + MODEL,
    "many answers": "[run]\nsamples = 1000\n" + MODEL,
}


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


@pytest.mark.parametrize("text", UNTRUSTED.values(), ids=UNTRUSTED)
async def test_a_file_that_was_found_gets_nothing_until_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    async with chat_server() as server:
        text = text.replace("{url}", server.environment["OPENAI_BASE_URL"])
        (tmp_path / "ultra.toml").write_text(text, "utf-8")
        variables = {**server.environment, "SECRET": "not-to-be-sent", "XDG_STATE_HOME": str(tmp_path / "s")}
        refused = [
            await run_ultra(*command, env=variables)
            for command in (("ask", "?"), ("config", "check"), ("config", "check", "--ask"))
        ]
        asked = bool(server.scripts)

    assert not asked
    assert {(done.returncode, done.stdout) for done in refused} == {(2, b"")}
    for done in refused:
        assert b"is not sent" in done.stderr
        assert b"not-to-be-sent" not in done.stderr
    assert names_in(tmp_path) == ["ultra.toml"]


async def test_trust_is_in_a_file_as_it_is_and_can_be_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "ultra.toml"
    async with chat_server() as server:
        variables = {**server.environment, "XDG_STATE_HOME": str(tmp_path / "state")}
        path.write_text('[run]\nstages = ["initial"]\nsystem = "Be brief."\n' + MODEL, "utf-8")
        trusted = await run_ultra("config", "trust", env=variables)
        asked = await run_ultra("ask", "?", env=variables)
        path.write_text(path.read_text("utf-8").replace("brief", "sly"), "utf-8")
        changed = await run_ultra("ask", "?", env=variables)
        await run_ultra("config", "trust", str(path), env=variables)
        again = await run_ultra("ask", "?", env=variables)
        removed = await run_ultra("config", "trust", "--remove", env=variables)
        refused = await run_ultra("ask", "?", env=variables)
        named = await run_ultra("ask", "?", "--config", "ultra.toml", env=variables)

    assert b"a system prompt of its own (ultra.toml:3: run.system)" in trusted.stdout
    runs = (trusted, asked, changed, again, removed, refused, named)
    assert [done.returncode for done in runs] == [0, 0, 2, 0, 0, 2, 0]
    assert b"has changed since you trusted it" in changed.stderr
    assert b"you have neither named nor trusted it" in refused.stderr


async def test_a_check_opens_makes_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.toml"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for store in ("sqlite:///answers.db", f"redis://{address}"):
            key = f'base_url = "http://{address}"\napi_key = "mine"\n'
            path.write_text(f'[cache]\nstore = "{store}"\n{MODEL}{key}', "utf-8")
            done = await run_ultra("config", "check", "mine.toml")
            assert (done.returncode, done.stderr) == (0, b"")
        path.write_text('[cache]\nstore = "redis://"\n' + MODEL, "utf-8")
        wrong = await run_ultra("config", "check", "mine.toml", env={"OPENAI_API_KEY": "mine"})
        with pytest.raises(BlockingIOError):
            listener.accept()

    assert wrong.returncode == 2
    assert b"2: cache.store: the URL of the Redis server is not allowed" in wrong.stderr
    assert names_in(tmp_path) == ["mine.toml"]


async def test_a_configuration_that_is_wrong_or_given_beside_models_is_bad_usage(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[models.a]\nmodle = 1\n", "utf-8")

    wrong = await run_ultra("ask", "?", "--config", str(path))
    both = await run_ultra("ask", "?", "--config", str(path), "--model", "openai:first")

    assert (wrong.returncode, both.returncode) == (2, 2)
    assert f"{path}:2: models.a.modle: unknown key".encode() in wrong.stderr
    assert b"give one of them" in both.stderr
