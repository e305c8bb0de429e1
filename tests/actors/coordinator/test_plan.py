"""When each stage of a run has to end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.actors.coordinator.plan import RunPlan, StagePlan


def plan(timeout: float, *shares: float, scoring: float = 0.0) -> RunPlan:
    stages = tuple(
        StagePlan(name=f"s{n}", compose=_nothing, share=share, scoring_share=scoring if n == 0 else 0.0)
        for n, share in enumerate(shares)
    )
    return RunPlan(run_id="r", question="Q", stages=stages, targets=(), started=100.0, timeout=timeout)


def _nothing(_run: Any) -> Any:
    raise NotImplementedError


def ends(run_plan: RunPlan) -> list[float]:
    return [end for _, end in run_plan.deadlines()]


def test_each_stage_may_take_what_the_later_ones_do_not_keep() -> None:
    assert ends(plan(10, 0, 0.2, 0.3)) == pytest.approx([105, 107, 110])


def test_the_share_of_the_first_stage_is_what_is_left() -> None:
    assert ends(plan(10, 0.9, 0.2)) == pytest.approx([108, 110])


def test_without_a_timeout_no_stage_has_to_end() -> None:
    assert plan(math.inf, 0, 0.2, 0.3, scoring=0.1).deadlines() == [(math.inf, math.inf)] * 3


def test_a_single_stage_has_all_the_time() -> None:
    assert plan(10, 0).deadlines() == [(110, 110)]


def test_scoring_has_its_share_between_the_answers_and_the_end_of_the_stage() -> None:
    deadlines = plan(10, 0, 0.2, 0.3, scoring=0.1).deadlines()
    assert deadlines[0] == pytest.approx((104, 105))
    assert deadlines[1] == pytest.approx((107, 107))


@given(
    st.floats(0.001, 1e6),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.floats(0, 0.5),
)
def test_however_much_the_stages_keep_the_first_has_a_fifth_and_none_ends_before_another(
    timeout: float, shares: list[float], scoring: float
) -> None:
    deadlines = plan(timeout, *shares, scoring=scoring).deadlines()
    assert deadlines[-1][1] == 100 + timeout
    assert deadlines[0][0] - 100 >= timeout / 5 - 1e-6 * timeout - 1e-9
    moments = [moment for pair in deadlines for moment in pair]
    assert moments == sorted(moments)
    for (_, before), (answered, _), share in zip(deadlines, deadlines[1:], shares[1:], strict=False):
        assert share < 1e-3 or answered > before
