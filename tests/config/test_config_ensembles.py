"""The sections `[ensembles.NAME]` and `[serve]`, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra import ConfigError, MultiLLMOrchestrator
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.untrusted import wishes

if TYPE_CHECKING:
    from pathlib import Path

MODELS = """
[models.gpt]
model = "openai:gpt-4o-mini"
api_key = "any-key-will-do"
weight = 2

[models.claude]
model = "anthropic:claude-sonnet-4-5"
api_key = "any-key-will-do"
"""


def written(directory: Path, text: str) -> Path:
    path = directory / "ultra.toml"
    path.write_text(MODELS + text, "utf-8")
    return path


def test_an_ensemble_is_read_and_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
[ensembles.council]
models = ["claude", "gpt"]
strategy = "synthesize"
options = { analysts = "one", keep_unanimous = true }
stages = ["initial", "synthesis"]
quorum = 2
grace = 8
timeout = 30
max_cost = 0.5
description = "for hard questions"

[ensembles.all]
""",
    )
    orchestrator = MultiLLMOrchestrator.from_config(path)

    council = orchestrator.ensemble("council")
    assert council.models == ["gpt", "claude"]
    assert council.description == "for hard questions"
    assert council.arguments["strategy"].analysts == "one"
    assert {name: council.arguments[name] for name in ("quorum", "grace", "timeout", "max_cost")} == {
        "quorum": 2,
        "grace": 8,
        "timeout": 30,
        "max_cost": 0.5,
    }
    assert list(orchestrator.get_ensembles()) == ["council", "all"]
    assert orchestrator.ensemble("all").arguments == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[ensembles.x]\nmodels = ["gpt", "nobody"]', "ensembles.x.models: found 'nobody'; allowed are: gpt"),
        ('[ensembles.x]\nmodels = ["gpt"]\nquorum = 2', "ensembles.x.quorum: found 2; allowed is 'all'"),
        ("[ensembles.x]\nquorum = 0", "ensembles.x.quorum: the quorum is 0"),
        (
            "[ensembles.x]\nquorum = true",
            "ensembles.x.quorum: found True; allowed is a whole number",
        ),
        ("[ensembles.x]\nmodels = []", "ensembles.x.models: models is empty"),
        ('[ensembles.x]\nmodels = ["gpt", "gpt"]', "ensembles.x.models: models names a model twice"),
        ("[ensembles.x]\ntimeout = -1", "ensembles.x.timeout: timeout is -1"),
        ("[ensembles.x]\nnonsense = 1", "ensembles.x.nonsense: unknown key; allowed are: models, strategy"),
        ('[ensembles.x]\noptions = { analysts = "one" }', "options are those of a strategy"),
        ("[ensembles.gpt]", "ensembles.gpt: a model has the same name"),
        ("ensembles = 3", "models.claude.ensembles: unknown key"),
        ("[serve]\nkeepalive = 'loud'", "serve.keepalive: found 'loud'; allowed is chunk, comment or off"),
        ("[serve]\ncommit_after = 0", "serve.commit_after: commit_after is 0"),
        ("[serve]\nnonsense = 0", "serve.nonsense: unknown key"),
    ],
)
def test_a_wrong_ensemble_or_setting_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_configuration(written(tmp_path, text))

    assert told in str(caught.value)
    assert "ultra.toml:" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('strategy = "no_such"', "unknown strategy 'no_such'"),
        ('strategy = "vote"\noptions = { nonsense = 1 }', "strategy 'vote' has no option 'nonsense'"),
        ('strategy = "vote"\nstages = ["initial"]', "strategy 'vote' has no stages"),
        ('stages = ["no_such"]', "unknown stage 'no_such'"),
    ],
)
def test_a_wrong_strategy_of_an_ensemble_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MultiLLMOrchestrator.from_config(written(tmp_path, f"[ensembles.x]\n{text}"))

    assert "ensembles.x: " in str(caught.value)
    assert told in str(caught.value)


def test_the_settings_of_the_service_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, "[serve]\nkeepalive = 'comment'\nkeepalive_interval = 5\nmax_body = 1000")

    serve = load_configuration(path).serve

    assert (serve.keepalive, serve.keepalive_interval, serve.max_body) == ("comment", 5, 1000)


def test_a_file_that_is_found_may_name_ensembles_but_not_what_they_say_or_how_it_is_served(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ultra.toml"
    path.write_text(
        """
[ensembles.x]
models = ["a"]
strategy = "synthesize"
options = { analysts = "one", writer = "a", rounds = 9 }
quorum = 1
system = "Obey."
samples = 4

[ensembles.y]
strategy = "my.module:Class"

[serve]
max_body = 9
""",
        "utf-8",
    )
    wanted = dict(wishes(ConfigurationFile.read(path).table()))

    assert set(wanted) == {
        ("ensembles", "x", "system"),
        ("ensembles", "x", "samples"),
        ("ensembles", "x", "options", "rounds"),
        ("ensembles", "y", "strategy"),
        ("serve", "max_body"),
    }
