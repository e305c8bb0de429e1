"""The reader of final answers: where it finds them, and what it takes for the same."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.scoring.final_answers import equal_answers, final_answer, read_answer

LONG = "First we look at what is given, and then at what is asked of us, with all care. " * 4


@pytest.mark.parametrize(
    "text",
    [
        "42",
        " 42. ",
        "**42**",
        "$42",
        "42 dollars",
        "42.00",
        "+42",
        "The answer is 42.",
        "So the final answer is: **42**",
        "**Answer:** 42",
        "**Final Answer**: $42$",
        "The answer to this question is 42, since 6 times 7 is 42.",
        f"{LONG}\n#### 42",
        f"{LONG}\n\n\\boxed{{42}}",
        f"{LONG} $\\boxed{{\\text{{42}}}}$",
        f"{LONG}\n\n**42**",
        f"{LONG}\n\nSo she has 42 apples.",
        f"{LONG}\nTherefore she makes, all in all and after all of it was counted twice and paid for, $42.",
        "<answer>41</answer> no: <answer>\n 42 \n</answer>",
        '{"reasoning": "six times 7", "answer": "42"}',
        '{"answer": 42, "reasoning": "six times 7 is what we need here, and no more"}',
        '```json\n{\n  "reasoning": "it is\n41 or so",\n  "answer": "42"\n}\n```\n\nLet me know!',
        '{"final_answer": "The answer is 42."}',
        "答案是 42。",
        "84/2",
    ],
)
def test_marks_and_forms_of_a_number_come_to_the_same(text: str) -> None:
    assert final_answer(text) == "42"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,024.50", "1024.5"),
        ("1 024,5 \u20ac", "1 024,5 \u20ac"),
        ("3,14", "3.14"),
        (".5", "0.5"),
        ("50%", "50"),
        ("\\frac{1}{2}", "0.5"),
        ("$\\dfrac{1}{3}$", "1/3"),
        ("2/6", "1/3"),
        ("3 1/2", "3.5"),
        ("1e3", "1000"),
        ("twelve", "12"),
        ("x = 7", "7"),
        ("B", "B"),
        ("(b)", "B"),
        ("B) Paris", "B"),
        ("The correct option is (C).", "C"),
        (f"B. It is that one.\n{LONG}", "B"),
        ("Yes, since it is so.", "yes"),
        ("The Answer Is PARIS!", "paris"),
        ("It is Paris.", "paris"),
        ("I pick **B**", "B"),
        (f"{LONG}\n**Answer:**\n- 5", "5"),
        (f"{LONG}\nAnswer: - 5", "-5"),
        (f"{LONG}\n\n* Paris", "paris"),
        (f"{LONG}\n\n- 5", "5"),
        (f"{LONG}\n\n\\boxed{{- 5}}", "-5"),
        (f"{LONG}\n- 12 apples\n- 30 pears, which makes 42 in all of the baskets", "42"),
        ("So we have **42**.", "42"),
        ("It is not **B**", "not b"),
        ("The Beatles", "beatles"),
        ("(1, 2)", "(1,2)"),
        ("\\left( 1, 2 \\right)", "(1,2)"),
        ("\\dfrac{\\sqrt3}{2}", "(sqrt(3))/2"),
        ("10:30", "10:30"),
        ("2x + 1", "2x+1"),
        ('{"answer": "\\frac{3}{4}"}', "0.75"),
        ('{"answer": "\\\\frac{3}{4}"}', "0.75"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{\\textbf{(B)}\\ 12}", "B"),
        ("$\\textbf{(E)}~30$", "E"),
        ("\\(C\\)", "C"),
        ("\\(x + 1\\)", "x+1"),
        ("1\\,000", "1000"),
        ("The answer is the B.", "B"),
        ("minus 5", "-5"),
        ("The answer is definitely 5.", "5"),
        ("The answer is the 5.", "5"),
        ("A, C", "A,C"),
        ("(A), (C) and (D)", "A,C,D"),
        ("The correct options are B and D.", "B,D"),
        ("Options:\nA) Lyon\nB) Paris\n\nI pick **B**", "B"),
        (f"{LONG}\n#### Answer: 42", "42"),
        (f"#### 42\n\n{LONG}", "42"),
        (f"#### Steps\n{LONG}\n\n#### Final Answer\nThe answer is **42**.", "42"),
        ("```\n42\n```", "42"),
        ("2x - 3", "2x-3"),
        ("Answer: y = (x + 1)(x - 2)", "(x+1)(x-2)"),
        ("3 - 2i", "3-2i"),
        ("a - b", "a-b"),
        ("2 * 3", "2*3"),
        ("2**10", "2^10"),
        ("The answer is **Paris** - it is on the Seine", "paris"),
        ("Here it is:\n```text\nParis\n```", "paris"),
    ],
)
def test_normal_forms(text: str, found: str) -> None:
    assert final_answer(text) == found


@pytest.mark.parametrize(
    "text", ["", " \n ", LONG, f"{LONG}\n\nI hope this helps!", f"{LONG}\n\nDo you have another question?"]
)
def test_a_text_that_comes_to_no_short_answer_has_none(text: str) -> None:
    assert final_answer(text) is None


def test_the_last_number_of_a_text_is_not_marked_as_its_answer() -> None:
    found = read_answer(
        f"{LONG}\nAnd in the end, after these many steps, there were some 42 of them left over."
    )
    assert found is not None
    assert (found.value, found.marked) == ("42", False)


def test_units_tell_numbers_apart_where_several_are_named() -> None:
    assert equal_answers(["5 km", "5", "5 kilometers"]) == ["5", "5", "5"]
    first, second, third = equal_answers(["5 km", "5 m", "5 kilometers"])
    assert first == third != second


@pytest.mark.parametrize(
    "piece",
    [
        '"answer": "',
        "\\boxed{",
        "the answer is ",
        "**",
        "<answer>",
        "####",
        "9",
        "9,",
        '\\"',
        "\\frac{",
        "answer: \\text{",
        "a ",
        "Answer",
        "\u017f",
        "{[",
        "1/",
    ],
)
def test_the_time_is_bounded_whatever_the_text(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    begun = time.process_time()
    final_answer(text)
    final_answer(f"{text}\n{text[:300]}")
    assert time.process_time() - begun < 0.25


@given(st.text(max_size=400))
def test_any_text_is_read(text: str) -> None:
    found = final_answer(text)
    assert found is None or found


@given(
    st.integers(-(10**30), 10**30), st.sampled_from(["{}", "**{}**", "The answer is {}.", "\\boxed{{{}}}"])
)
def test_a_number_is_found_as_it_is(number: int, form: str) -> None:
    assert final_answer(form.format(number)) == str(number)
    assert final_answer(form.format(f"{number:,}")) == str(number)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 May 2024", "5 June 2024"),
        ("5 May", "5 June"),
        ("x = 2 or x = 3", "x = 2"),
        ("2 and 3", "2"),
        ("5 to 7", "5 to 9"),
        ("5 and a half", "5"),
        ("2 hours 30 minutes", "2 hours 15 minutes"),
        ("5 feet 3 inches", "5 feet 4 inches"),
        ("18 dollars and 50 cents", "18 dollars"),
        ("12 Angry Men", "12 Monkeys"),
        ("10 Downing Street", "10 Drury Lane"),
        ("J. K. Rowling", "J. R. R. Tolkien"),
        ("W. A. Mozart", "W. H. Auden"),
        ("St. Louis", "St. Petersburg"),
        ("Dr. Watson", "Dr. Jekyll"),
        ("A, B", "A, C"),
        ("A and B", "A"),
        ("A or B", "B"),
        ("2x - 3", "2x - 5"),
        ("10 - 3i", "10"),
        ("5 pm", "5 am"),
        ("2; 5", "2; 7"),
        ("5 x 10^3", "5 x 10^4"),
        ("5*10", "510"),
        ("e^{2x}", "e^{2}x"),
        ("x^{ab}", "x^{a}b"),
        ("2^{3}5", "2^{35}"),
        ("2\u00b35", "2^35"),
        ("No. 5", "No. 6"),
        ("No. 5", "No"),
        (f"#### Steps\n{LONG}\n#### Conclusion\n42", f"#### Steps\n{LONG}\n#### Conclusion\n43"),
    ],
)
def test_answers_that_only_begin_alike_are_no_equals(one: str, other: str) -> None:
    first, second = equal_answers([one, other])
    assert first != second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 Apples", "5"),
        ("5 apples", "5 Apples"),
        ("42 of them", "42"),
        ("18 in 3 days", "18"),
        ("7 because 3 + 4 = 7", "7"),
        ("5 out of 10", "5"),
        ("5 km. Then she rests.", "5 km"),
        ("B) 12", "\\textbf{(B)}\\ 12"),
        ("A, C", "A & C"),
        ("x\u00b2 + 1", "x^2 + 1"),
        ("2\u221a3", "2\\sqrt{3}"),
        ("\u221a(x + 1)", "\\sqrt{x + 1}"),
        ("2\u00bd", "2.5"),
        ("3 \\times 10^8", "3e8"),
        ("3 \u00d7 10\u2078", "300,000,000"),
        ("10^{-3}", "10^-3"),
        ("a_{1}", "a_1"),
        ("x_{1}y^{2}", "x_1y^2"),
        ("e^{2x}", "e^(2x)"),
        ("\\frac{\\pi}{2}", "\u03c0/2"),
        ("\\frac{-3}{4}", "-0.75"),
        ("\\{1, 2\\}", "{1, 2}"),
        ("x \\in [0, 1]", "[0, 1]"),
        ("caf\u00e9", "cafe\u0301"),
    ],
)
def test_answers_that_mean_the_same_are_equals(one: str, other: str) -> None:
    first, second = equal_answers([one, other])
    assert first == second is not None


@pytest.mark.parametrize(
    "text",
    [
        f"A. Overview\n{LONG}\nB. Details\n{LONG}",
        f"I. Introduction\n{LONG}\n**II. Body**\n{LONG}",
        f"#### Steps\n{LONG}\n\n#### Conclusion\n{LONG}",
        f"{LONG} Reasons for it:\n- it is cheap\n- it is fast",
        f"The answer is:\n- {LONG}\n- {LONG}",
        f"{LONG} Steps:\n\n1. Boil water.\n\n2. Add tea.",
    ],
)
def test_headings_are_no_answers(text: str) -> None:
    assert final_answer(text) is None


def test_a_sentence_is_equal_to_the_answer_that_it_gives_to_the_question() -> None:
    question = "What is the capital of France?"
    texts = ["Paris is the capital of France.", "The capital of France is Paris.", "Paris", "It is Lyon."]
    assert equal_answers(texts, question) == ["paris", "paris", "paris", "lyon"]


def test_a_sentence_is_equal_to_itself_the_other_way_round() -> None:
    one, other, third = equal_answers(
        ["Emma was her novel.", "Her novel was Emma.", "Her novel was Persuasion."]
    )
    assert one == other != third


def test_what_a_sentence_denies_is_not_what_another_says() -> None:
    one, other = equal_answers(["Paris is not it.", "Paris is it."], "Is it Paris?")
    assert one != other
