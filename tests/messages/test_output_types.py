"""The form of an answer: types and JSON schemas, what is refused, and what is read by them."""

from __future__ import annotations

import builtins
import dataclasses
import datetime as dt
import enum
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra import BadCall, JsonSchema, MissingExtra
from ultra.messages.canonical_json import canonical_json
from ultra.messages.output_types import InvalidOutputError, OutputType
from ultra.messages.schema_forms import strict_form, with_object_at_root, without_bounds


class Currency(enum.Enum):
    EUR = "EUR"
    USD = "USD"


class Item(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(description="as printed")]
    price: float


class Invoice(msgspec.Struct):
    items: list[Item]
    currency: Currency
    day: dt.date | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Named(TypedDict):
    name: str


class Pair(NamedTuple):
    left: int
    right: str


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Node(msgspec.Struct):
    value: int
    children: list[Node] = []


class Model(pydantic.BaseModel):
    age: int = pydantic.Field(description="in years", ge=0)
    friends: list[Model] = []


def form(given_as: Any) -> OutputType:
    found = OutputType.of(given_as)
    assert found is not None
    return found


def value_of(given_as: Any, text: str) -> Any:
    output = form(given_as)
    return output.decoded(output.read(text).value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Item, '{"name": "pen", "price": 2}', Item("pen", 2.0)),
        (
            Invoice,
            '{"items": [{"name": "pen", "price": 2}], "currency": "EUR", "day": "2026-01-02"}',
            Invoice([Item("pen", 2.0)], Currency.EUR, dt.date(2026, 1, 2)),
        ),
        (Point, '{"x": 1}', Point(1)),
        (Named, '{"name": "n"}', {"name": "n"}),
        (Pair, '{"answer": [1, "b"]}', Pair(1, "b")),
        (list[int], '{"answer": [1, 2]}', [1, 2]),
        (list[int], "[1, 2]", [1, 2]),
        (dict[int, str], '{"1": "a"}', {1: "a"}),
        (Cat | Dog, '{"answer": {"type": "Dog", "name": "Rex"}}', Dog("Rex")),
        (Literal["yes", "no"], '{"answer": "yes"}', "yes"),
        (Node, '{"value": 1, "children": [{"value": 2}]}', Node(1, [Node(2)])),
        (Model, '{"age": 3, "friends": [{"age": 4}]}', Model(age=3, friends=[Model(age=4)])),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1, "b": 2}', {"a": 1, "b": 2}),
        ({"type": "array", "items": {"type": "string"}}, '["a"]', ["a"]),
        ({"type": "json_object"}, '{"a": 1}', {"a": 1}),
    ],
)
def test_a_text_becomes_a_value_of_the_type_that_was_given(kind: Any, text: str, value: Any) -> None:
    assert value_of(kind, text) == value
    assert value_of(kind, f"Here it is:\n```json\n{text}\n```\nGood luck!") == value
    output = form(kind)
    assert output.schema.schema["type"] == "object"
    plain = output.read(text).value
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plain)) == plain
    assert output.decoded(plain) == value


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (Item, '{"name": "pen", "price": "cheap"}', "$.price"),
        (Item, '{"name": "pen"}', "price"),
        (Item, "I do not know.", "no whole JSON"),
        (Item, '{"name": "pen", "pri', "no whole JSON"),
        (Model, '{"age": -1}', "age"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": "x"}', "$.a"),
        ({"type": "object", "properties": {"a": {"type": "array"}}}, '{"a": 12345678901234567890123}', "$.a"),
        ({"type": "object"}, '{"a": 12345678901234567890123}', "cannot be written"),
        (list[int], '["a"]', "Expected `int`"),
    ],
)
def test_what_is_wrong_with_a_text_is_told(kind: Any, text: str, told: str) -> None:
    with pytest.raises(InvalidOutputError) as failure:
        form(kind).read(text)
    assert told in str(failure.value)


def test_a_json_schema_tells_several_errors_with_their_places_and_not_without_end() -> None:
    schema = {"type": "object", "properties": {f"p{n}": {"type": "integer"} for n in range(50)}}
    with pytest.raises(InvalidOutputError) as failure:
        form(schema).read(str({f"p{n}": "x" * 5_000 for n in range(50)}).replace("'", '"'))
    lines = str(failure.value).splitlines()
    assert len(lines) == 8
    assert all(line.startswith("$.p") and len(line) < 400 for line in lines)


