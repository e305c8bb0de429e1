from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ultra.errors import ConfigError
from ultra.faults.plan_file import read_plan

if TYPE_CHECKING:
    from pathlib import Path

PLAN = """
seed = 7

[[rules]]
fault = "http_status"
url = "*/v1/messages"
status = 529
retry_after = 1.5
body = "Überlastet"
times = 2

[[rules]]
fault = "http_slow_body"
seconds = [0.1, 0.2]
piece = 10
probability = 0.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "plan.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_plan_in_a_file_is_the_plan_that_its_rules_make(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, PLAN))

    assert plan.seed == 7
    assert [str(rule) for rule in plan.rules] == [
        f"http_status */v1/messages status=529 retry_after=1.5 body={'Überlastet'.encode()!r} times=2",
        "http_slow_body * seconds=(0.1, 0.2) piece=10 probability=0.5",
    ]


def test_an_empty_file_is_an_empty_plan(tmp_path: Path) -> None:
    assert read_plan(str(write(tmp_path, ""))).rules == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "the fault plan cannot be read: Invalid value"),
        ("sed = 7", "unknown key 'sed'; a fault plan has: seed, rules"),
        ("seed = -7", "seed=-7 is not allowed"),
        ("rules = 7", r"rules are tables; write each as \[\[rules\]\]"),
        ("rules = [7]", r"rules are tables; write each as \[\[rules\]\]"),
        ("[[rules]]\nurl = '*'", "rule 1 does not name its fault, as in: fault = 'http_status'"),
        ("[[rules]]\nfault = 'http_stats'", "rule 1: unknown fault 'http_stats'; there are: .*http_status"),
        ("[[rules]]\nfault = 'http_status'\nstatus = 99", "rule 1: status=99 is not allowed"),
        ("[[rules]]\nfault = 'http_status'\ncode = 99", "rule 1: http_status has no setting 'code'"),
        (
            "[[rules]]\nfault = 'http_status'\n[[rules]]\nfault = 'http_status'\nstatus = 500",
            "rule 2: .*could never apply",
        ),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)

    with pytest.raises(ConfigError, match=f"^{path}: {message}"):
        read_plan(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: the fault plan cannot be read"):
        read_plan(tmp_path / "absent.toml")
