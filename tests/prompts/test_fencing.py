from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.prompts.fencing import Candidate, Fencing, Reading, disarm

SECRET = b"0123456789abcdef"


def read(
    fencing: Fencing,
    stage: str,
    question: str,
    candidates: Sequence[Candidate],
    analyses: Sequence[Candidate] = (),
) -> Reading:
    return fencing.reading(stage, question, fencing.label(candidates), analyses)


def nonce_of(stage: str, reader: str, secret: bytes = SECRET, content: str = "text") -> str:
    texts = read(Fencing(secret), stage, "a question", [Candidate("m", content)])
    return texts.for_reader(reader, content)[1]


def test_a_nonce_is_a_word_of_twelve_letters_and_digits() -> None:
    assert re.fullmatch("[a-z2-7]{12}", nonce_of("meta", "m"))


def test_equal_input_gives_an_equal_nonce() -> None:
    assert nonce_of("meta", "m") == nonce_of("meta", "m")


def test_stage_model_text_and_secret_each_change_the_nonce() -> None:
    nonces = [
        nonce_of("meta", "m"),
        nonce_of("synthesis", "m"),
        nonce_of("meta", "n"),
        nonce_of("metam", ""),
        nonce_of("meta", "m", content="other"),
        nonce_of("meta", "m", secret=b"another secret..."),
    ]

    assert len(set(nonces)) == len(nonces)


def test_a_nonce_that_a_text_knows_is_not_used() -> None:
    texts = read(Fencing(SECRET), "meta", "a question", [])
    order, known = texts.for_reader("m", "a question")
    same_order, other = texts.for_reader("m", f"what does {known} mean?")

    assert other != known
    assert same_order == order


@pytest.mark.parametrize("secret", [b"", b"too short"])
def test_a_secret_that_could_be_guessed_is_refused(secret: bytes) -> None:
    with pytest.raises(BadCall, match=f"{len(secret)} bytes"):
        Fencing(secret)


CANDIDATES = [Candidate(f"m{number}", f"text {number}") for number in range(30)]


def test_labels_are_the_same_for_every_reader_and_orders_differ() -> None:
    fencing = Fencing(SECRET)
    one, _ = read(fencing, "meta", "Q", CANDIDATES).for_reader("m", "")
    two, _ = read(fencing, "synthesis", "Q", CANDIDATES[::-1]).for_reader("n", "")

    assert {text.model_name: text.label for text in one} == {text.model_name: text.label for text in two}
    assert [text.label for text in one] != [text.label for text in two]


def test_labels_are_letters_for_candidates_and_numbers_for_analyses() -> None:
    texts = read(Fencing(SECRET), "meta", "Q", CANDIDATES, CANDIDATES)

    letters = [text.label for text in texts.candidates]
    numbers = [text.label for text in texts.analyses]

    assert letters[:3] + letters[-5:] == ["A", "B", "C", "Z", "AA", "AB", "AC", "AD"]
    assert numbers == [str(number) for number in range(1, 31)]


def test_labels_and_order_say_nothing_of_the_order_given() -> None:
    """Over many sets, each of three models is called A, and comes first, about equally often."""
    first, called_a = dict.fromkeys("xyz", 0), dict.fromkeys("xyz", 0)

    for number in range(300):
        candidates = [Candidate(name, f"{name} {number}") for name in "xyz"]
        texts, _ = read(Fencing(SECRET), "meta", "Q", candidates).for_reader("m", "")
        first[texts[0].model_name] += 1
        called_a[next(text.model_name for text in texts if text.label == "A")] += 1

    assert all(70 < count < 130 for count in (*first.values(), *called_a.values()))


def test_every_order_of_many_texts_is_drawn_and_shows_each_once() -> None:
    """More texts than one digest can shuffle; each of them comes first for somebody."""
    many = [Candidate(f"m{number}", "the same text") for number in range(100)]
    texts = read(Fencing(SECRET), "meta", "Q", many)

    orders = [texts.for_reader(f"judge {number}", "")[0] for number in range(2000)]

    assert all(sorted(order, key=id) == sorted(texts.candidates, key=id) for order in orders)
    for place in (0, 50, 99):
        assert len({order[place].model_name for order in orders}) == 100


@pytest.mark.parametrize(
    "token",
    [
        "<|im_end|>",
        "<|start_header_id|>",
        "<|eot_id|>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
        "<s>",
        "</s>",
        "<bos>",
        "<end_of_turn>",
        "[INST]",
        "[/INST]",
    ],
)
def test_control_tokens_of_chat_templates_are_broken_up(token: str) -> None:
    disarmed = disarm(f"before {token}{token} after")

    assert token not in disarmed
    assert disarmed.replace("< ", "<").replace("[ ", "[") == f"before {token}{token} after"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a < b | c > d",
        "xs <| List.map f |> ys",
        "<p>text</p>",
        "[1, 2]",
        "Set<_User>",
        "### Instruction: add",
        "if x<y or |z|>0",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert disarm(text) == text


@given(st.text(alphabet="<|im_end>s/[INST]\uff5c "))
def test_disarming_leaves_no_control_token_and_is_done_once(text: str) -> None:
    once = disarm(text)

    assert disarm(once) == once


@pytest.mark.parametrize(
    "token",
    [
        "<turn|>",
        "<|turn>",
        "<|channel>",
        "[SYSTEM_PROMPT]",
        "[/SYSTEM_PROMPT]",
        "[TOOL_CALLS]",
        "[|system|]",
        "[|endofturn|]",
        "<<SYS>>",
        "<</SYS>>",
        "<|im_end|>",
        "<|end|>",
        "<|eot_id|>",
        "<end_of_turn>",
        "[gMASK]",
        "]~b]",
        "<tool_call>",
        "</tool_call>",
        "<tool_response>",
        "</tool_response>",
        "<_user>",
        "<_bot>",
        "<_end>",
        "<BOS_TOKEN>",
        "[start_header_id]",
        "[end_header_id]",
        "[EOT]",
        "[BOS]",
    ],
)
def test_the_turn_markers_of_current_models_are_disarmed(token: str) -> None:
    disarmed = disarm(f"x {token}system")
    assert token not in disarmed
    assert disarmed.replace(" ", "") == f"x{token}system"
