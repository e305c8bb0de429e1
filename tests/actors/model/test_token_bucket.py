from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ultra.actors.model.token_bucket import Grant, TokenBucket


def test_it_is_full_at_first_and_refills_continuously() -> None:
    bucket = TokenBucket(60)
    assert bucket.available(now=5) == 60
    bucket.take(60, now=5)
    assert bucket.available(now=5) == pytest.approx(0)
    assert bucket.available(now=5.25) == pytest.approx(0.25)
    assert bucket.ready_in(10, now=6) == pytest.approx(9)
    assert bucket.available(now=500) == 60


def test_a_slow_rate_still_holds_its_floor() -> None:
    bucket = TokenBucket(0.5, floor=1)
    assert bucket.ready_in(1, now=0) <= 0
    bucket.take(1, now=0)
    assert bucket.ready_in(1, now=0) == pytest.approx(120)


def test_what_was_not_used_comes_back() -> None:
    bucket = TokenBucket(60)
    grant = bucket.take(50, now=0)
    bucket.settle(grant, 20, now=0)
    assert bucket.available(now=0) == pytest.approx(40)
    bucket.settle(grant, 10, now=1)
    assert bucket.available(now=1) == pytest.approx(51)


def test_what_refilled_in_the_meantime_does_not_come_back_again() -> None:
    bucket = TokenBucket(60)
    grant = bucket.take(10, now=0)
    bucket.take(30, now=8)  # the bucket had 58: had the first grant been 0, it would have had 60
    bucket.settle(grant, 0, now=8)
    assert bucket.available(now=8) == pytest.approx(30)


def test_room_that_one_grant_gave_back_is_not_given_back_by_another() -> None:
    bucket = TokenBucket(60)
    one, other = bucket.take(10, now=0), bucket.take(10, now=0)
    bucket.take(40, now=10)  # the bucket had 50
    bucket.settle(one, 0, now=10)
    bucket.settle(other, 0, now=10)
    assert bucket.available(now=10) == pytest.approx(20)


def test_a_closed_grant_gives_nothing_back_but_may_still_cost_more() -> None:
    bucket = TokenBucket(60)
    grant = bucket.take(50, now=0)
    bucket.close(grant)
    bucket.close(grant)
    bucket.settle(grant, 20, now=0)
    assert bucket.available(now=0) == pytest.approx(10)
    bucket.settle(grant, 60, now=0)
    assert bucket.available(now=0) == pytest.approx(-30)


@pytest.mark.parametrize("units", [121, 2**32 - 1, 2**80, 1e308, math.inf])
def test_what_one_use_is_said_to_have_cost_delays_others_by_one_filling_at_most(units: float) -> None:
    bucket = TokenBucket(60)
    grant = bucket.take(1, now=0)
    bucket.settle(grant, units, now=0)
    assert bucket.available(now=0) == pytest.approx(-60)
    assert bucket.ready_in(1, now=0) == pytest.approx(61)
    bucket.settle(bucket.take(1, now=1), units, now=1)
    assert bucket.available(now=1) == pytest.approx(-60)


def test_a_debt_that_is_paid_off_does_not_begin_again() -> None:
    bucket = TokenBucket(60)
    bucket.settle(bucket.take(1, now=0), 1e9, now=0)
    assert bucket.available(now=60) == pytest.approx(0)
    assert bucket.available(now=120) == pytest.approx(60)


def test_learning_a_rate_keeps_what_is_available_within_the_new_capacity() -> None:
    bucket = TokenBucket(60)
    bucket.take(30, now=0)
    bucket.learn(120, None, now=0)
    assert bucket.available(now=0) == pytest.approx(30)
    assert bucket.available(now=1) == pytest.approx(32)
    bucket.learn(12, None, now=1)
    assert bucket.available(now=1) == pytest.approx(12)
    bucket.learn(None, 99, now=1)
    assert bucket.available(now=1) == pytest.approx(12)
    bucket.learn(None, 3, now=1)
    assert bucket.available(now=1) == pytest.approx(3)


# What is done: wait so long, then take so much, then settle one of the grants at a share of it.
deeds = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.1, 1.0, 7.3, 61.0]), st.integers(0, 60), st.integers(0, 9), st.floats(0, 1)
    ),
    max_size=30,
)


@settings(max_examples=150)
@given(deeds)
def test_over_any_window_no_more_is_used_than_the_rate_allows(
    deeds: list[tuple[float, int, int, float]],
) -> None:
    bucket = TokenBucket(60)
    now = 0.0
    uses: list[tuple[float, Grant]] = []
    for wait, units, which, share in deeds:
        now += wait
        now += max(0.0, bucket.ready_in(units, now))
        uses.append((now, bucket.take(units, now)))
        settled = uses[-1 - which % len(uses)][1]
        bucket.settle(settled, settled.units * share, now)
        if which == 0:
            bucket.close(settled)
    for first, (begin, _) in enumerate(uses):
        used = 0.0
        for end, grant in uses[first:]:
            used += grant.units
            assert used <= 60 + (end - begin) + 1e-6
