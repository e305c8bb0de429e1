"""Old names go on working for a while, and say so where they are used."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from importlib import import_module

import pytest

import ultra
from helpers.paths import ROOT
from ultra._support.old_names import GOES_WITH

OLD = {
    "ultra.clients.Limits": "ultra.clients.HTTPLimits",
    "ultra.supervisor.Strategy": "ultra.supervisor.RestartStrategy",
}


def _look_up(path: str) -> object:
    package, _, name = path.rpartition(".")
    return getattr(import_module(package), name)


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_the_thing_of_the_new_name_and_warns_in_the_line_that_uses_it(old: str) -> None:
    package, _, name = old.rpartition(".")
    module = import_module(package)

    with pytest.warns(DeprecationWarning, match="is an old name") as told:
        found = getattr(module, name)

    assert found is _look_up(OLD[old])
    (warning,) = told
    assert warning.filename == __file__
    assert str(warning.message) == f"{old} is an old name, which goes with Ultra {GOES_WITH}: use {OLD[old]}"


@pytest.mark.parametrize("old", OLD)
def test_importing_an_old_name_warns_once_and_in_the_line_of_the_import(old: str) -> None:
    package, _, name = old.rpartition(".")
    code = f"pass\nfrom {package} import {name}\n"

    with pytest.warns(DeprecationWarning, match="is an old name") as told:
        exec(compile(code, "theirs.py", "exec"), {"__name__": "theirs"})

    assert [(warning.filename, warning.lineno) for warning in told] == [("theirs.py", 2)]


@pytest.mark.parametrize("old", OLD)
def test_a_line_that_runs_often_warns_once(old: str) -> None:
    package, _, name = old.rpartition(".")
    code = f"import {package} as package\nfor _ in range(3):\n    package.{name}\n"

    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stderr.count("DeprecationWarning") == 1
    assert done.stderr.startswith("<string>:3: DeprecationWarning: ")


@pytest.mark.parametrize("package", sorted({old.rpartition(".")[0] for old in OLD}))
def test_old_names_are_neither_offered_nor_imported_with_the_others(package: str) -> None:
    module = import_module(package)
    old = {path.rpartition(".")[2] for path in OLD if path.startswith(f"{package}.")}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(f"from {package} import *", {})

    assert not old & {*dir(module), *module.__all__}


@pytest.mark.parametrize("package", sorted({old.rpartition(".")[0] for old in OLD}))
def test_a_name_that_never_was_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Orchestra'"):
        _look_up(f"{package}.Orchestra")


def test_the_page_and_the_changelog_name_each_old_name_and_what_to_use() -> None:
    page = (ROOT / "docs" / "versions.md").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")

    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \| \S+ \| (\S+) \|$", page, re.MULTILINE)
    assert {old: new for old, new, _ in rows} == OLD
    assert {version for *_, version in rows} == {GOES_WITH}
    assert [old for old in OLD if f"`{old}`" not in changes] == []


def test_old_names_are_gone_when_their_version_has_come() -> None:
    now, last = (tuple(map(int, each.split(".")[:3])) for each in (str(ultra.__version__), GOES_WITH))

    assert now < last, f"take out {', '.join(OLD)}"
