"""How long a restart waits."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.supervisor import Backoff


def test_the_wait_grows_by_the_factor_up_to_the_maximum() -> None:
    backoff = Backoff(initial=0.5, factor=3.0, maximum=10.0, jitter=0.0)
    assert [backoff.delay(crashes, Random(0)) for crashes in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_no_number_of_crashes_is_too_large_to_count_with() -> None:
    assert Backoff(jitter=0.0, factor=10.0).delay(10**9, Random(0)) == 30.0


def test_without_an_initial_wait_there_is_none() -> None:
    assert Backoff(initial=0.0).delay(50, Random(0)) == 0.0


@given(
    st.builds(
        Backoff,
        initial=st.floats(0, 100),
        factor=st.floats(1, 10),
        maximum=st.floats(0, 100),
        jitter=st.floats(0, 1),
    ),
    st.integers(1, 1000),
    st.integers(),
)
def test_the_wait_differs_from_the_wait_without_jitter_by_the_jitter_at_most(
    backoff: Backoff, crashes: int, seed: int
) -> None:
    exact = min(backoff.maximum, backoff.initial * backoff.factor ** min(crashes - 1, 100))
    delay = backoff.delay(crashes, Random(seed))
    assert exact * (1 - backoff.jitter) - 1e-9 <= delay <= exact * (1 + backoff.jitter) + 1e-9


def test_the_same_seed_gives_the_same_waits() -> None:
    delays = [
        [Backoff().delay(n, random) for n in range(1, 9)] for random in (Random(7), Random(7), Random(8))
    ]
    assert delays[0] == delays[1] != delays[2]


@pytest.mark.parametrize(
    ("argument", "allowed"),
    [
        ({"initial": -1}, "a number of seconds, 0 or more"),
        ({"factor": 0.9}, "a number from 1 to 10"),
        ({"maximum": float("nan")}, "a number of seconds, 0 or more"),
        ({"jitter": 1.1}, "a number from 0 to 1"),
        ({"reset_after": -0.1}, "a number of seconds, 0 or more"),
        ({"initial": "1"}, "a number of seconds, 0 or more"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(argument: dict[str, Any], allowed: str) -> None:
    [name] = argument
    with pytest.raises(BadCall, match=f"backoff {name} is .*; it must be {allowed}"):
        Backoff(**argument)


@pytest.mark.parametrize("name", ["initial", "maximum", "reset_after"])
def test_times_without_an_end_are_allowed(name: str) -> None:
    assert getattr(Backoff(**{name: math.inf}), name) == math.inf
