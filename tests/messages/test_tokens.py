from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.tokens import MAX_CHARACTERS_PER_TOKEN, estimate_tokens

text = st.text(st.characters())  # lone surrogates included: JSON can carry them


@pytest.mark.parametrize(
    ("sample", "counted"),
    [
        (
            "The capital of France is Paris. It lies on the river Seine, and has been its largest city.",
            22,
        ),
        (
            "人工智能是计算机科学的一个分支。它企图了解智能的实质。并生产出一种新的能以人类智能相似的方式做出反应的智能机器。",
            87,
        ),
        ("これは日本語の文章です。吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", 81),
        ("인공지능은 인간의 학습능력과 추론능력을 컴퓨터 프로그램으로 실현한 기술이다.", 95),
        ("Искусственный интеллект — свойство интеллектуальных систем выполнять творческие функции.", 67),
    ],
)
def test_the_estimate_is_at_least_what_a_small_tokenizer_counted_and_at_most_half_more(
    sample: str, counted: int
) -> None:
    assert 0.99 * counted <= estimate_tokens(sample) <= 1.5 * counted


def test_no_text_takes_no_tokens_and_any_text_takes_some() -> None:
    assert estimate_tokens("") == 0
    assert estimate_tokens(" ") == 1


@given(text, text)
def test_adding_text_never_lowers_the_estimate_nor_adds_more_than_the_text_alone(one: str, two: str) -> None:
    together = estimate_tokens(one + two)

    assert estimate_tokens(one) <= together <= estimate_tokens(one) + estimate_tokens(two)


@given(text)
def test_no_token_stands_for_more_characters_than_the_bound(sample: str) -> None:
    assert len(sample) <= estimate_tokens(sample) * MAX_CHARACTERS_PER_TOKEN


@pytest.mark.parametrize("character", ["a", " ", "Q", "7", "é", "中", "한", "😀"])
def test_a_long_text_takes_as_much_as_its_parts(character: str) -> None:
    """Fifty characters take a whole number of tokens, whatever a character takes."""
    part = character * 50

    assert estimate_tokens(part * 100) == estimate_tokens(part) * 100
