"""The configuration file: what it may hold, and what its errors say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultra import BadCall, MultiLLMOrchestrator
from ultra.cli.config import check, init
from ultra.clients import ProviderStatus
from ultra.config.loading import load_configuration
from ultra.config.sections import ModelConfig
from ultra.errors import ConfigError
from ultra.messages.options import RunOptions
from ultra.strategies import BestOf, Strategy, Synthesize, Vote
from ultra.strategies.stages import BUILT_IN

WHOLE = """\
[run]
stages = ["initial", "synthesis"]
quorum = "all"
timeout = 30
judge = "gpt"

[cache]
store = "memory"

[retry]
max_retries = 1

[models.gpt]
model = "openai:gpt-4o-mini"
weight = 2
api_key = "${ULTRA_TEST_KEY}"
options = { temperature = 0.2 }
limits = { concurrency = 4, requests_per_minute = 60 }
price = { input = 0.15, output = 0.60 }

[models.claude]
model = ["anthropic:claude", "openrouter:anthropic/claude"]
hedge_after = "p95"
"""


def names(model: ModelConfig) -> list[str]:
    return [deployment.model for deployment in model.deployments]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_whole_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRA_TEST_KEY", "sk-secret")

    configuration = load_configuration(write(tmp_path, WHOLE))

    gpt, claude = configuration.models["gpt"], configuration.models["claude"]
    assert (gpt.weight, gpt.api_key, names(gpt)) == (2.0, "sk-secret", ["openai:gpt-4o-mini"])
    assert gpt.limits is not None
    assert gpt.limits.requests_per_minute == 60
    assert names(claude) == ["anthropic:claude", "openrouter:anthropic/claude"]
    assert configuration.run.quorum == "all"
    assert configuration.retry is not None
    assert configuration.retry.max_retries == 1
    assert "sk-secret" not in repr(configuration)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "says"),
    [
        ("weight = 2", 'weight = "two"', 15, "models.gpt.weight", "found 'two'"),
        ("weight = 2", "wieght = 2", 15, "models.gpt.wieght", "allowed are: model, weight"),
        ("[retry]", "[retries]", 10, "retries", "allowed are: run, cache, retry"),
        ("max_retries = 1", "max_retries = -1", 11, "retry.max_retries", "0 or more"),
        ("timeout = 30", "timeout = 0", 4, "run.timeout", "a number above 0"),
        ('judge = "gpt"', 'judge = "nobody"', 5, "run.judge", "allowed are: gpt, claude"),
        ('quorum = "all"', "quorum = 3", 3, "run.quorum", "between 1 and 2"),
        ("concurrency = 4", "concurency = 4", 18, "models.gpt.limits.concurency", "allowed are: concurrency"),
        (
            "concurrency = 4",
            "concurrency = 0",
            18,
            "models.gpt.limits.concurrency",
            "a whole number, 1 or more",
        ),
        ("${ULTRA_TEST_KEY}", "${ULTRA_NO_SUCH}", 16, "models.gpt.api_key", "ULTRA_NO_SUCH is not set"),
    ],
)
def test_an_error_gives_file_line_key_what_was_found_and_what_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, line: int, key: str, says: str
) -> None:
    monkeypatch.setenv("ULTRA_TEST_KEY", "sk-secret")
    path = write(tmp_path, WHOLE.replace(old, new))

    with pytest.raises(ConfigError) as caught:
        load_configuration(path)

    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: {key}")
    assert says in message
    assert "sk-secret" not in message


@pytest.mark.parametrize("text", ["", "[models]\n"])
def test_a_configuration_without_models_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="no models"):
        load_configuration(write(tmp_path, text))


def test_what_is_no_toml_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not TOML"):
        load_configuration(write(tmp_path, "x ="))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_configuration(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_configuration(tmp_path)


async def test_an_orchestrator_is_made_from_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ULTRA_TEST_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY"):
        monkeypatch.setenv(name, "sk-secret")

    orchestrator = MultiLLMOrchestrator.from_config(write(tmp_path, WHOLE))

    assert orchestrator.get_prioritized_models() == ["gpt", "claude"]
    with pytest.raises(BadCall, match="quorum"):
        await orchestrator.process_responses("Q", quorum=3)


@pytest.mark.parametrize(
    ("text", "strategy"),
    [
        ("", Synthesize(stages=tuple(BUILT_IN.values()))),
        ('[run]\nstrategy = "vote"\n', Vote()),
        ('[run]\nstrategy = { name = "best_of" }\n', BestOf()),
        (
            '[run.strategy]\nname = "synthesize"\nstages = ["initial"]\n',
            Synthesize(stages=(BUILT_IN["initial"],)),
        ),
        ('[run]\nstrategy = "synthesize"\nstages = ["initial"]\n', Synthesize(stages=(BUILT_IN["initial"],))),
        ('[run]\nstrategy = "ultra.strategies:Vote"\n', Vote()),
    ],
)
def test_a_strategy_is_read_with_its_options(tmp_path: Path, text: str, strategy: Strategy) -> None:
    orchestrator = MultiLLMOrchestrator.from_config(write(tmp_path, text + ONE))
    assert orchestrator._planner._strategy == strategy


def test_grace_and_samples_hold_for_every_run(tmp_path: Path) -> None:
    orchestrator = MultiLLMOrchestrator.from_config(
        write(tmp_path, "[run]\ngrace = 0\nsamples = 3\ntimeout = 9\n" + ONE)
    )
    assert orchestrator.run_defaults.options == RunOptions(grace=0, samples=3, timeout=9)


def test_a_model_that_cannot_be_connected_to_says_which_key_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"ultra.toml:1: models.a: no key .* set OPENAI_API_KEY"):
        MultiLLMOrchestrator.from_config(write(tmp_path, '[models.a]\nmodel = "openai:x"\n'))


def test_init_writes_a_configuration_that_check_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    path = tmp_path / "new.toml"

    init(path)
    assert check(path) == 0

    assert "sk-secret" not in path.read_text("utf-8") + capsys.readouterr().out
    assert names(load_configuration(path).models["openai"]) == ["openai:gpt-4o-mini"]
    with pytest.raises(ConfigError, match="--force"):
        init(path)


def test_check_reports_every_model_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(
        tmp_path,
        '[models.a]\nmodel = "nope:x"\n[models.b]\nmodel = "openai:x"\napi_key = "k"\nbase_url = ""\n',
    )
    assert check(path) == 2
    assert f"ultra: {path}:1: models.a: there is no provider 'nope'" in capsys.readouterr().err


ONE = '[models.a]\nmodel = "vllm:x"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[run]\nstages = ["intial"]\n' + ONE, "2: run.stages: unknown stage 'intial'; there are: initial"),
        ('[run]\nstages = "initial"\n' + ONE, "2: run.stages: found 'initial'; allowed is a list"),
        (
            '[run]\nquorum = "most"\n' + ONE,
            "2: run.quorum: found 'most'; allowed is a whole number, or 'all'",
        ),
        ('[cache]\nstore = "sqlte:///x"\n' + ONE, "2: cache.store: cache='sqlte://...' is not allowed"),
        ("[run]\nmax_cost = 1.0\n" + ONE, "2: run.max_cost: no model has a price"),
        ("[run]\ngrace = -1\n" + ONE, "2: run.grace: found -1.0; allowed is a number, 0 or more"),
        ("[run]\ngrace = nan\n" + ONE, "2: run.grace: found nan; allowed is a number, 0 or more"),
        ("[run]\nsamples = 0\n" + ONE, "2: run.samples: found 0; allowed is a number above 0"),
        ("[run]\nsamples = 1.5\n" + ONE, "2: run.samples: found 1.5; allowed is a whole number"),
        ('[run]\nstrategy = "vot"\n' + ONE, "2: run.strategy: unknown strategy 'vot'; there are: synthesize"),
        (
            "[run]\nstrategy = 3\n" + ONE,
            "2: run.strategy: found 3; allowed is the name of a strategy, or a section with its name and its",
        ),
        (
            '[run]\nstrategy = { nme = "vote" }\n' + ONE,
            '2: run.strategy: it has no name; add one, such as name = "vote"',
        ),
        (
            "[run.strategy]\nname = 7\n" + ONE,
            "2: run.strategy.name: found 7; allowed is the name of a strategy",
        ),
        (
            '[run]\nstrategy = { name = "vote", rounds = 2 }\n' + ONE,
            "2: run.strategy: strategy 'vote' has no option 'rounds'; it has: weights",
        ),
        (
            '[run.strategy]\nname = "best_of"\nverify = "yes"\n' + ONE,
            "1: run.strategy: an option of strategy 'best_of' is not allowed: Expected `Callable`",
        ),
        (
            '[run.strategy]\nname = "synthesize"\nstages = ["intial"]\n' + ONE,
            "1: run.strategy: unknown stage 'intial'; there are: initial, meta, synthesis",
        ),
        (
            '[run]\nstrategy = "vote"\nstages = ["initial"]\n' + ONE,
            "2: run.strategy: strategy 'vote' has no stages; leave stages out",
        ),
        (
            '[run]\nstrategy = "no_such_module:Mine"\n' + ONE,
            "2: run.strategy: strategy 'no_such_module:Mine' cannot be loaded: ModuleNotFoundError",
        ),
        (ONE + "weight = -1\n", "1: models.a: the weight is -1.0"),
        (ONE + 'hedge_after = "p99"\n', "3: models.a.hedge_after: found 'p99'; allowed is a number of sec"),
        (ONE + "options = { temprature = 1 }\n", "1: models.a: unknown option 'temprature'"),
        (
            ONE + 'options = { api_key = "sk-1" }\n',
            "1: models.a: api_key is not one of the options; it stands",
        ),
        (ONE + 'options = { base_url = "x" }\n', "1: models.a: base_url is not one of the options"),
        (ONE + 'options = { name = "x" }\n', "1: models.a: name is not one of the options"),
        (ONE + "options = { transport = 1 }\n", "1: models.a: transport is not one of the options"),
        ("[run]\nquorum = true\n" + ONE, "2: run.quorum: found True; allowed is a whole number, or 'all'"),
        (
            '[models.a]\nmodel = [{ modl = "vllm:x" }]\n',
            "2: models.a.model.0: unknown key modl; allowed are: model, api_key, base_url, options",
        ),
        ("[models.a]\nmodel = []\n", "2: models.a.model: model is empty"),
        ('[models.a]\nmodel = ["vllm:x", 3]\n', "2: models.a.model.1: found 3; allowed is text or a section"),
        ('[[models]]\nmodel = "vllm:x"\n', "1: models: allowed is a section"),
    ],
)
def test_what_only_an_orchestrator_can_check_has_its_place_too(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        MultiLLMOrchestrator.from_config(path)
    assert str(caught.value).startswith(f"{path}:{says}")


@pytest.mark.parametrize("name", ["api_key", "base_url"])
def test_a_key_for_one_provider_is_not_given_to_another(tmp_path: Path, name: str) -> None:
    text = f'[models.a]\nmodel = ["anthropic:c", "openrouter:c"]\n{name} = "http://sk-secret"\n'
    with pytest.raises(ConfigError, match="of anthropic and openrouter; give them their own") as caught:
        load_configuration(write(tmp_path, text))
    assert "sk-secret" not in str(caught.value)


def test_deployments_may_have_keys_and_options_of_their_own(tmp_path: Path) -> None:
    text = """\
