"""The vote on calls of tools."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import permutations
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.chat import ReasoningPart, ToolCall
from ultra.messages.results import ModelResponse
from ultra.messages.tools import canonical_arguments
from ultra.scoring.tool_votes import vote_on_calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.scoring.tool_votes import VotedCalls

NOW = datetime(2026, 11, 29, tzinfo=UTC)
ONES = {"a": 1.0, "b": 1.0, "c": 1.0}
PARIS = '{"city": "Paris"}'


def proposal(model: str, *calls: tuple[str, str]) -> ModelResponse:
    made = tuple(ToolCall(f"{model}{at}", name, arguments) for at, (name, arguments) in enumerate(calls))
    return ModelResponse(
        model_name=model,
        stage="tools",
        content="" if made else f"{model} says",
        tool_calls=made,
        reasoning_parts=(ReasoningPart(f"{model} thinks", signature="s"),),
        timestamp=NOW,
    )


def called(voted: VotedCalls | None) -> set[tuple[str, str]]:
    calls = () if voted is None else voted.response.tool_calls
    return {(call.name, canonical_arguments(call.arguments)) for call in calls}


def test_half_of_the_weight_makes_no_call_though_its_sum_is_rounded_up() -> None:
    # 0.2 + 0.1 is 0.30000000000000004.
    asked = [proposal("a"), proposal("b", ("f", PARIS)), proposal("c", ("f", PARIS))]
    assert vote_on_calls(asked, {"a": 0.3, "b": 0.2, "c": 0.1}) is None


def test_a_whole_number_is_equal_to_itself_with_a_point() -> None:
    # Google's API has no whole numbers in the arguments of a call.
    asked = [proposal("a", ("f", '{"x": [5.0]}')), proposal("b", ("f", '{"x": [5]}')), proposal("c")]
    assert called(vote_on_calls(asked, ONES)) == {("f", '{"x":[5]}')}


def test_calls_are_equal_whose_arguments_are_the_same_values() -> None:
    voted = vote_on_calls(
        [
            proposal("a", ("f", '{"x": 1, "y": [2]}')),
            proposal("b", ("f", '{"y":[2],"x":1}')),
            proposal("c", ("g", '{"y":[2],"x":1}')),
        ],
        ONES,
    )

    assert voted is not None
    assert voted.response == proposal("a", ("f", '{"x": 1, "y": [2]}'))
    assert voted.share == 2 / 3


def test_a_call_without_a_majority_is_not_made() -> None:
    voted = vote_on_calls(
        [proposal("a", ("f", PARIS), ("g", PARIS)), proposal("b", ("f", PARIS)), proposal("c")], ONES
    )

    assert voted is not None
    assert voted.response == proposal("b", ("f", PARIS))


def test_weights_and_not_heads_make_the_majority() -> None:
    proposals = [proposal("a", ("f", PARIS)), proposal("b"), proposal("c")]

    assert called(vote_on_calls(proposals, {"a": 3.0, "b": 1.0, "c": 1.0})) == {("f", '{"city":"Paris"}')}
    assert vote_on_calls(proposals, ONES) is None
    assert vote_on_calls(proposals, dict.fromkeys("abc", 0.0)) is None


def test_where_nothing_has_a_majority_it_is_what_the_first_model_does() -> None:
    split = [proposal("a", ("f", "{}")), proposal("b", ("g", "{}")), proposal("c")]
    voted = vote_on_calls(split, ONES)

    assert voted is not None
    assert voted.response == split[0]
    assert voted.share == 1 / 3
    assert vote_on_calls([split[2], *split[:2]], ONES) is None


def test_no_model_makes_all_calls_then_they_are_gathered_without_anybodys_reasoning() -> None:
    f, g, h = (("f", "{}"), ("g", "{}"), ("h", "{}"))
    voted = vote_on_calls([proposal("a", f, g), proposal("b", g, h), proposal("c", f, h)], ONES)

    assert voted is not None
    assert [(call.id, call.name) for call in voted.response.tool_calls] == [
        ("a0", "f"),
        ("a1", "g"),
        ("b1", "h"),
    ]
    assert voted.response.model_name == "a"
    assert voted.response.reasoning_parts == ()


def test_a_call_that_a_model_makes_twice_has_one_vote_of_it() -> None:
    proposals = [proposal("a", ("f", "{}"), ("f", "{ }")), proposal("b"), proposal("c")]

    assert vote_on_calls(proposals, ONES) is None


NAMES = st.sampled_from(["f", "g", "h"])
ARGUMENTS = st.sampled_from(["{}", "{ }", '{"x": 1, "y": 2}', '{"y":2,"x":1}', '{"x": ', ""])
PROPOSALS = st.lists(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3), min_size=1, max_size=4)


@given(PROPOSALS, st.lists(st.floats(0, 1e6), min_size=4, max_size=4))
def test_the_order_of_the_models_changes_nothing_where_there_is_a_majority(
    calls: Sequence[Sequence[tuple[str, str]]], weights: list[float]
) -> None:
    proposals = [proposal(name, *made) for name, made in zip("abcd", calls, strict=False)]
    by_model = dict(zip("abcd", weights, strict=True))
    first, *others = proposals

    # Whose word stands where nothing has a majority is the caller's choice: the first one's.
    outcomes = [vote_on_calls([first, *order], by_model) for order in permutations(others)]

    assert len({frozenset(called(voted)) for voted in outcomes}) == 1
    assert len({None if voted is None else voted.share for voted in outcomes}) == 1


@given(PROPOSALS)
def test_no_call_is_made_that_nobody_proposed_and_none_twice(
    calls: Sequence[Sequence[tuple[str, str]]],
) -> None:
    proposals = [proposal(name, *made) for name, made in zip("abcd", calls, strict=False)]
    voted = vote_on_calls(proposals, dict.fromkeys("abcd", 1.0))
    if voted is not None:
        assert called(voted) <= {each for one in proposals for each in called_by(one)}
        assert voted.response.tool_calls
        if voted.response != proposals[0]:
            assert len(called(voted)) == len(voted.response.tool_calls)


def called_by(response: ModelResponse) -> set[tuple[str, str]]:
    return {(call.name, canonical_arguments(call.arguments)) for call in response.tool_calls}
