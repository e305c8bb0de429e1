"""What a service is made of: a configuration, keys, or the local model."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from helpers.services import ask, chat
from ultra import BadCall, ConfigError, MissingExtra, MultiLLMOrchestrator
from ultra.clients import connect
from ultra.clients.catalog import PROVIDERS
from ultra.clients.local import client, embedded
from ultra.service import app_from_config
from ultra.service.setup import found_configuration, make_service
from ultra.strategies.synthesize import Synthesize
from ultra.strategies.vote import Vote
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

MODELS = """
[models.gpt]
model = "openai:gpt-4o-mini"
api_key = "any-key-will-do"
"""


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with nothing in it, and an environment without keys."""
    for provider in PROVIDERS.values():
        for name in provider.keys:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ULTRA_CONFIG", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(directory: Path, text: str) -> Path:
    path = directory / "ultra.toml"
    path.write_text(MODELS + text, "utf-8")
    return path


def test_with_keys_it_offers_the_models_of_their_providers(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "any-key-will-do")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "any-key-will-do")

    service = make_service()

    ultra, *models = service.all_targets.names()
    assert ultra == "ultra"
    assert {name.partition("/")[0] for name in models} == {"openai", "anthropic"}
    strategy = service.all_targets.get("ultra").strategy
    assert isinstance(strategy, Synthesize)
    assert strategy.keep_unanimous


def test_a_configuration_gives_its_ensembles_and_one_of_all(empty: Path) -> None:
    path = written(empty, '[run]\nstrategy = "vote"\n[ensembles.council]\nstrategy = "synthesize"')

    service = make_service(path)

    assert service.all_targets.names() == ["council", "ultra", "gpt"]
    assert isinstance(service.all_targets.get("ultra").strategy, Vote)
    assert isinstance(service.all_targets.get("council").strategy, Synthesize)


def test_an_ensemble_of_the_configuration_may_be_called_ultra(empty: Path) -> None:
    path = written(empty, '[ensembles.ultra]\nstrategy = "vote"')

    assert isinstance(make_service(path).all_targets.get("ultra").strategy, Vote)


async def test_the_timeout_of_runs_is_that_of_the_configuration(
    empty: Path, autojump_clock: MockClock
) -> None:
    service = make_service(written(empty, "[run]\ntimeout = 20\n[ensembles.quick]\ntimeout = 5"))
    slow: Any = FakeModel(seconds=inf)
    service.orchestrator.register_model("slow", slow, 9.0)
    async with service.running():
        one = await ask(service, chat("slow"))

    assert one.status == 504
    assert one.pieces[0][0] == pytest.approx(20, abs=1.1)


def test_the_application_is_made_of_the_file_that_the_environment_names(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(empty, "").rename(empty / "other.toml")
    monkeypatch.setenv("ULTRA_CONFIG", str(path))

    assert app_from_config().state.service.all_targets.names() == ["ultra", "gpt"]


def test_a_file_that_is_found_and_not_trusted_is_not_used(empty: Path) -> None:
    written(empty, "")

    with pytest.raises(ConfigError, match="neither named nor trusted"):
        found_configuration()


def test_without_a_file_there_is_none(empty: Path) -> None:
    assert found_configuration() is None


def test_without_keys_and_a_local_model_there_is_nothing_to_ask(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MissingExtra("the local model", "local")

    for module in (embedded, client):  # the latter has a name of its own for it
        monkeypatch.setattr(module, "find_model", missing)

    with pytest.raises(BadCall, match="no provider's key is set"):
        make_service()


@pytest.mark.parametrize(
    ("section", "several", "kept"),
    [
        ("", False, "MemoryJournal"),
        ("", True, None),
        ('store = "memory"', False, "MemoryJournal"),
        ('store = "memory"', True, None),
        ('store = "off"', False, None),
        ('store = "sqlite:///runs.db"', False, "SqliteJournal"),
        ('store = "sqlite:///runs.db"', True, "SqliteJournal"),
    ],
)
def test_runs_are_kept_in_memory_unless_the_configuration_names_a_journal(
    empty: Path, section: str, *, several: bool, kept: str | None
) -> None:
    service = make_service(written(empty, f"[journal]\n{section}\n"), is_one_of_several=several)

    journal = getattr(service.journal, "inner", service.journal)  # in its fence
    assert (None if journal is None else type(journal).__name__) == kept
    assert service.orchestrator.has_journal == (kept is not None)
    assert service.orchestrator.has_deliveries == (kept is not None)


def test_telling_the_depth_changes_neither_what_is_kept_nor_what_is_shown() -> None:
    plain, telling = (connect("openai:gpt-4o-mini", api_key="any-key-will-do") for _ in range(2))
    telling.tell_depth(1)

    assert telling.cache_identity == plain.cache_identity
    assert repr(telling) == repr(plain)


@pytest.mark.parametrize(
    "wrong",
    [
        '[models.bad]\nmodel = "openai:gpt-4o-mini"\napi_key_env = "NO_SUCH_KEY"',
        '[models.bad]\nmodel = "nosuchprovider:x"',
        '[ensembles.x]\nstrategy = "vote"\nstages = ["initial"]',
    ],
    ids=["key", "provider", "ensemble"],
)
@pytest.mark.parametrize("make", [make_service, MultiLLMOrchestrator.from_config])
def test_a_wrong_model_or_ensemble_makes_no_file(empty: Path, make: Any, wrong: str) -> None:
    stores = '[journal]\nstore = "sqlite:///runs.db"\n[cache]\nstore = "sqlite:///answers.db"\n'
    limits = '[serve]\nbudgets = "sqlite:///limits.db"\n' if make is make_service else ""
    path = written(empty, stores + limits + wrong)
    with pytest.raises((ConfigError, BadCall)):
        make(path)
    assert [found.name for found in empty.iterdir()] == ["ultra.toml"]