[models.a]
model = [{ model = "anthropic:c", api_key = "one", options = { seed = 2 } }, "openrouter:c"]
options = { seed = 1, top_p = 0.5 }
"""
    first, second = load_configuration(write(tmp_path, text)).models["a"].deployments
    assert (first.api_key, first.options) == ("one", {"seed": 2, "top_p": 0.5})
    assert (second.api_key, second.options) == (None, {"seed": 1, "top_p": 0.5})
    assert "one" not in repr((first, second))


@pytest.mark.parametrize(
    "text",
    [
        '[models.a]\napi_key = "sk-secret"\n',
        '[models.a]\nmodel = "vllm:x"\napi_key = ["sk-secret"]\n',
        '[models.a]\nmodel = "vllm:x"\noptions = "sk-secret"\n',
        '[[models]]\napi_key = "sk-secret"\n',
        '[models.a]\nmodel = "vllm:x"\nbase_url = "ftp://me:sk-secret@host"\n',
    ],
)
def test_no_error_shows_what_may_be_a_key(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MultiLLMOrchestrator.from_config(write(tmp_path, text))
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '[models.a]\nmodel = "vllm:x"\n[run]\njudge = "${ULTRA_TEST_KEY}"\n',
        '[models.a]\nmodel = "${ULTRA_TEST_KEY}"\n',
        '[models.a]\nmodel = "vllm:x"\n[run]\nstages = ["${ULTRA_TEST_KEY}"]\n',
        '[models.a]\nmodel = "vllm:x"\n[cache]\nstore = "${ULTRA_TEST_KEY}"\n',
        '[models.a]\nmodel = "vllm:x"\nbase_url = "${ULTRA_TEST_KEY}"\n',
    ],
)
def test_what_stands_where_no_key_belongs_is_told_by_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ULTRA_TEST_KEY", "sk-secret")
    with pytest.raises(ConfigError, match="ULTRA_TEST_KEY") as caught:
        MultiLLMOrchestrator.from_config(write(tmp_path, text))
    assert "sk-secret" not in str(caught.value)


def test_init_takes_the_embedded_model_only_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, other = (
        ProviderStatus(name=name, available=True, detail="here", example=f"{name}:m")
        for name in ("local", "groq")
    )
    for found, expected in (([local, other], ["groq"]), ([local], ["local"])):
        monkeypatch.setattr("ultra.clients.provider_statuses", lambda found=found: found)
        path = tmp_path / f"{expected[0]}.toml"
        init(path)
        assert list(load_configuration(path).models) == expected


MANY = """\
[run]
timeout = 0
quorum = 5
wrong = 1
strategy = "vot"

