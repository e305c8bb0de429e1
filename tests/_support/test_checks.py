from __future__ import annotations

from math import inf, nan
from typing import Any, Literal

import pytest

from ultra._support.checks import check_choice, check_count, check_flag, check_number, check_seconds
from ultra.errors import BadCall


@pytest.mark.parametrize(
    ("value", "options", "allowed"),
    [
        (0, {}, "a whole number, 1 or more"),
        (1.0, {}, "a whole number, 1 or more"),
        (True, {}, "a whole number, 1 or more"),
        ("3", {}, "a whole number, 1 or more"),
        (None, {}, "a whole number, 1 or more"),
        (-1, {"least": 0}, "a whole number, 0 or more"),
        (0, {"optional": True}, "a whole number, 1 or more, or None"),
    ],
)
def test_what_is_no_count_is_refused(value: object, options: dict[str, Any], allowed: str) -> None:
    with pytest.raises(BadCall) as caught:
        check_count("size", value, **options)
    assert str(caught.value) == f"size is {value!r}; it must be {allowed}"


@pytest.mark.parametrize(
    ("value", "options", "allowed"),
    [
        (-0.1, {}, "a number, 0 or more"),
        (nan, {}, "a number, 0 or more"),
        (True, {}, "a number, 0 or more"),
        ("1", {}, "a number, 0 or more"),
        (None, {}, "a number, 0 or more"),
        (inf, {}, "a number, 0 or more, and finite"),
        (-inf, {"endless": True}, "a number, 0 or more"),
        (0, {"positive": True}, "a number above 0"),
        (inf, {"positive": True, "optional": True}, "a number above 0, and finite, or None"),
        (0.9, {"least": 1, "most": 10}, "a number from 1 to 10"),
        (10.1, {"least": 1, "most": 10, "endless": True}, "a number from 1 to 10"),
        (0, {"positive": True, "most": 1}, "a number above 0, up to 1"),
        (-1, {"unit": "dollars"}, "a number of dollars, 0 or more"),
    ],
)
def test_what_is_no_such_number_is_refused(value: object, options: dict[str, Any], allowed: str) -> None:
    with pytest.raises(BadCall) as caught:
        check_number("rate", value, **options)
    assert str(caught.value) == f"rate is {value!r}; it must be {allowed}"


def test_what_is_no_time_is_refused() -> None:
    with pytest.raises(BadCall, match=r"^wait is 0; it must be a number of seconds above 0, or None$"):
        check_seconds("wait", 0, positive=True, optional=True)
    with pytest.raises(BadCall, match=r"^wait is inf; it must be a number of seconds, 0 or more, and finite"):
        check_seconds("wait", inf)


def test_what_is_no_flag_is_refused() -> None:
    with pytest.raises(BadCall, match=r"^drain is 'no'; it must be True or False$"):
        check_flag("drain", "no")


def test_what_is_no_choice_is_refused() -> None:
    with pytest.raises(BadCall, match=r"^colour is 'blue'; it must be one of red, green$"):
        check_choice("colour", "blue", Literal["red", "green"])
    assert check_choice("colour", "red", Literal["red", "green"]) == "red"


def test_what_is_allowed_passes() -> None:
    check_count("size", 1)
    check_count("size", 0, least=0)
    check_count("size", None, optional=True)
    for value in (0, 0.5, 2**63 - 1):
        check_number("rate", value)
    check_number("rate", 1, least=1, most=1)
    check_number("rate", 1, positive=True, most=1)
    check_number("rate", None, optional=True)
    check_seconds("wait", inf, endless=True)
    check_flag("drain", False)  # noqa: FBT003 - what is tested
