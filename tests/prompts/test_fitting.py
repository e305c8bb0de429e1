from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.tokens import estimate_tokens
from ultra.prompts.fitting import cut_middle, fair_shares

demands = st.lists(st.integers(0, 1000), max_size=8)


@pytest.mark.parametrize(
    ("demand", "room", "shares"),
    [
        ([], 10, []),
        ([5, 5], 10, [5, 5]),
        ([5, 5], 100, [5, 5]),
        ([2, 100, 100], 62, [2, 30, 30]),
        ([100, 3, 50], 83, [40, 3, 40]),
        ([7, 7], 0, [0, 0]),
        ([7, 7], -5, [0, 0]),
    ],
)
def test_short_demands_are_met_and_long_ones_share_the_rest(
    demand: list[int], room: int, shares: list[int]
) -> None:
    assert fair_shares(demand, room) == shares


@given(demands, st.integers(-10, 5000))
def test_shares_exceed_neither_the_demands_nor_the_room_and_leave_nothing_that_is_wanted(
    demand: list[int], room: int
) -> None:
    shares = fair_shares(demand, room)

    assert all(0 <= share <= wanted for share, wanted in zip(shares, demand, strict=True))
    assert sum(shares) == min(sum(demand), max(0, room))


@given(demands, st.integers(0, 5000))
def test_whoever_is_cut_has_no_less_than_anybody_else_but_for_rounding(demand: list[int], room: int) -> None:
    shares = fair_shares(demand, room)

    for share, wanted in zip(shares, demand, strict=True):
        assert share == wanted or share >= max(shares) - 1


def test_a_text_that_fits_comes_back_as_it_is() -> None:
    assert cut_middle("a short text", 100) == "a short text"


def test_a_text_that_does_not_fit_keeps_its_beginning_and_its_end_around_a_marker() -> None:
    text = "The claim stands here. " + "filler " * 500 + "The conclusion stands here."

    cut = cut_middle(text, 60)

    assert cut.startswith("The claim stands here.")
    assert cut.endswith("The conclusion stands here.")
    kept = "".join(cut.split(marker := cut.split("\n")[1]))
    assert marker == f"[... {len(text) - len(kept) + 2} characters left out ...]"


def test_nothing_is_left_where_not_even_the_marker_fits() -> None:
    assert cut_middle("x" * 1000, 3) == ""


@given(st.text(min_size=1).map(lambda text: text * 50), st.integers(0, 400))
def test_a_cut_text_never_exceeds_its_tokens_and_uses_nearly_all_of_them(text: str, tokens: int) -> None:
    cut = cut_middle(text, tokens)

    assert estimate_tokens(cut) <= tokens
    if cut and cut != text:
        assert estimate_tokens(cut) >= tokens - 6  # the next character may take 3, a digit of the marker 1
