"""Pieces of reasoning, and putting them together."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import JoinedReasoning, ReasoningDelta, joined_reasoning, reasoning_pieces
from ultra.messages.results import Completion


def test_a_delta_is_an_empty_text_that_tells_what_the_model_thinks() -> None:
    delta = ReasoningDelta("Hm.", "anthropic", signature="s")
    assert delta == ""
    assert not delta
    assert delta.part == ReasoningPart("Hm.", "anthropic", signature="s")
    assert repr(delta) == "ReasoningDelta('Hm.')"


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda delta: pickle.loads(pickle.dumps(delta))]
)
def test_a_copy_of_a_delta_tells_the_same(copied: object) -> None:
    assert callable(copied)
    found = copied(ReasoningDelta("Hm.", "mine", encrypted="x", id="1"))
    assert type(found) is ReasoningDelta
    assert found.part == ReasoningPart("Hm.", "mine", encrypted="x", id="1")


def test_pieces_of_one_block_are_joined() -> None:
    pieces = [
        ReasoningPart("One ", "a", id="1"),
        ReasoningPart("and ", "a"),
        ReasoningPart("one.", "a", signature="s"),
        ReasoningPart("", "a", encrypted="x"),
        ReasoningPart("So ", "a"),
        ReasoningPart("2.", "a"),
    ]
    assert joined_reasoning(pieces) == [
        ReasoningPart("One and one.", "a", signature="s", id="1"),
        ReasoningPart("", "a", encrypted="x"),
        ReasoningPart("So 2.", "a"),
    ]


def test_reasoning_of_two_providers_is_never_one_block() -> None:
    pieces = [ReasoningPart("One", "a"), ReasoningPart("Two", "b", signature="s")]
    assert joined_reasoning(pieces) == pieces


part = st.builds(
    ReasoningPart,
    st.text("xy", max_size=3),
    st.sampled_from(["a", "b"]),
    st.none() | st.just("s"),
    st.none() | st.just("x"),
)


@given(st.lists(part, max_size=20), st.integers(0, 20))
def test_what_was_joined_before_may_be_joined_again(pieces: list[ReasoningPart], at: int) -> None:
    whole = joined_reasoning(pieces)
    assert joined_reasoning([*joined_reasoning(pieces[:at]), *pieces[at:]]) == whole
    assert "".join(each.text for each in whole) == "".join(each.text for each in pieces)


def test_whether_anything_was_thought() -> None:
    reasoning = JoinedReasoning()
    assert not reasoning
    reasoning.add(ReasoningPart("Hm."))
    assert reasoning
    assert reasoning.text == "Hm."


SEALED = ReasoningPart("Hm.", "anthropic", signature="s")
SIGNATURE = ReasoningPart("", "gemini", signature="s")


@pytest.mark.parametrize(
    ("completion", "pieces"),
    [
        (Completion("4"), []),
        (Completion("4", reasoning="Hm."), [ReasoningPart("Hm.")]),
        (Completion("4", reasoning="Hm.", reasoning_parts=(SEALED,)), [SEALED]),
        (Completion("4", reasoning="Hm.", reasoning_parts=(SIGNATURE,)), [ReasoningPart("Hm.", "gemini")]),
        (Completion("4", reasoning_parts=(SIGNATURE,)), []),
    ],
)
def test_a_whole_answer_tells_what_a_stream_would(
    completion: Completion, pieces: list[ReasoningPart]
) -> None:
    assert reasoning_pieces(completion) == pieces
