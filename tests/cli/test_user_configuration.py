"""The user's own configuration, under that of the project."""

# ruff: noqa: ASYNC240 - small files of the test
from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest
import trio

from helpers.chat_server import chat_server
from helpers.command_line import PATIENCE, ended, run_ultra, ultra_running
from ultra.config.file import ConfigurationFile
from ultra.config.layers import load_layers
from ultra.errors import ConfigError

OWN = """\
[run]
ensemble = "pair"
timeout = 50
[models.a]
model = "openai:first"
api_key = "not-a-real-key"
[models.b]
model = "openai:second"
[ensembles.pair]
models = ["a", "b"]
[ensembles.one]
models = ["b"]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "project"
    here.mkdir()
    monkeypatch.chdir(here)
    path = tmp_path / "config" / "ultra" / "ultra.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    path.chmod(0o600)
    return path


def home(own: Path) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": str(own.parent.parent), "XDG_STATE_HOME": str(own.parent.parent / "state")}


def layers(tmp_path: Path, *texts: str) -> list[ConfigurationFile]:
    return [
        ConfigurationFile(tmp_path / f"{number}.toml", text.encode()) for number, text in enumerate(texts)
    ]


async def test_the_users_own_file_holds_everywhere_and_has_a_default_ensemble(own: Path) -> None:
    async with chat_server() as server:
        env = {**server.environment, **home(own)}
        done = await run_ultra("ask", "?", "--json", env=env)
        other = await run_ultra("ask", "?", "--json", "-e", "one", env=env)
        path = await run_ultra("config", "path", env=env)
        checked = await run_ultra("config", "check", env=env)

    assert (done.returncode, done.stderr) == (0, f"ultra: {own}: ensemble pair: a, b\n".encode())
    assert list(json.loads(done.stdout)["initial_responses"]) == ["a", "b"]
    assert list(json.loads(other.stdout)["initial_responses"]) == ["b"]
    assert path.stdout.decode() == f"{own}\n"
    assert checked.stdout.decode() == f"{own}: 2 models, no errors\n"


async def test_the_projects_models_are_asked_and_the_users_can_be_named(own: Path) -> None:
    Path("ultra.toml").write_text('[models.c]\nmodel = "openai:third"\n')
    async with chat_server() as server:
        env = {**server.environment, **home(own)}
        done = await run_ultra("ask", "?", "--json", env=env)
        named = await run_ultra("ask", "?", "--json", "--models", "a,c", env=env)

    assert list(json.loads(done.stdout)["initial_responses"]) == ["c"]
    assert sorted(json.loads(named.stdout)["initial_responses"]) == ["a", "c"]


async def test_the_projects_file_needs_trust_as_ever_and_the_users_own_does_not(own: Path) -> None:
    Path("ultra.toml").write_text('[models.c]\nmodel = "openai:third"\nbase_url = "http://127.0.0.1:1/v1"\n')
    done = await run_ultra("ask", "?", env={**home(own), "OPENAI_API_KEY": "k"})
    Path("ultra.toml").unlink()
    own.chmod(0o666)
    open_to_others = await run_ultra("ask", "?", env=home(own))

    assert (done.returncode, open_to_others.returncode) == (2, 2)
    assert b"an endpoint of its own (ultra.toml:3" in done.stderr
    assert b"a key of its own" in open_to_others.stderr


def test_a_model_of_both_files_is_the_upper_one_whole(tmp_path: Path) -> None:
    below = '[models.a]\nmodel = "vllm:x"\napi_key = "mine"\nbase_url = "http://127.0.0.1/v1"\n'
    configuration, asked = load_layers(layers(tmp_path, below, '[models.a]\nmodel = "vllm:y"\n'))

    model = configuration.models["a"]
    assert (model.model, model.api_key, model.base_url, asked) == ("vllm:y", None, None, ("a",))


def test_settings_are_joined_key_by_key(tmp_path: Path) -> None:
    below = '[run]\ntimeout = 5\nquorum = 1\n[models.a]\nmodel = "vllm:x"\n'
    configuration, asked = load_layers(layers(tmp_path, below, "[run]\ntimeout = 9\n"))

    assert (configuration.run.timeout, configuration.run.quorum, asked) == (9, 1, None)


def test_an_error_names_the_file_that_it_is_in(tmp_path: Path) -> None:
    below = '[run]\nquorum = 7\n[models.a]\nmodel = "vllm:x"\n'
    with pytest.raises(ConfigError) as caught:
        load_layers(layers(tmp_path, below, '\n[ensembles.e]\nmodels = ["b"]\n'))

    assert f"{tmp_path}/0.toml:2: run.quorum" in str(caught.value)
    assert f"{tmp_path}/1.toml:3: ensembles.e.models" in str(caught.value)


def test_a_default_ensemble_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.ensemble: found 'c'; allowed are: none"):
        load_layers(layers(tmp_path, '[run]\nensemble = "c"\n[models.a]\nmodel = "vllm:x"\n'))


async def test_models_lists_those_of_the_configurations_and_their_ensembles(own: Path) -> None:
    Path("ultra.toml").write_text('[models.c]\nmodel = "openai:third"\n[models.d]\nmodel = "nobody:x"\n')
    async with chat_server() as server:
        env = {**server.environment, **home(own)}
        done = await run_ultra("models", env=env)
        document = await run_ultra("models", "--json", env=env)

    lines = {line.split()[0]: " ".join(line.split()) for line in done.stdout.decode().splitlines()}
    assert lines["a"] == "a ready --models a openai:first, asked where you name it"
    assert lines["c"] == "c ready --models c openai:third"
    assert lines["d"].startswith("d no --models d ultra.toml:3: ")
    assert lines["pair"] == "pair ready -e pair a, b"
    assert lines["openai"].startswith("openai ready openai:")
    found = json.loads(document.stdout)
    kinds = {(each["kind"], each["name"]): each["available"] for each in found}
    assert [kinds[each] for each in (("model", "a"), ("ensemble", "one"), ("provider", "openai"))] == [
        True
    ] * 3
    assert not kinds["model", "d"]


async def test_models_tells_of_a_configuration_that_it_cannot_use_and_lists_the_rest(own: Path) -> None:
    Path("ultra.toml").write_text('[models.c]\nmodel = "openai:third"\nbase_url = "http://127.0.0.1:9"\n')
    done = await run_ultra("models", env=home(own))

    assert done.returncode == 0
    assert b"neither named nor trusted" in done.stderr
    assert b"openai" in done.stdout


@pytest.mark.parametrize("with_project", [False, True])
async def test_serve_offers_what_the_user_has_and_the_project(
    own: Path,
    with_project: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if with_project:
        Path("ultra.toml").write_text('[models.c]\nmodel = "openai:third"\n')
    async with chat_server() as server:
        env = {**server.environment, **home(own)}
        async with ultra_running("serve", "--port", "0", env=env) as process:
            assert process.stdout is not None
            with trio.fail_after(PATIENCE):
                url = (await process.stdout.receive_some()).decode().strip()
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]
                question = {"model": "ultra", "messages": [{"role": "user", "content": "?"}]}
                answer = await client.post("/v1/chat/completions", json=question)
            process.send_signal(signal.SIGTERM)
            code, errors = await ended(process)

    assert (code, answer.status_code) == (0, 200)
    assert {*names} == {"pair", "one", "ultra", "a", "b", *(["c"] if with_project else [])}
    assert {*server.scripts} == ({"third"} if with_project else {"first", "second"})
    assert f"using {'ultra.toml and ' if with_project else ''}{own}" in errors


async def test_serve_takes_what_is_usable_where_the_users_file_has_no_models(own: Path) -> None:
    own.write_text("[history]\nenabled = false\n")
    async with (
        chat_server() as server,
        ultra_running("serve", "--port", "0", env={**server.environment, **home(own)}) as process,
    ):
        assert process.stdout is not None
        with trio.fail_after(PATIENCE):
            url = (await process.stdout.receive_some()).decode().strip()
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE) as client:
            names = [model["id"] for model in (await client.get("/v1/models")).json()["data"]]

    assert names[0] == "ultra"
    assert names[1].startswith("openai/")
