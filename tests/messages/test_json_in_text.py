"""JSON out of fences and prose."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.messages import bounded_json, json_in_text
from ultra.messages.bounded_json import decode_json
from ultra.messages.json_in_text import MOST_TRIED, json_candidates
from ultra.messages.output_types import InvalidOutputError, OutputType
from ultra.messages.tools import arguments_object, canonical_arguments

MOST_SECONDS = 5.0

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


@pytest.mark.parametrize(
    "piece",
    [
        "[] ",
        "{} ",
        "[",
        '{"a": ',
        "[1] x ",
        "```\n```\n",
        "```\n[]\n```\n",
        "[[],[]],",
        "}",
        '"',
        "[}",
        "\\[",
    ],
)
def test_a_text_of_brackets_takes_little_time_and_memory(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_in_text, "_MOST_SIGNS", 100_000)
    text = "So: " + piece * (2_000_000 // len(piece))
    began = time.process_time()
    assert sum(1 for _ in json_candidates(text)) <= 2 * MOST_TRIED + 1
    assert time.process_time() - began < MOST_SECONDS
    short = text[:200_000]
    tracemalloc.start()
    try:
        assert sum(1 for _ in json_candidates(short)) <= 2 * MOST_TRIED + 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10 * len(short)


def test_json_of_too_many_objects_and_lists_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounded_json.MOST_VALUES == 1_000_000
    monkeypatch.setattr(bounded_json, "MOST_VALUES", 20_000)
    many = "[" + "[]," * 20_000 + "[]]"
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than 20000"):
            decode_json(many)
        with pytest.raises(ValueError, match="more than 20000"):
            decode_json(many.encode())
        with pytest.raises(InvalidOutputError):
            OutputType.of(list[Any]).read(many)  # type: ignore[union-attr]
        assert canonical_arguments(many) == many
        assert arguments_object(many) == {"arguments": many}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(many)
    assert decode_json('{"a": [1]}') == {"a": [1]}
