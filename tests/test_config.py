"""The configuration file: what it may hold, and what its errors say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultra import BadCall, MultiLLMOrchestrator
from ultra.cli.config import check, init
from ultra.config import load_configuration
from ultra.errors import ConfigError

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


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_whole_configuration_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ULTRA_TEST_KEY", "sk-secret")

    configuration = load_configuration(write(tmp_path, WHOLE))

    gpt, claude = configuration.models["gpt"], configuration.models["claude"]
    assert (gpt.weight, gpt.api_key, gpt.deployments) == (2.0, "sk-secret", ("openai:gpt-4o-mini",))
    assert gpt.limits is not None
    assert gpt.limits.requests_per_minute == 60
    assert claude.deployments == ("anthropic:claude", "openrouter:anthropic/claude")
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
        ("max_retries = 1", "max_retries = -1", 10, "retry", "0 or more"),
        ("timeout = 30", "timeout = 0", 4, "run.timeout", "a number above 0"),
        ('judge = "gpt"', 'judge = "nobody"', 5, "run.judge", "allowed are: gpt, claude"),
        ('quorum = "all"', "quorum = 3", 3, "run.quorum", "between 1 and 2"),
        ("concurrency = 4", "concurency = 4", 18, "models.gpt.limits.concurency", "allowed are: concurrency"),
        ("concurrency = 4", "concurrency = 0", 18, "models.gpt", "positive integer"),
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


def test_a_model_that_cannot_be_connected_to_says_which_key_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(BadCall, match="OPENAI_API_KEY"):
        MultiLLMOrchestrator.from_config(write(tmp_path, '[models.a]\nmodel = "openai:x"\n'))


def test_init_writes_a_configuration_that_check_accepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    path = tmp_path / "new.toml"

    init(path)
    assert check(path) == 0

    assert "sk-secret" not in path.read_text("utf-8") + capsys.readouterr().out
    assert load_configuration(path).models["openai"].deployments == ("openai:gpt-4o-mini",)
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
    assert "models.a: there is no provider 'nope'" in capsys.readouterr().err
