"""`ultra strategies`: the table, one strategy in full, JSON, packages; and the docs, which show the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from helpers.packages import install
from helpers.paths import ROOT
from ultra.cli.app import run
from ultra.strategies import strategy_names
from ultra.strategies.explained import EXPLAINED, explained

if TYPE_CHECKING:
    from pathlib import Path


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert run(["strategies", *arguments]) == 0
    return capsys.readouterr().out


def test_every_strategy_of_ultra_is_explained() -> None:
    assert tuple(EXPLAINED) == strategy_names()


def test_the_table_has_each_with_its_calls(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    assert lines[0].split()[:4] == ["strategy", "calls,", "3", "models"]
    assert [line.split()[0] for line in lines[1:11]] == list(EXPLAINED)
    assert "vote              2 to 4           short answers" in said(capsys)
    assert "vote              3 to 6" in said(capsys, "--models", "5")


def test_one_is_explained_in_full_with_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "cascade")
    assert text.startswith("cascade: The two cheapest models first;")
    assert "options   first, order, threshold, quality, test, end, judge" in text
    assert "evidence  " in text
    assert "measured  " in text
    assert max(map(len, text.splitlines())) <= 88


def test_the_list_is_there_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(said(capsys, "--json", "--models", "4"))
    assert [each["name"] for each in found] == list(EXPLAINED)
    assert (found[0]["fewest_calls"], found[0]["most_calls"]) == (9, 9)
    assert [each["name"] for each in json.loads(said(capsys, "vote", "--json"))] == ["vote"]


def test_an_unknown_name_is_refused_with_the_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["strategies", "vot"]) != 0
    assert "unknown strategy 'vot'; there are: synthesize, vote" in capsys.readouterr().err


def test_strategies_of_packages_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"one": {"mine": "m:A", "vote": "m:V"}, "two": {"mine": "n:A", "other": "n:B"}}
    for package, entries in given.items():
        folder = tmp_path / package
        install(monkeypatch, folder, name=package, group="ultra.strategies", entry_points=entries, modules={})
    text = said(capsys)
    assert "mine              cannot be used: several packages have this name: one (m:A), two (n:A)" in text
    assert "other             of an installed package: two (n:B)" in text
    assert "vote              not used: the name is one of Ultra's own: one (m:V)" in text


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_docs_say_the_same(name: str) -> None:
    folder = ROOT / "docs" / "strategies"
    linked = (folder / f"{name}.md").read_text("utf-8")
    page = " ".join(re.sub(r"\[([^]]+)\]\(https://arxiv[^)]+\)", r"\1", linked).split())
    each = explained(name)
    for text in (each.does, each.calls, each.pays, each.not_for, each.evidence, each.measured):
        assert " ".join(text.split()) in page
    row = f"| [`{name}`]({name}.md) | {each.does} | {each.calls} | {each.pays} |"
    assert row in (folder / "index.md").read_text("utf-8")
    assert f"| `{name}` | {each.does} | {each.pays} |" in (ROOT / "docs" / "guide.md").read_text("utf-8")


@pytest.mark.parametrize("name", EXPLAINED)
def test_numbers_that_were_measured_here_stand_in_the_tables_of_the_docs(name: str) -> None:
    tables = (ROOT / "docs" / "quality.md").read_text("utf-8").partition("## Which strategy")[0]
    measured = explained(name).measured
    differences = re.findall(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", measured)
    calls = re.findall(r"(\d\.\d\d) calls", measured)
    assert all(f"| {difference} |" in tables for difference in differences), differences
    assert all(f"| {number} |" in tables for number in calls), calls
    assert differences or "not measured" in measured.lower()


def test_the_tables_of_what_helps_and_what_does_not_have_measured_numbers() -> None:
    tables, _, chosen = (ROOT / "docs" / "quality.md").read_text("utf-8").partition("## Which strategy")
    differences = re.findall(r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", chosen)
    assert len(differences) > 5
    assert all(f"| {difference} |" in tables for difference in differences)
