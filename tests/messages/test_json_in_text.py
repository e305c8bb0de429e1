"""JSON out of fences and prose."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.json_in_text import MOST_TRIED, json_candidates

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('a"\\{}[]`\n', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('k"}', max_size=3), inner, max_size=3)
    ),
)
OBJECTS = st.dictionaries(st.text('k"}{', max_size=3), VALUES, max_size=3)
PROSE = st.text("ab .,:'\n", max_size=20)


def first(text: str) -> Any:
    """The first candidate that is JSON."""
    for piece in json_candidates(text):
        try:
            return json.loads(piece)
        except ValueError:
            continue
    return None


@given(OBJECTS, PROSE, PROSE)
def test_an_object_is_found_between_any_prose(value: Any, before: str, after: str) -> None:
    assert first(f"{before}{json.dumps(value)}{after}") == value


@given(VALUES, PROSE)
def test_a_value_is_found_in_a_fence(value: Any, prose: str) -> None:
    text = json.dumps(value)
    fenced = first(f"{prose}\n```json\n{text}\n```\n{prose}")
    if text.startswith('"'):
        return  # a text by itself is no candidate, fenced or not
    assert fenced == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("  [1, 2]\n", [1, 2]),
        ("42", 42),
        ("-1.5", -1.5),
        ("true", True),
        ('\ufeff{"a": 1}', {"a": 1}),
        ('```\n{"a": 1}\n```', {"a": 1}),
        ('```json\n{"a": "```"}\n```', {"a": "```"}),
        ('```json\n{"a": 1}', {"a": 1}),
        ('First {"a": 1}. No, wait: {"a": 2}.', {"a": 2}),
        ('Use {curly} braces: {"a": {"b": "}"}}', {"a": {"b": "}"}}),
        ('{ not closed, but {"a": 1} is', {"a": 1}),
        ('It is "quoted {" and {"a": "\\"}"}', {"a": '"}'}),
        ("no JSON at all", None),
        ('{"a": 1', None),
        ("", None),
    ],
)
def test_json_is_found_where_models_put_it(text: str, value: Any) -> None:
    assert first(text) == value


@pytest.mark.parametrize("piece", ["[", "{", '{"', "```\n", '"\\', "[1]", "]", "{]"])
def test_of_a_hostile_text_only_a_few_pieces_are_looked_at(piece: str) -> None:
    assert len(list(json_candidates(piece * 20_000))) <= 2 * MOST_TRIED + 1
