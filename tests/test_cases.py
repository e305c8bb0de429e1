"""Public fault reports, each a script: Ultra behaves right in all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from helpers.cases import MOVED, CaseRuns
from helpers.next_item import NEXT_ITEM
from helpers.paths import CASES, NO_CASES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SCRIPTS: Final = {
    f"{path.parent.name}/{path.stem}": path
    for path in sorted(CASES.glob("*/*.py"))
    if re.match("[0-9]", path.name)  # the others are imported by these
}

NOT_YET: Final[dict[str, str]] = {}
"""Those that fail today, and why. Take a line away with the fault."""

LONG: Final = frozenset(
    {
        "attack/10_secrets_in_traceback_locals",
        "attack/12_terminal_injection_ask",
        "attack/27_sqlite_abuse",
    }
)
"""Those that take more than five seconds on two quiet cores."""


def parameters() -> list[object]:
    if not SCRIPTS:
        return [pytest.param("", marks=pytest.mark.skip(NO_CASES))]
    found: list[object] = []
    for name in SCRIPTS:
        marks = [pytest.mark.long] if name in LONG else []
        if name in NOT_YET:
            marks.append(pytest.mark.xfail(reason=NOT_YET[name], strict=True))
        found.append(pytest.param(name, marks=marks))
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CaseRuns]:
    with CaseRuns(tmp_path_factory.mktemp("home")) as all_runs:
        yield all_runs


def script_of(item: pytest.Item | None) -> Path | None:
    if isinstance(item, pytest.Function) and item.function is test_the_case_is_as_it_should_be:
        return SCRIPTS.get(str(item.callspec.params["case"]))
    return None


@pytest.mark.parametrize("case", parameters())
def test_the_case_is_as_it_should_be(case: str, runs: CaseRuns, request: pytest.FixtureRequest) -> None:
    ended = runs.run(SCRIPTS[case], following=script_of(request.node.stash[NEXT_ITEM]))
    shown = (ended.stdout + ended.stderr).decode(errors="replace")
    assert ended.returncode == 0, f"{SCRIPTS[case]} ended with {ended.returncode}:\n{shown}"


@pytest.mark.skipif(not SCRIPTS, reason=NO_CASES)
def test_each_move_is_wanted_by_a_case_and_the_tables_name_no_other() -> None:
    sources = {name: path.read_text(encoding="utf-8") for name, path in SCRIPTS.items()}

    assert [old for old in MOVED if not any(old in source for source in sources.values())] == []
    assert SCRIPTS.keys() >= LONG | NOT_YET.keys()