[retry]
max_retries = -1
multiplier = "two"

[caches]

[models.gpt]
model = "openia:gpt-4o-mini"
weight = "two"
wieght = 2
limits = { concurrency = 0, requests_per_minute = -1 }

[models.mine]
model = "openai:gpt-4o-mini"
api_key = "${ULTRA_NO_SUCH}"
temperature = 1
"""


async def test_a_check_tells_all_errors_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ULTRA_NO_SUCH", raising=False)
    path = write(tmp_path, MANY)

    assert check(path) == 2

    lines = [line.removeprefix(f"ultra: {path}:") for line in capsys.readouterr().err.splitlines()]
    expected = [
        (2, "run.timeout"),
        (3, "run.quorum"),
        (4, "run.wrong"),
        (5, "run.strategy"),
        (8, "retry.max_retries"),
        (9, "retry.multiplier"),
        (11, "caches"),
        (13, "models.gpt"),
        (15, "models.gpt.weight"),
        (16, "models.gpt.wieght"),
        (17, "models.gpt.limits.concurrency"),
        (17, "models.gpt.limits.requests_per_minute"),
        (21, "models.mine.api_key"),
        (22, "models.mine.temperature"),
    ]
    assert [tuple(line.split(": ")[:2]) for line in lines] == [(str(number), key) for number, key in expected]
