"""Each sentence of the pages that promise something has its code and its tests, as promises.txt says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from helpers.paths import ROOT
from ultra.actors.coordinator.messages import GIVEN_UP_AFTER
from ultra.actors.runtime import incarnation
from ultra.durable.persistence import OUTAGE_SECONDS
from ultra.durable.runs import MOST_RUNNING
from ultra.errors import values
from ultra.stores.journal_memory import MemoryJournal

TABLE: Final = (Path(__file__).parent / "promises.txt").read_text("utf-8")
PAGES: Final = ("docs/semantics.md", "docs/architecture.md")


class Promise(NamedTuple):
    begins: str
    code: list[str]
    tests: list[str]


def promises_of(page: str) -> list[Promise]:
    section = TABLE.partition(f"## {page}\n")[2].partition("\n## ")[0]
    lines = [line.split(" | ") for line in section.splitlines() if line]
    return [
        Promise(begins, *([name for name in part.split() if name != "-"] for part in parts))
        for begins, *parts in lines
    ]


def sentences_of(page: str) -> list[str]:
    """The sentences of a page, but for those in tables and examples."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text("utf-8"), flags=re.DOTALL)
    found: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=- |\d+\. )", text):
        if block.strip() and not block.strip().startswith(("#", "|")):
            line = " ".join(re.sub(r"^(- |\d+\. )", "", block.strip()).split())
            found += re.split(r"(?<=[.!?])\s+(?=[A-Z`*])", line)
    return found


@cache
def text_of(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_each_sentence_is_in_the_table_once_and_nothing_else_is(page: str) -> None:
    begins = [promise.begins for promise in promises_of(page)]
    sentences = sentences_of(page)

    assert [text for text in sentences if sum(text.startswith(each) for each in begins) != 1] == []
    assert [each for each in begins if sum(text.startswith(each) for text in sentences) != 1] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_code_and_the_tests_of_each_sentence_exist(page: str) -> None:
    missing: list[str] = []
    for promise in promises_of(page):
        for place in promise.code:
            path, _, name = place.partition(":")
            if not re.search(rf"\b{re.escape(name)}\b", text_of(f"src/ultra/{path}")):
                missing.append(place)
        for place in promise.tests:
            path, _, name = place.partition(":")
            if not re.search(rf"^(async )?def test_{name}\(", text_of(f"tests/{path}"), re.MULTILINE):
                missing.append(place)

    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_what_code_makes_true_has_a_test(page: str) -> None:
    assert [promise.begins for promise in promises_of(page) if promise.code and not promise.tests] == []


@pytest.mark.parametrize(
    ("page", "words", "number"),
    [
        ("docs/semantics.md", r"keeps (\d+) idle workers", incarnation.MOST_IDLE),
        ("docs/semantics.md", r"at most (\d+) others along", values._MOST_ERRORS - 1),
        ("docs/semantics.md", r"cut after ([\d,]+) characters", values._LONGEST_TEXT),
        ("docs/semantics.md", r"(\w+) second after the deadline", GIVEN_UP_AFTER),
        ("docs/durable.md", r"waits for it for (\d+) seconds", OUTAGE_SECONDS),
        ("docs/durable.md", r"at most (\d+) submitted runs", MOST_RUNNING),
        ("docs/durable.md", r"when the lease is over \((\d+) seconds", MemoryJournal().lease_seconds),
    ],
)
def test_the_numbers_in_the_pages_are_those_of_the_code(page: str, words: str, number: float) -> None:
    found = re.findall(words, " ".join(text_of(page).split()))

    assert [float(each.replace(",", "").replace("One", "1")) for each in found] == [number]
