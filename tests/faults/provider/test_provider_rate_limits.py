from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.faults.provider.rate_limits import LimitState, RateLimits


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_past_the_limit_is_refused_until_it_has_come_back() -> None:
    clock = Clock()
    limits = RateLimits(2, 1000, clock)
    assert limits.take(10) is None
    assert limits.take(10) is None

    refusal = limits.take(10)

    assert refusal is not None
    assert (refusal.kind, refusal.retry_after) == ("rate_limit", 30.0)
    assert refusal.message.startswith("Rate limit reached on requests per min: Limit 2, Requested 1.")
    clock.now = 30.0
    assert limits.take(10) is None


def test_a_request_that_is_refused_takes_nothing() -> None:
    limits = RateLimits(10, 100, Clock())
    limits.take(80)
    before = limits.states()

    refusal = limits.take(30)

    assert refusal is not None
    assert refusal.message.startswith("Rate limit reached on tokens per min: Limit 100, Requested 30.")
    assert limits.states() == before


def test_the_levels_tell_what_is_left_and_when_it_is_whole_again() -> None:
    limits = RateLimits(60, 600, Clock())
    limits.take(100)
    limits.charge(50)

    assert limits.states() == {"requests": LimitState(60, 59, 1.0), "tokens": LimitState(600, 450, 15.0)}


def test_an_answer_may_take_more_than_is_left_and_less_is_never_told_than_nothing() -> None:
    limits = RateLimits(60, 60, Clock())
    limits.take(50)
    limits.charge(30)

    assert limits.states()["tokens"] == LimitState(60, 0, 80.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=50))
def test_in_no_minute_more_is_granted_than_twice_the_limit(arrivals: list[tuple[float, int]]) -> None:
    clock = Clock()
    limits = RateLimits(10, 100, clock)
    granted: list[tuple[float, int]] = []
    for pause, tokens in arrivals:
        clock.now += pause
        if limits.take(tokens) is None:
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
        RateLimits(limit, 100, Clock())
