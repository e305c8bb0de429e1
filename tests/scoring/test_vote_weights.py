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