def test_a_pattern_that_would_take_for_ever_is_matched_in_linear_time() -> None:
    output = form({"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}})
    with pytest.raises(InvalidOutputError):
        output.read('{"a": "' + "a" * 50_000 + 'b"}')


def test_a_deeply_nested_answer_is_no_valid_one() -> None:
    with pytest.raises(InvalidOutputError):
        form({"type": "object"}).read('{"a":' * 50_000 + "1" + "}" * 50_000)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("an invoice", "a pydantic model"),
        (3, "a JSON schema"),
        (["a"], "a JSON schema"),
        (object, "no JSON schema"),
        (Any, "a JSON schema"),
        (len, "no JSON schema"),
        (pydantic.BaseModel, "makes no JSON schema"),
        ({}, "no JSON schema"),
        ({"invoice": "total"}, "no JSON schema: it has ['invoice']"),
        ({"type": "strin"}, "schema.type"),
        ({"type": "object", "properties": {"a": {"type": "int"}}}, "schema.properties.a.type"),
        ({"type": "object", "properties": {"a": {"pattern": "("}}}, "schema.properties.a.pattern"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "schema.required names 'a'"),
        ({"type": "object", "properties": {"a": False}, "required": ["a"]}, "schema.required names 'a'"),
        ({"type": "array", "items": {"enum": []}}, "schema.items: no value of its enum"),
        ({"type": "string", "enum": [1, None]}, "schema: no value of its enum or const"),
        ({"allOf": [{"enum": ["a", "b"]}, {"const": "c"}]}, "schema: no value of its enum or const"),
        (
            {"allOf": [{"type": "integer"}, {"type": ["string", "null"]}]},
            "schema wants several types at once",
        ),
        ({"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 2}]}, "minimum is 3, and maximum is 2"),
        (
            {"type": "object", "allOf": [{"$ref": "#/$defs/list"}], "$defs": {"list": {"type": "array"}}},
            "schema wants several types at once",
        ),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum is 3, and maximum is 2"),
        ({"$ref": "https://example.com/schema.json"}, "schema.$ref"),
        ({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}, "schema.properties.a.$ref"),
        ({"$ref": "#/$defs/missing"}, "no JSON schema"),
        ({"type": "json_schema"}, "json_schema.schema is missing"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "json_schema.schema is missing"),
        ({"type": "object", "properties": {"a": {"default": {1, 2}, "const": len}}}, "written as JSON"),
        ({"type": "string", "enum": ["x" * 300_000]}, "bytes"),
    ],
)
def test_what_is_no_form_of_an_answer_is_refused_and_the_place_named(wrong: Any, told: str) -> None:
    with pytest.raises(BadCall) as failure:
        OutputType.of(wrong)
    assert told in str(failure.value)


def test_a_schema_with_too_many_levels_is_refused() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(300):
        schema = {"type": "array", "items": schema}
    with pytest.raises(BadCall, match="levels"):
        OutputType.of(schema)


def test_without_the_extra_a_json_schema_is_refused_and_a_type_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jsonschema_rs":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtra, match="'schema'"):
        OutputType.of({"type": "object"})
    assert value_of(Point, '{"x": 1}') == Point(1)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"allOf": [{"type": "number"}, {"type": "integer", "minimum": 3}]}, 3),
        ({"type": "integer", "enum": [1.0, "x"]}, 1),
        ({"enum": [None, True], "type": ["null", "boolean"]}, True),
    ],
)
def test_what_can_be_satisfied_together_is_taken(schema: dict[str, Any], value: Any) -> None:
    assert form(schema).schema is not None
    if "$defs" not in schema:  # one that refers to itself allows anything, and nothing decodes it
        assert value_of(schema, str(value).lower()) == value


@pytest.mark.parametrize(
    "given_as",
    [
        {
            "type": "json_schema",
            "json_schema": {"name": "inv oice", "schema": {"type": "object"}, "strict": True},
        },
        {"type": "json_schema", "name": "inv oice", "schema": {"type": "object"}, "strict": True},
        JsonSchema("inv_oice", {"type": "object"}),
    ],
)
def test_the_forms_of_openai_are_taken_with_name_and_strictness(given_as: Any) -> None:
    assert form(given_as).schema == JsonSchema("inv_oice", {"type": "object"}, strict=True)


