from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.faults.provider.allowance import Allowance, Level


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_past_the_limit_is_refused_until_it_has_come_back() -> None:
    clock = Clock()
    allowance = Allowance(2, 1000, clock)
    assert allowance.take(10) is None
    assert allowance.take(10) is None

    refusal = allowance.take(10)

    assert refusal is not None
    assert (refusal.kind, refusal.retry_after) == ("rate_limit", 30.0)
    assert refusal.message.startswith("Rate limit reached on requests per min: Limit 2, Requested 1.")
    clock.now = 30.0
    assert allowance.take(10) is None


def test_a_request_that_is_refused_takes_nothing() -> None:
    allowance = Allowance(10, 100, Clock())
    allowance.take(80)
    before = allowance.levels()

    refusal = allowance.take(30)

    assert refusal is not None
    assert refusal.message.startswith("Rate limit reached on tokens per min: Limit 100, Requested 30.")
    assert allowance.levels() == before


def test_the_levels_tell_what_is_left_and_when_it_is_whole_again() -> None:
    allowance = Allowance(60, 600, Clock())
    allowance.take(100)
    allowance.charge(50)

    assert allowance.levels() == {"requests": Level(60, 59, 1.0), "tokens": Level(600, 450, 15.0)}


def test_an_answer_may_take_more_than_is_left_and_less_is_never_told_than_nothing() -> None:
    allowance = Allowance(60, 60, Clock())
    allowance.take(50)
    allowance.charge(30)

    assert allowance.levels()["tokens"] == Level(60, 0, 80.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=50))
def test_in_no_minute_more_is_granted_than_twice_the_limit(arrivals: list[tuple[float, int]]) -> None:
    clock = Clock()
    allowance = Allowance(10, 100, clock)
    granted: list[tuple[float, int]] = []
    for pause, tokens in arrivals:
        clock.now += pause
        if allowance.take(tokens) is None:
            granted.append((clock.now, tokens))

    for start, _ in granted:
        within = [tokens for at, tokens in granted if start <= at <= start + 60]
        assert len(within) <= 20
        assert sum(within) <= 200


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_that_allows_nothing_is_refused(limit: int) -> None:
    with pytest.raises(
        BadCall, match=r"requests_per_minute=.* is not allowed; give a whole number, 1 or more"
    ):
        Allowance(limit, 100, Clock())
