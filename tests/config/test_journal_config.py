"""The section `[journal]` of `ultra.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra import MultiLLMOrchestrator, UsageError
from ultra.config.file import ConfigurationFile
from ultra.config.journal import JournalConfig
from ultra.config.loading import load_configuration
from ultra.config.untrusted import wishes
from ultra.errors import ConfigError
from ultra.stores.journal_contract import Retention

if TYPE_CHECKING:
    from pathlib import Path

MODEL = '[models.a]\nmodel = "local:careful"\n'


def written(tmp_path: Path, section: str) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(f"{section}\n{MODEL}")
    return path


def test_all_its_settings_are_read(tmp_path: Path) -> None:
    section = '[journal]\nstore = "sqlite:///runs.db"\nsynchronous = "full"\nlease = 3'
    section += "\nretention = { seconds = 60 }"
    assert load_configuration(written(tmp_path, section)).journal == JournalConfig(
        store="sqlite:///runs.db", synchronous="full", retention=Retention(seconds=60), lease=3.0
    )


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('store = "redis"', "journal="),
        ('synchronous = "often"', "synchronous"),
        ("retention = { seconds = -1 }", "retention"),
        ("lease = 0", "lease"),
        ("retention = { days = 3 }", "unknown key"),
        ("folder = 1", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_configuration(written(tmp_path, f"[journal]\n{line}"))
    assert "ultra.toml:2" in str(caught.value)


async def test_an_orchestrator_of_a_file_has_its_journal_and_closes_it(tmp_path: Path) -> None:
    section = f'[journal]\nstore = "sqlite:///{tmp_path}/runs.db"'
    path = written(tmp_path, section)
    orchestrator = MultiLLMOrchestrator.from_config(path)
    assert await orchestrator.list_runs() == []
    assert configured_lease(path) == 10.0
    assert configured_lease(written(tmp_path, f"{section}\nlease = 2.5")) == 2.5
    await orchestrator.aclose()
    with pytest.raises(UsageError, match="no journal"):
        await MultiLLMOrchestrator.from_config(written(tmp_path, "")).list_runs()


def configured_lease(path: Path) -> float:
    journal = load_configuration(path).journal.open()
    assert journal is not None
    return journal.lease_seconds


def test_a_check_opens_no_journal(tmp_path: Path) -> None:
    section = f'[journal]\nstore = "sqlite:///{tmp_path}/runs.db"'
    configuration = load_configuration(written(tmp_path, section)).without_store()
    MultiLLMOrchestrator.from_config(configuration)
    assert not (tmp_path / "runs.db").exists()


def test_a_file_that_nobody_named_gets_no_journal_without_trust(tmp_path: Path) -> None:
    file = ConfigurationFile.read(written(tmp_path, '[journal]\nstore = "sqlite:///runs.db"'))
    assert [where for where, _ in wishes(file.table())] == [("journal", "store")]


def test_no_repr_shows_a_store() -> None:
    assert "runs" not in repr(JournalConfig(store="sqlite:///runs.db"))
