"""Which files are trusted, what needs trust, and that reading a hostile file takes little time."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Final

import pytest

from ultra.config.file import ConfigurationFile
from ultra.config.loading import load_configuration
from ultra.config.sections import CacheConfig, DeploymentConfig, ModelConfig, RunConfig
from ultra.config.trust import forget, remember, trust_in
from ultra.config.untrusted import wishes
from ultra.errors import ConfigError
from ultra.strategies.catalog import _BUILT_IN, strategy_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from msgspec import Struct

ONE: Final = '[models.a]\nmodel = "vllm:x"\n'

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="links and permissions are others there")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    variable = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME"
    monkeypatch.setenv(variable, str(tmp_path / "state"))
    return tmp_path / "state" / "ultra" / "trusted"


def written(path: Path, text: str = ONE) -> ConfigurationFile:
    path.write_text(text, "utf-8")
    return ConfigurationFile.read(path)


def test_trust_is_for_a_path_and_its_bytes(tmp_path: Path, state: Path) -> None:
    here, there = tmp_path / "a.toml", tmp_path / "b.toml"
    remember(written(here))

    assert trust_in(ConfigurationFile.read(here)) == "trusted"
    assert trust_in(written(there)) == "none"
    assert trust_in(written(here, ONE + "weight = 2\n")) == "changed"
    remember(ConfigurationFile.read(here))
    assert trust_in(written(here)) == "changed"  # what was trusted before is not any more
    assert (forget(here), forget(here)) == (True, False)
    assert list(state.iterdir()) == []


@on_posix
def test_a_link_elsewhere_is_not_the_file_it_leads_to(tmp_path: Path, state: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    remember(written(mine / "ultra.toml"))
    (tmp_path / "ultra.toml").symlink_to(mine / "ultra.toml")

    assert trust_in(ConfigurationFile.read(tmp_path / "ultra.toml")) == "none"
    (tmp_path / "link").symlink_to(mine)
    assert trust_in(ConfigurationFile.read(tmp_path / "link" / "ultra.toml")) == "trusted"
    assert state.stat().st_mode & 0o077 == 0


@on_posix
def test_what_others_could_have_written_says_nothing_of_trust(tmp_path: Path, state: Path) -> None:
    file = written(tmp_path / "ultra.toml")
    remember(file)
    (entry,) = state.iterdir()
    for path, mode in ((entry, 0o622), (state, 0o777)):
        kept = path.stat().st_mode
        path.chmod(mode)
        assert trust_in(file) == "none"
        path.chmod(kept)
    assert trust_in(file) == "trusted"
    elsewhere = entry.rename(tmp_path / "entry")
    entry.symlink_to(elsewhere)
    assert trust_in(file) == "none"
    state.chmod(0o777)
    with pytest.raises(ConfigError, match="others than you may write it"):
        remember(file)


@on_posix
def test_what_is_remembered_may_be_missing_damaged_or_a_pipe(tmp_path: Path, state: Path) -> None:
    file = written(tmp_path / "ultra.toml")
    assert trust_in(file) == "none"
    remember(file)
    (entry,) = state.iterdir()
    entry.write_bytes(b"\xff\0")
    assert trust_in(file) == "changed"
    entry.unlink()
    os.mkfifo(entry, 0o600)
    assert trust_in(file) == "none"


HARMLESS: Final = """\
[run]
strategy = { name = "synthesize", stages = ["initial"], analysts = "none", keep_unanimous = true }
quorum = 1
timeout = 10
grace = 1
judge = "a"
max_cost = 1.0
[cache]
enabled = true
store = "memory"
[retry]
max_retries = 1
[models.a]
model = ["vllm:x", { model = "vllm:y", options = { seed = 1, api = "responses" } }]
weight = 2
options = { temperature = 0.1, max_tokens = 10 }
price = { input = 1.0, output = 1.0 }
limits = { concurrency = 2 }
hedge_after = "p95"
"""


def test_models_weights_times_and_limits_need_no_trust(tmp_path: Path) -> None:
    file = written(tmp_path / "ultra.toml", HARMLESS)
    load_configuration(file)
    assert wishes(file.table()) == []


TRUSTED_ONLY: Final[dict[type[Struct], set[str]]] = {
    RunConfig: {"system", "samples"},
    CacheConfig: {"store"},
    ModelConfig: {"api_key", "base_url", "fetch_urls", "client", "placement"},
    DeploymentConfig: {"api_key", "base_url", "client", "placement"},
}

PLACES: Final[dict[type[Struct], Callable[[object], dict[str, object]]]] = {
    RunConfig: lambda section: {"run": section},
    CacheConfig: lambda section: {"cache": section},
    ModelConfig: lambda section: {"models": {"a": section}},
    DeploymentConfig: lambda section: {"models": {"a": {"model": [section]}}},
}


@pytest.mark.parametrize("kind", PLACES)
def test_every_setting_is_known_to_be_harmless_or_needs_trust(kind: type[Struct]) -> None:
    # A new setting needs trust until somebody has thought about it, and changed this test.
    harmless = {
        *(
            "strategy",
            "stages",
            "quorum",
            "grace",
            "timeout",
            "judge",
            "max_cost",
            "enabled",
            "weight",
            "ensemble",
        ),
        *("model", "options", "price", "hedge_after", "retry", "timeouts", "limits", "breaker"),
    }
    for name in kind.__struct_fields__:
        asked = [place[-1] for place, _ in wishes(PLACES[kind]({name: 1}))]
        assert asked == ([name] if name not in harmless else [])
        assert (name in harmless) != (name in TRUSTED_ONLY[kind])


REFUSED: Final = {
    "samples": "several answers of each model",
    "rounds": "several rounds of answers",
    "about": "texts of its own in what is sent",
    "choose": "a function that chooses the models",
    "test": "a function that tests answers",
    "verify": "a function that tests answers",
}
ALLOWED: Final = {
    *("stages", "keep_unanimous", "analysts", "on_cut", "answer_tokens", "writer", "panel"),  # synthesize
    *("weights", "rule", "judge", "at_once", "model", "top", "rankers"),
    *("first", "order", "threshold", "quality", "end", "tolerance", "key"),
    *("chooser", "most", "strategy", "options"),  # route
}


@pytest.mark.parametrize("name", _BUILT_IN)
def test_every_option_of_every_strategy_is_known_to_be_harmless_or_refused_with_a_reason(name: str) -> None:
    # A new option needs trust until somebody has thought about it, and changed this test.
    assert not ALLOWED & REFUSED.keys()
    for option in strategy_options(name):
        given: dict[str, object] = {"name": name, option: 1}
        asked = [
            what
            for table in (
                {"run": {"strategy": given}},
                {"ensembles": {"x": {"strategy": name, "options": {option: 1}}}},
            )
            for _, what in wishes(table)
        ]
        assert asked == ([] if option in ALLOWED else [REFUSED[option]] * 2)


def test_options_of_a_strategy_within_a_strategy_are_looked_at_too() -> None:
    nested: dict[str, object] = {"rounds": 9, "strategy": "my.module:Class"}
    table = {"run": {"strategy": {"name": "route", "strategy": "debate", "options": nested}}}
    assert wishes(table) == [
        (("run", "strategy", "options", "rounds"), "several rounds of answers"),
        (("run", "strategy", "options", "strategy"), "code, 'my.module:Class'"),
    ]
    for _ in range(5000):
        nested = {"options": nested}
    assert len(wishes({"ensembles": {"x": {"options": nested}}})) == 2


def test_each_variable_is_told_wherever_it_stands() -> None:
    deep: object = "${DEEP}"
    for _ in range(5000):
        deep = [deep]
    table = {"models": {"a": {"model": ["x:${ONE}", {"model": "${TWO}"}]}}, "other": {"x": deep}}
    assert [what.rpartition(" ")[2] for _, what in wishes(table)] == ["ONE", "TWO", "DEEP"]


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "ultra.toml"
    file = written(path)
    path.write_text('[models.evil]\nmodel = "vllm:evil"\n', "utf-8")
    assert list(load_configuration(file).models) == ["a"]


HOSTILE: Final[dict[str, Callable[[int], str]]] = {
    "blanks": lambda size: " " * size + "x\n",
    "blanks before a wrong key": lambda size: " " * size + "\n[run]\nwrong = 1\n",
    "brackets": lambda size: "a = " + "[" * size,
    "heads": lambda size: "[" * size,
    "digits": lambda size: "a = " + "1" * size,
    "parts of a key": lambda size: "a." * (size // 2) + "b = 1",
    "parts of a section": lambda size: (
        "[" + "a." * (size // 4) + "b]\n" + "".join(f"k{number} = 1\n" for number in range(size // 20))
    ),
    "inline tables": lambda size: "a = " + "{b = " * (size // 5),
    "escapes": lambda size: 'a = "' + "\\u0041" * (size // 6) + '"',
    "sections": lambda size: "".join(f"[models.a{number}]\n" for number in range(size // 18)),
    "tables": lambda size: "[[a]]\n" * (size // 6),
    "comments": lambda size: "#" * size,
    "quotes": lambda size: "a = " + "'" * size,
    "variables": lambda size: 'a = "' + "${" * (size // 2) + '"',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_in_little_time(tmp_path: Path, name: str) -> None:
    began = time.process_time()
    for size in (1_000, 50_000, 500_000):
        path = tmp_path / "ultra.toml"
        path.write_text(HOSTILE[name](size), "utf-8")
        with pytest.raises(ConfigError):
            _read(path)
    assert time.process_time() - began < 20  # what is not linear takes many minutes


def _read(path: Path) -> None:
    file = ConfigurationFile.read(path)
    wishes(file.table())
    load_configuration(file)


@on_posix
def test_a_file_without_end_is_no_configuration() -> None:
    with pytest.raises(ConfigError, match="more than 524,288 bytes"):
        ConfigurationFile.read("/dev/zero")