def test_a_type_can_have_pydantic_models_in_it() -> None:
    assert value_of(list[Model], '[{"age": 3}]') == [Model(age=3)]
    with pytest.raises(InvalidOutputError, match="age"):
        form(list[Model]).read('[{"age": -1}]')
    found = form(list[Model]).read('[{"age": 3}]')
    assert found.value == [{"age": 3, "friends": []}]


def test_descriptions_of_fields_stay_in_the_schema() -> None:
    schema = form(Model).schema.schema
    assert schema["properties"]["age"]["description"] == "in years"
    assert form(Item).schema.schema["properties"]["name"]["description"] == "as printed"


def test_a_form_is_taken_as_it_is_and_none_is_none() -> None:
    output = form(Item)
    assert OutputType.of(output) is output
    assert OutputType.of(None) is None


def test_a_wrapped_schema_is_told_as_one_and_unwrapped_again() -> None:
    schema = form(list[Item]).schema
    assert schema.wrapped
    assert schema.of_value["type"] == "array"
    assert OutputType.of(schema) is not None
    assert not form(Item).schema.wrapped


# --- strict mode ---------------------------------------------------------------------------------------


def test_a_schema_is_made_strict_only_where_that_does_not_change_what_it_means() -> None:
    assert form(Named).schema.strict
    assert form(Named).schema.schema["additionalProperties"] is False

    class Optional(msgspec.Struct):
        name: str | None = None

    strict = form(Optional).schema
    assert strict.strict
    assert strict.schema["required"] == ["name"]
    assert "default" not in strict.schema["properties"]["name"]
    assert not form(Point).schema.strict  # y is an int that may be left out, and null is none
    assert not form(Node).schema.strict
    assert not form(dict[str, int]).schema.strict
    assert not form({"type": "object", "properties": {"a": {"oneOf": [{}, {}]}}}).schema.strict


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.sampled_from(["integer", "string", "null"]), min_size=1, max_size=3
    ),
    st.dictionaries(st.sampled_from("abcd"), st.sampled_from([1, "x", None]), max_size=4),
    st.sets(st.sampled_from("abc")),
)
def test_what_satisfies_the_strict_form_satisfies_the_schema(
    types: dict[str, str], value: dict[str, Any], required: set[str]
) -> None:
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in types.items()},
        "required": sorted(required & types.keys()),
    }
    strict = strict_form(schema)
    if strict is None:
        return
    assert strict["required"] == list(types)
    text = msgspec.json.encode(value).decode()
    try:
        form(strict).read(text)
    except InvalidOutputError:
        return
    form(schema).read(text)


def test_references_to_the_root_lead_to_where_it_stands_after_wrapping() -> None:
    tree = {"type": "array", "items": {"$ref": "#"}}
    wrapped, was_wrapped = with_object_at_root(tree)
    assert was_wrapped
    assert wrapped["properties"]["answer"]["items"] == {"$ref": "#/properties/answer"}
    assert form(tree).read("[[], [[]]]").value == [[], [[]]]
    assert form(wrapped).read('{"answer": [[]]}').value == {"answer": [[]]}


def test_bounds_are_told_in_words_for_providers_that_refuse_them() -> None:
    schema = {
        "type": "object",
        "properties": {
            "age": {"type": "integer", "minimum": 0, "description": "in years"},
            "pattern": {"type": "string", "pattern": "^a"},
        },
    }
    assert without_bounds(schema)["properties"] == {
        "age": {"type": "integer", "description": "in years (minimum: 0)"},
        "pattern": {"type": "string", "description": "pattern: ^a"},
    }


# --- canonical JSON ------------------------------------------------------------------------------------


def test_equal_values_have_one_text() -> None:
    assert canonical_json({"b": [1.0, -0.0], "a": None}) == canonical_json({"a": None, "b": [1, 0]})
    assert canonical_json(1) != canonical_json(True)  # noqa: FBT003 - a value
    assert canonical_json("1") != canonical_json(1)
    assert canonical_json(1e300) != canonical_json(1e299)
