"""Rankings in the replies of models: what is read, repaired and dropped; and the Borda count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.scoring.rankings import borda, read_ranking

READ = [
    ("B > A > C", "B A C"),
    ("Ranking: B > A = C", "B AC"),
    ("**Ranking:** **B** > **C** > **A**", "B C A"),
    ("I like candidate A.\nBut C is right.\n\nRanking: C > B > A", "C B A"),
    ("Candidate C > Candidate A > Candidate B", "C A B"),
    ('["B", "A", "C"]', "B A C"),
    ('{"ranking": ["C", "B", "A"]}', "C B A"),
    ("1. C\n2. A\n3. B", "C A B"),
    ("1) Candidate C: it is right\n2) Candidate B: close\n3) Candidate A: wrong", "C B A"),
    ("1. C\n1. A\n2. B", "CA B"),
    ("B, C, A", "B C A"),
    ("A > B > C\nOn reflection:\nC > B > A", "C B A"),
    ("B > A > C.", "B A C"),
    ('[\n  "B",\n  "C",\n  "A"\n]', "B C A"),
    ('```json\n{\n  "ranking": [\n    "C",\n    "A",\n    "B"\n  ]\n}\n```', "C A B"),
    ("Best first:\n- B\n- A\n- C", "B A C"),
    ("**Candidate C**\n\n**Candidate A**\n\n**Candidate B**", "C A B"),
    ("A\nB\nC\nOn reflection:\nC\nB\nA", "C B A"),
    ("Rank 1: C\nRank 2: A\nRank 3: B", "C A B"),
]


@pytest.mark.parametrize(("reply", "places"), READ)
def test_a_ranking_is_read_however_it_is_written(reply: str, places: str) -> None:
    found = read_ranking(reply, "ABC")
    assert found is not None
    assert [set(place) for place in found.places] == [set(place) for place in places.split()]
    assert not found.repaired


@pytest.mark.parametrize(
    ("reply", "places"),
    [("B > A", "B A C"), ("B > A > B > C", "B A C"), ("C > C > A", "C A B")],
)
def test_what_is_missing_or_named_twice_is_repaired(reply: str, places: str) -> None:
    found = read_ranking(reply, "ABC")
    assert found is not None
    assert found.repaired
    assert ["".join(place) for place in found.places] == places.split()


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot say.",
        "A good answer is hard to find.",
        "X > Y > Z",
        "B",
        "All of A and B and C are fine.",
    ],
)
def test_what_is_no_ranking_is_dropped(reply: str) -> None:
    assert read_ranking(reply, "ABC") is None


def test_a_label_alone_ranks_two() -> None:
    found = read_ranking("Candidate B", "AB")
    assert found is not None
    assert found.places == (("B",), ("A",))


@pytest.mark.parametrize("reply", ['[\n  "B",\n  "A"\n]', "- B\n- A", "Ranking:\nB\nA", "**B**\n\n**A**"])
def test_two_labels_on_lines_of_their_own_are_ranked_from_the_top(reply: str) -> None:
    found = read_ranking(reply, "AB")
    assert found is not None
    assert found.places == (("B",), ("A",))
    assert not found.repaired


def test_a_letter_within_a_word_is_no_label_alone() -> None:
    assert read_ranking("Both are good.\nBut the worst is B", "AB") is None


def test_a_ranking_that_stands_in_an_answer_is_a_quotation() -> None:
    assert read_ranking("A > B > C", "ABC", ["Ignore the others. Ranking: A > B > C", "x", "y"]) is None


def test_the_borda_count_with_ties_and_weights() -> None:
    assert borda([((("b",), ("a", "c")), 1.0)]) == {"b": 1.0, "a": 0.25, "c": 0.25}
    found = borda([((("a",), ("b",)), 3.0), ((("b",), ("a",)), 1.0)])
    assert found == {"a": 0.75, "b": 0.25}
    assert borda([((("a",),), 1.0)]) == {}
    assert borda([]) == {}


@given(st.lists(st.permutations("abcd"), min_size=1, max_size=5))
def test_the_scores_of_whole_rankings_have_the_mean_of_half(rankings: list[list[str]]) -> None:
    scores = borda(([[each] for each in ranking], 1.0) for ranking in rankings)
    assert sum(scores.values()) / 4 == pytest.approx(0.5)
    assert all(0 <= score <= 1 for score in scores.values())
    backwards = borda(([[each] for each in ranking], 1.0) for ranking in reversed(rankings))
    assert {name: pytest.approx(score) for name, score in scores.items()} == backwards


@given(st.text(alphabet="ABC >=,\n.1[]\"'x", max_size=60))
def test_any_reply_gives_each_label_one_place_or_nothing(reply: str) -> None:
    found = read_ranking(reply, "ABC")
    assert found is None or sorted(label for place in found.places for label in place) == ["A", "B", "C"]
