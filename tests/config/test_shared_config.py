"""The section `[shared]` of `ultra.toml`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra import MultiLLMOrchestrator
from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.shared import SharedConfig
from ultra.config.untrusted import wishes
from ultra.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

MODEL = '[models.a]\nmodel = "local:careful"\n'
URL = "redis://me:hunter2@127.0.0.1:1"


def written(tmp_path: Path, section: str) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(f"{section}\n{MODEL}")
    return path


def test_all_its_settings_are_read(tmp_path: Path) -> None:
    section = f'[shared]\nstore = "{URL}"\nsingle_flight = false'
    found = load_configuration(written(tmp_path, section)).shared
    assert found == SharedConfig(store=URL, single_flight=False)
    assert load_configuration(written(tmp_path, "")).shared == SharedConfig()
    assert "hunter2" not in repr(found) + repr(found.__rich_repr__())


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('store = "memory://me:hunter2"', "shared='memory://...' is not allowed"),
        ("store = 3", "store"),
        ('single_flight = "no"', "single_flight"),
        ("folder = 1", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        load_configuration(written(tmp_path, f"[shared]\n{line}"))
    assert "ultra.toml:2" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_an_orchestrator_of_a_file_shares_its_models_and_a_check_shares_nothing(tmp_path: Path) -> None:
    pytest.importorskip("coredis", reason="the extra 'redis' is not installed")
    configuration = load_configuration(written(tmp_path, f'[shared]\nstore = "{URL}"'))
    shared = MultiLLMOrchestrator.from_config(configuration)._registry.get("a")
    alone = MultiLLMOrchestrator.from_config(configuration.without_store())._registry.get("a")
    assert shared.replicas is not None
    assert alone.replicas is None


def test_a_file_that_nobody_named_shares_nothing_without_trust(tmp_path: Path) -> None:
    file = ConfigurationFile.read(written(tmp_path, f'[shared]\nstore = "{URL}"'))
    assert [where for where, _ in wishes(file.table())] == [("shared", "store")]
