"""The statistics of a report, against known values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.evals import statistics
from ultra.evals.statistics import (
    auroc,
    correlation,
    detectable,
    effective_votes,
    exact_share,
    holm,
    mean_difference,
    p_value,
    percentile,
    wilson,
)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_is_within_its_own_interval(share: float) -> None:
    for n in range(1, 300):
        found = wilson(share * n, n)
        assert found.low <= found.value <= found.high, (share, n)


def test_wilsons_interval_is_the_published_one() -> None:
    found = wilson(81, 263)
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_the_exact_interval_of_no_case_is_the_rule_of_three() -> None:
    assert exact_share(0, 100).high == pytest.approx(0.0362, abs=1e-4)


def test_paired_differences_have_an_interval_that_is_the_same_each_time() -> None:
    pairs = [1.0] * 30 + [-1.0] * 10 + [0.0] * 160
    found = mean_difference(pairs)
    assert found == mean_difference(pairs)
    assert found.value == pytest.approx(0.1)
    assert (found.low, found.high) == pytest.approx((0.04, 0.16), abs=0.015)


def test_where_nothing_differs_the_interval_says_what_could_hide() -> None:
    found = mean_difference([0.0] * 100)
    assert found.low < 0 < found.high
    assert found.high == pytest.approx(0.0295, abs=0.001)


def test_without_scipy_the_intervals_are_about_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [1.0] * 30 + [-1.0] * 10 + [0.0] * 160
    exact = mean_difference(pairs)
    monkeypatch.setattr(statistics, "EXACT", False)
    plain = mean_difference(pairs)
    assert (plain.low, plain.high) == pytest.approx((exact.low, exact.high), abs=0.01)


def test_five_points_with_15_percent_discordant_pairs_need_about_460_questions() -> None:
    pairs = [1.0] * 46 + [-1.0] * 23 + [0.0] * 391
    assert detectable(pairs) == pytest.approx(0.05, abs=0.003)


def test_the_area_under_the_curve_counts_ties_half() -> None:
    assert auroc([0.9, 0.8, 0.2], [True, True, False]) == 1
    assert auroc([0.5, 0.5], [True, False]) == 0.5
    assert auroc([0.1, 0.2], [True, True]) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=30))
def test_the_area_under_the_curve_is_the_share_of_pairs(rows: list[tuple[float, bool]]) -> None:
    right = [value for value, is_right in rows if is_right]
    wrong = [value for value, is_right in rows if not is_right]
    found = auroc([value for value, _ in rows], [is_right for _, is_right in rows])
    if not right or not wrong:
        assert found is None
        return
    pairs = [1.0 if r > w else 0.5 if r == w else 0.0 for r in right for w in wrong]
    assert found == pytest.approx(sum(pairs) / len(pairs))


def test_small_measures() -> None:
    assert correlation([0, 1, 0, 1], [0, 1, 0, 1]) == pytest.approx(1)
    assert correlation([0, 0], [0, 1]) is None
    assert effective_votes(9, 0.4375) == pytest.approx(2)
    assert percentile([1, 2, 3, 4], 0.5) == 2
    assert percentile([], 0.5) == 0


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("up", range(2, 25, 3))
def test_the_p_value_says_at_which_level_the_interval_excludes_nothing(
    up: int, *, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "EXACT", exact)
    pairs = [1.0] * up + [-1.0] * 10 + [0.0] * 150
    p = p_value(pairs)
    assert p == pytest.approx(p_value([-each for each in pairs]), abs=0.01)
    assert mean_difference(pairs, 1 - 1.2 * p - 0.002).excludes_zero or p > 0.8
    assert not mean_difference(pairs, 1 - 0.8 * p).excludes_zero or p > 0.999


def test_where_nothing_differs_the_p_value_is_one() -> None:
    assert p_value([0.0] * 50) == 1
    assert p_value([1.0] * 50) == 0
    assert p_value([]) == 1


def test_holm_shows_what_is_published_and_what_bonferroni_does_not() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([0.04, 0.02]) == [True, True]  # Bonferroni, at 0.025: the second alone
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_shows_all_that_bonferroni_shows_and_nothing_that_one_test_alone_does_not(
    p_values: list[float],
) -> None:
    found = holm(p_values)
    for p, is_there in zip(p_values, found, strict=True):
        assert is_there or p > 0.05 / len(p_values)
        assert not is_there or p <= 0.05
