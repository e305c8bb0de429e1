"""Schemas and answers that are small and make a lot of work: none holds the program up."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.messages.output_types import InvalidOutputError, OutputType
from ultra.messages.schema_work import SchemaWork, size_of

pytest.importorskip("jsonschema_rs")

MOST: Final = 3.0
"""Seconds of the processor. What doubles with each level takes hours."""

LEVELS: Final = 30


def _doubled(keyword: str, last: dict[str, Any], **beside: Any) -> dict[str, Any]:
    """Return a schema of which each level refers twice to the next."""
    levels: dict[str, Any] = {
        f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}] * 2, **beside} for level in range(LEVELS)
    }
    return {"type": "object", "allOf": [{"$ref": "#/$defs/d0"}], "$defs": {**levels, f"d{LEVELS}": last}}


TOO_MANY_WAYS: Final[dict[str, dict[str, Any]]] = {
    "all of two": _doubled("allOf", {"type": "object"}),
    "any of two": _doubled("anyOf", {"type": "string"}),
    "one of two": _doubled("oneOf", {"type": "string"}),
    "what is not looked at": _doubled("anyOf", {"type": "string"}, unevaluatedProperties=False),
    "references with escapes": msgspec.json.decode(
        msgspec.json.encode(_doubled("anyOf", {})).replace(b"#/$defs", b"#/%24defs")
    ),
    "places in lists": {
        "type": "object",
        "allOf": [*({"anyOf": [{"$ref": f"#/allOf/{n + 1}"}] * 2} for n in range(LEVELS)), {}],
    },
    "names of their own": {
        "type": "object",
        "allOf": [{"$ref": "#d0"}],
        "$defs": {
            **{f"x{n}": {"$anchor": f"d{n}", "anyOf": [{"$ref": f"#d{n + 1}"}] * 2} for n in range(LEVELS)},
            "last": {"$anchor": f"d{LEVELS}"},
        },
    },
    "a document inside": {
        "type": "object",
        "properties": {"a": {"$id": "urn:inner", **_doubled("anyOf", {"type": "string"})}},
    },
    "names by patterns": {
        "type": "object",
        "$defs": {
            **{
                f"d{n}": {
                    "patternProperties": {
                        "a": {"$ref": f"#/$defs/d{n + 1}"},
                        "b": {"$ref": f"#/$defs/d{n + 1}"},
                    }
                }
                for n in range(LEVELS)
            },
            f"d{LEVELS}": {},
        },
        "additionalProperties": {"$ref": "#/$defs/d0"},
    },
}

WITHOUT_END: Final[dict[str, dict[str, Any]]] = {
    "itself": {"$ref": "#"},
    "itself beside others": {"type": "object", "allOf": [{"$ref": "#"}] * 200},
    "each other": {
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/a"}},
        "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "string"}]}, "b": {"$ref": "#/$defs/a"}},
    },
    "a part that refers to itself": {
        "allOf": [{"$ref": "#/$defs/a"}],
        "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}},
    },
}

EXPRESSION: Final[dict[str, Any]] = {
    "$ref": "#/$defs/e",
    "$defs": {
        "e": {
            "anyOf": [
                *(
                    {
                        "type": "object",
                        "properties": {
                            "op": {"const": op},
                            "left": {"$ref": "#/$defs/e"},
                            "right": {"$ref": "#/$defs/e"},
                        },
                        "required": ["op", "left", "right"],
                    }
                    for op in ("add", "subtract", "multiply", "divide")
                ),
                {"type": "integer"},
            ]
        }
    },
}


def _expression(depth: int, leaf: object) -> object:
    found = leaf
    for _ in range(depth):
        found = {"op": "multiply", "left": found, "right": 1}
    return found


@pytest.mark.parametrize("name", TOO_MANY_WAYS)
def test_a_schema_of_too_many_ways_is_refused_at_once(name: str) -> None:
    began = time.process_time()
    with pytest.raises(BadCall, match="checks one value in more than 10000 ways"):
        OutputType.of(TOO_MANY_WAYS[name])
    assert time.process_time() - began < MOST


@pytest.mark.parametrize("name", WITHOUT_END)
def test_a_schema_that_refers_back_to_itself_without_end_is_refused(name: str) -> None:
    with pytest.raises(BadCall, match="refers back to itself"):
        OutputType.of(WITHOUT_END[name])


def test_a_schema_may_refer_to_itself_for_properties_and_items() -> None:
    output = OutputType.of(EXPRESSION)
    assert output is not None
    value = _expression(60, 1)
    assert output.plain({"answer": value}) == value


@pytest.mark.parametrize("depth", [1, 4, 8, 60])
def test_what_is_wrong_deep_in_an_answer_is_told_at_once(depth: int) -> None:
    output = OutputType.of(EXPRESSION)
    assert output is not None
    began = time.process_time()
    with pytest.raises(InvalidOutputError, match=r"not valid under any|does not satisfy"):
        output.read(msgspec.json.encode({"answer": _expression(depth, "wrong")}).decode())
    assert time.process_time() - began < MOST


def test_the_errors_of_many_wrong_items_are_not_all_made() -> None:
    output = OutputType.of({"type": "array", "items": {"type": "integer"}})
    assert output is not None
    began = time.process_time()
    with pytest.raises(InvalidOutputError) as caught:
        output.read(msgspec.json.encode({"answer": ["x"] * 300_000}).decode())
    assert time.process_time() - began < MOST
    assert str(caught.value) == '$[0]: "x" is not of type "integer"'
    with pytest.raises(InvalidOutputError) as caught:
        output.read(msgspec.json.encode({"answer": ["x"] * 5}).decode())
    assert len(str(caught.value).splitlines()) == 5


def test_of_a_long_place_only_the_beginning_is_told() -> None:
    output = OutputType.of({"type": "object", "additionalProperties": {"type": "integer"}})
    assert output is not None
    with pytest.raises(InvalidOutputError) as caught:
        output.read(msgspec.json.encode({"a" * 1_000_000: "x"}).decode())
    assert len(str(caught.value)) < 1_000


@pytest.mark.parametrize("form", [{"type": "json_object"}, EXPRESSION, dict[str, Any]])
def test_an_answer_of_too_many_levels_is_refused(form: object) -> None:
    output = OutputType.of(form)
    assert output is not None
    for depth in (201, 900):
        text = '{"a":' * depth + "1" + "}" * depth
        with pytest.raises(InvalidOutputError, match="more than 200 levels"):
            output.read(text)


LARGE: Final[dict[str, dict[str, Any]]] = {
    "an enum that all properties share": {
        "type": "object",
        "properties": {f"p{n}": {"$ref": "#/$defs/e"} for n in range(3_000)},
        "$defs": {"e": {"enum": list(range(20_000))}},
    },
    "two enums that all properties share": {
        "type": "object",
        "properties": {
            f"p{n}": {"allOf": [{"$ref": "#/$defs/e"}, {"$ref": "#/$defs/f"}]} for n in range(2_000)
        },
        "$defs": {"e": {"enum": list(range(10_000))}, "f": {"enum": list(range(10_000))}},
    },
    "many required names": {
        "type": "object",
        "properties": {f"p{n}": {} for n in range(12_000)},
        "required": [f"p{n}" for n in range(12_000)],
        "additionalProperties": False,
    },
    "a chain that all properties refer to": {
        "type": "object",
        "properties": {f"p{n}": {"$ref": "#/$defs/c0"} for n in range(4_000)},
        "additionalProperties": False,
        "$defs": {**{f"c{n}": {"$ref": f"#/$defs/c{n + 1}"} for n in range(150)}, "c150": {"type": "null"}},
    },
    "long names": {
        "type": "object",
        "properties": {"x" * 50_000: {"type": "object", "properties": {f"p{n}": {} for n in range(3_000)}}},
    },
    "wide and together": {
        "type": "object",
        "properties": {f"p{n}": {"allOf": [{"$ref": "#/$defs/a"}]} for n in range(1_000)},
        "$defs": {"a": {"allOf": [{"minimum": n} for n in range(2_000)]}},
    },
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_schema_takes_little_time(name: str) -> None:
    began = time.process_time()
    assert OutputType.of(LARGE[name]) is not None
    assert time.process_time() - began < MOST


def test_the_places_in_a_schema_are_not_all_made() -> None:
    tracemalloc.start()
    try:
        OutputType.of(LARGE["long names"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20


def test_the_checks_of_one_value_are_counted() -> None:
    leaf = {"type": "string"}
    assert SchemaWork(leaf, limit=10).most_checks == 1
    assert SchemaWork({"anyOf": [leaf, leaf]}, limit=10).most_checks == 3
    one_by_name = {"properties": {"a": leaf, "b": leaf}}
    assert SchemaWork(one_by_name, limit=10).checks_at(1, 10) == 1
    both = {"properties": {"a": leaf}, "patternProperties": {"a": leaf}}
    assert SchemaWork(both, limit=10).checks_at(1, 10) == 2
    assert SchemaWork(EXPRESSION, limit=100).checks_at(3, 10_000) == 4**3 * 7


def test_the_size_of_a_value_is_counted() -> None:
    assert size_of(1, deepest=5) == (1, 0)
    assert size_of([], deepest=5) == (1, 1)
    assert size_of({"a": [1, {"b": 2}]}, deepest=5) == (5, 3)
    assert size_of([[[[1]]]], deepest=2)[1] == 3


_WORDS: Final = (
    *("$ref", "$defs", "allOf", "anyOf", "not", "if", "properties", "patternProperties", "items", "required"),
    *("enum", "const", "type", "minimum", "maximum", "$anchor", "$id", "additionalProperties", "prefixItems"),
    *("dependentSchemas", "unevaluatedProperties", "$dynamicRef", "a"),
)
_JUNK: Final = st.recursive(
    st.sampled_from(
        [
            None,
            True,
            1,
            -0.5,
            "#",
            "#/$defs/a",
            "#/allOf/0",
            "#a",
            "#/%24defs/a",
            "object",
            "string",
            "x",
            "(",
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS), inner, max_size=4),
    max_leaves=15,
)


@given(st.dictionaries(st.sampled_from(_WORDS), _JUNK, max_size=5))
def test_whatever_is_given_as_a_schema_is_taken_or_refused(schema: dict[str, Any]) -> None:
    try:
        output = OutputType.of({"type": "object"} | schema)
        assert output is not None
        output.read('{"a": [1, {"a": "b"}]}')
    except (BadCall, InvalidOutputError):
        pass
