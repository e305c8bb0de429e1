"""Clients of the user's own in `ultra.toml`, and the cluster in whose processes they are made."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from ultra import MultiLLMOrchestrator
from ultra.cli.config import check
from ultra.cli.kept_text import known_secrets
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.untrusted import wishes
from ultra.errors import BadCall, ConfigError, MissingExtra
from ultra.evals.graders import make_grader
from ultra.strategies.catalog import load_strategy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
made = []

class Llama:
    def __init__(self, path, *, answer="Paris."):
        if path == "nowhere":
            raise OSError("no weights")
        made.append(path)
        self.answer = answer

    async def generate(self, prompt):
        return self.answer

function = len
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_llama.py").write_text(MODULE, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_llama", None)


def written(folder: Path, text: str) -> Path:
    path = folder / "ultra.toml"
    path.write_text(text, "utf-8")
    return path


async def test_a_client_of_the_users_own_answers_as_any_other(folder: Path) -> None:
    path = written(
        folder,
        '[models.llama]\nclient = "my_llama:Llama"\nweight = 2\n'
        'options = { path = "/w", answer = "Rome." }\n',
    )
    async with MultiLLMOrchestrator.from_config(path) as orchestrator:
        results = await orchestrator.process_responses("?", stages=["initial"])
    assert results["initial_responses"]["llama"].content == "Rome."
    assert sys.modules["my_llama"].made == ["/w"]


@pytest.mark.parametrize("ask", [False, True])
def test_a_check_makes_each_client_once(folder: Path, *, ask: bool) -> None:
    text = "".join(
        f'[models.{name}]\nclient = "my_llama:Llama"\noptions = {{ path = "/{name}" }}\n' for name in "ab"
    )
    assert check(written(folder, text), ask=ask) == 0
    assert sorted(sys.modules["my_llama"].made) == ["/a", "/b"]


def test_a_check_tells_of_every_client_that_cannot_be_made(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = 'client = "my_llama:Llama"\noptions = { path = "nowhere" }\n'
    path = written(folder, f"[models.a]\n{bad}[models.b]\n{bad}")
    assert check(path) == 2
    told = capsys.readouterr().err
    assert (f"{path}:1: models.a: " in told, f"{path}:4: models.b: " in told) == (True, True)


def test_a_placed_client_is_made_in_the_cluster_and_not_here(folder: Path) -> None:
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    path = written(
        folder,
        '[models.llama]\nclient = "my_llama:Llama"\noptions = { path = "/w" }\n'
        "placement = { num_gpus = 0.5, resources = { a100 = 1 }, start_timeout = 7 }\n"
        '[cluster.ray]\naddress = "head:6379"\n',
    )
    configuration = load_configuration(path)
    (client,) = configuration.models["llama"].connect(configuration.cluster)
    assert repr(client) == "<PlacedModel Llama num_gpus=0.5>"
    MultiLLMOrchestrator.from_config(path)  # which connects to nothing
    assert sys.modules["my_llama"].made == []


def test_a_placed_client_may_have_a_model_behind_an_api_as_its_second_deployment(folder: Path) -> None:
    path = written(
        folder,
        '[models.llama]\nmodel = [{ client = "my_llama:Llama", options = { path = "/w" } }, "openai:any"]\n'
        'api_key = "any-key-will-do"\n',
    )
    model = load_configuration(path).models["llama"]
    assert [each.what for each in model.deployments] == ["my_llama:Llama", "openai:any"]
    assert [type(each).__name__ for each in model.connect()] == ["Llama", "OpenAIClient"]


CLIENT = '[models.a]\nclient = "my_llama:Llama"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            '[models.a]\nclient = "llama"\n',
            "2: models.a.client: client is 'llama'; allowed is a class of",
        ),
        ('[models.a]\nclient = "my llama:x"\n', "allowed is a class of your own, as package.module:Class"),
        (f'{CLIENT}model = "openai:x"\n', "model and client are both given"),
        (f'{CLIENT}api_key = "k"\n', "api_key is for models of providers"),
        (f"{CLIENT}placement = {{ num_gpu = 1 }}\n", "placement.num_gpu: unknown key; allowed are: num_gpus"),
        (f"{CLIENT}placement = {{ num_gpus = -1 }}\n", "num_gpus is -1"),
        (f"{CLIENT}placement = {{ resources = {{ a = -2 }} }}\n", "resources of 'a' is -2"),
        (f"{CLIENT}placement = {{ start_timeout = 0 }}\n", "start_timeout is 0"),
        (f'{CLIENT}placement = {{ scheduling_strategy = "x" }}\n', "SPREAD"),
        (
            '[models.a]\nmodel = "openai:x"\nplacement = { num_gpus = 1 }\n',
            "placement is for a client of your",
        ),
        (
            "[models.a]\nweight = 1\n",
            "it has no model; give model = 'provider:model', or client",
        ),
        (
            f'{CLIENT}[cluster.ray]\naddress = "ray://head:10001"\n',
            "Ray's own client (ray://) is not",
        ),
        (f"{CLIENT}[cluster.ray]\nadress = 1\n", "cluster.ray.adress: unknown key; allowed are: address"),
        (f"{CLIENT}[cluster.slurm]\nx = 1\n", "cluster.slurm: unknown key; allowed are: ray"),
    ],
)
def test_what_is_not_allowed_is_named(folder: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_configuration(written(folder, text))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("client", "options", "said"),
    [
        ("nowhere:Llama", "", "client 'nowhere:Llama' cannot be loaded: ModuleNotFoundError"),
        ("my_llama:Lama", "", "cannot be loaded: AttributeError"),
        ("my_llama:function", "", "it must be a class"),
        ("my_llama:Llama", "", "cannot be made with its options (none): missing a required argument: 'path'"),
        ("my_llama:Llama", 'options = { path = "nowhere" }', "cannot be made: OSError: no weights"),
    ],
)
def test_a_client_that_cannot_be_made_is_told_with_its_place(
    folder: Path, client: str, options: str, said: str
) -> None:
    path = written(folder, f'[models.a]\nclient = "{client}"\n{options}\n')
    with pytest.raises(ConfigError) as caught:
        MultiLLMOrchestrator.from_config(path)
    assert f"{path}:1" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "text", ["import sys\nsys.exit(0)\n", "class Llama:\n    def __init__(self): raise SystemExit(0)\n"]
)
def test_a_module_that_ends_the_program_is_told(folder: Path, text: str) -> None:
    (folder / "my_llama.py").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"client 'my_llama:Llama' cannot be (loaded|made): SystemExit"):
        MultiLLMOrchestrator.from_config(written(folder, CLIENT))
    if text.startswith("import"):
        with pytest.raises(BadCall, match="cannot be loaded: SystemExit"):
            load_strategy("my_llama:Llama")
        with pytest.raises(BadCall, match="cannot be loaded: SystemExit"):
            make_grader("my_llama:grade", is_named=True)


def test_without_ray_a_placed_model_says_which_extra_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [
        each for each in sys.modules if each == "ray" or each.startswith(("ray.", "ultra.cluster.ray"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    path = written(folder, f'{CLIENT}options = {{ path = "/w" }}\nplacement = {{}}\n')
    with pytest.raises(MissingExtra, match="ray"):
        MultiLLMOrchestrator.from_config(path)


def test_a_file_that_is_found_may_neither_run_code_nor_reach_a_cluster(folder: Path) -> None:
    path = written(
        folder,
        '[models.a]\nclient = "my_llama:Llama"\nplacement = {}\n'
        '[models.b]\nmodel = [{ client = "my_llama:Llama", placement = {} }]\n'
        '[cluster.ray]\naddress = "head:6379"\n',
    )
    assert set(dict(wishes(ConfigurationFile.read(path).table()))) == {
        ("models", "a", "client"),
        ("models", "a", "placement"),
        ("models", "b", "model", "client"),
        ("models", "b", "model", "placement"),
        ("cluster", "ray"),
    }


def test_what_is_shown_of_a_model_names_its_client(folder: Path) -> None:
    model = load_configuration(written(folder, CLIENT)).models["a"]
    assert "my_llama:Llama" in repr(model)
    assert "my_llama:Llama" in repr(model.deployments[0])
    with pytest.raises(BadCall):
        model.connect()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{CLIENT}placement = {{ num_gpu = 1 }}\n", "placement.num_gpu: unknown key"),
        (f"{CLIENT}retry = {{ attemps = 1 }}\n", "retry.attemps: unknown key"),
        (f"{CLIENT}[cluster.ray]\nadress = 1\n", "cluster.ray.adress: unknown key"),
        ("[models.a]\nclient = 3\n", "models.a.client: found 3"),
        ("[models.a]\nmodel = [{ client = 'a:B', wait = 2 }]\n", "models.a.model.0: unknown key wait"),
    ],
)
def test_what_is_wrong_is_told_once(folder: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_configuration(written(folder, text))
    told = str(caught.value).splitlines()
    assert len(told) == 1, told
    assert problem in told[0]


@pytest.mark.parametrize(
    "given",
    [
        'options = { path = "/w", token = "sk-hidden" }',
        'options = { path = "/w" }\nplacement = { runtime_env = "sk-hidden" }',
        'options = { path = "/w" }\nplacement = { runtime_env = { env_vars = "sk-hidden" }, num_gpus = "x" }',
    ],
)
def test_an_error_tells_no_value_of_options_and_of_the_environment(folder: Path, given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MultiLLMOrchestrator.from_config(written(folder, f"{CLIENT}{given}\n"))
    assert "sk-hidden" not in str(caught.value)


def test_a_placement_shows_no_variable_of_its_environment(folder: Path) -> None:
    given = 'placement = { num_gpus = 1, runtime_env = { env_vars = { KEY = "sk-hidden" } } }\n'
    configuration = load_configuration(written(folder, f'{CLIENT}options = {{ path = "/w" }}\n{given}'))
    placement = configuration.models["a"].placement
    assert placement is not None
    assert placement.options()["runtime_env"] == {"env_vars": {"KEY": "sk-hidden"}}
    assert "num_gpus=1" in repr(placement)
    assert "sk-hidden" not in repr([placement, configuration, configuration.models["a"].deployments])


def test_the_history_hides_what_options_and_environments_have_under_names_of_keys(folder: Path) -> None:
    given = (
        'options = { tokenizer = "/w/weights", token = "t-hidden-1", more = [{ api_key = "t-hidden-2" }] }\n'
        'placement = { runtime_env = { env_vars = { HF_TOKEN = "t-hidden-3" } } }\n'
    )
    secrets = known_secrets(load_configuration(written(folder, f"{CLIENT}{given}")))
    assert {"t-hidden-1", "t-hidden-2", "t-hidden-3"} <= secrets
    assert "/w/weights" not in secrets
