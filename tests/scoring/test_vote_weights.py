"""Weights of votes: log-odds of known shares, and the same found from agreement alone."""

from __future__ import annotations

from math import log
from random import Random

import pytest

from ultra import BadCall
from ultra.scoring.vote_weights import agreement_weights, log_odds_weights


def test_the_weight_is_the_log_odds_of_being_right() -> None:
    found = log_odds_weights({"a": 0.9, "b": 0.5, "c": 0.2})
    assert found == {"a": pytest.approx(log(9)), "b": 0.0, "c": 0.0}


def test_with_more_choices_a_model_that_is_right_less_than_half_of_the_time_counts() -> None:
    assert log_odds_weights({"a": 0.4}, choices=4)["a"] == pytest.approx(log(3 * 0.4 / 0.6))


def test_a_model_that_is_always_right_does_not_outvote_everybody() -> None:
    assert log_odds_weights({"a": 1.0})["a"] < 6
    assert log_odds_weights({"a": 0.0})["a"] == 0


@pytest.mark.parametrize("share", [1.5, -0.1, "0.9", float("nan")])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(BadCall, match="the share of right answers of 'a'"):
        log_odds_weights({"a": share})  # type: ignore[dict-item]
    with pytest.raises(BadCall, match="choices is 1"):
        agreement_weights([], choices=1)


def simulated(shares: dict[str, float], questions: int, seed: int) -> list[dict[str, str | None]]:
    random = Random(seed)
    return [
        {
            name: "right" if random.random() < share else f"wrong {random.randrange(3)}"
            for name, share in shares.items()
        }
        for _ in range(questions)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_agreement_alone_finds_the_weights_of_models_that_err_independently(seed: int) -> None:
    shares = {"a": 0.9, "b": 0.7, "c": 0.6, "d": 0.55}
    found = agreement_weights(simulated(shares, 2000, seed), choices=4)
    right = log_odds_weights(shares, choices=4)
    assert all(abs(found[name] - right[name]) < 0.35 for name in shares)


def test_where_there_is_nothing_to_compare_all_weights_are_equal() -> None:
    assert agreement_weights([{"a": "1", "b": None}]) == {"a": 1.0, "b": 1.0}
    assert agreement_weights([]) == {}


def test_weights_that_cannot_be_told_apart_are_equal_and_those_that_can_are_not() -> None:
    found = agreement_weights(simulated({"a": 0.9, "b": 0.9, "c": 0.5, "d": 0.5}, 300, 1), choices=4)
    assert found["a"] == found["b"] > found["c"] == found["d"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_where_models_hardly_ever_agree_no_one_of_them_outvotes_the_others(seed: int) -> None:
    random = Random(seed)
    rows = [
        {name: "right" if random.random() < 0.15 else f"wrong {name} {random.random()}" for name in "abc"}
        for _ in range(360)
    ]
    found = agreement_weights(rows, choices=20)
    assert all(found[name] <= sum(found.values()) / 2 + 1e-6 for name in found)


@pytest.mark.parametrize("questions", [1, 5, 9])
def test_few_questions_tell_nothing(questions: int) -> None:
    found = agreement_weights(simulated({"a": 0.9, "b": 0.9, "c": 0.1}, questions, 2), choices=4)
    assert len(set(found.values())) == 1


def test_the_order_of_the_models_and_their_names_change_no_weight() -> None:
    rows = simulated({"a": 0.9, "b": 0.7, "c": 0.5}, 200, 3)
    found = agreement_weights(rows, choices=4)
    turned = agreement_weights([dict(reversed(row.items())) for row in rows], choices=4)
    assert {name: round(weight, 6) for name, weight in turned.items()} == {
        name: round(weight, 6) for name, weight in found.items()
    }
