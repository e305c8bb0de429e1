"""Tools, as callers give them: typed functions, and the forms of OpenAI and Anthropic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import jsonschema_rs
import msgspec
import pydantic
import pytest
from msgspec import Meta, Struct

from ultra import BadCall, Tool, ToolChoice
from ultra.messages.functions import FunctionTool, tools_of
from ultra.messages.tools import canonical_arguments


class Place(Struct):
    city: str
    country: str = "FR"


def weather(
    place: Place,
    unit: Literal["C", "F"] = "C",
    *,
    days: Annotated[int, Meta(ge=1, description="how many")] = 1,
) -> str:
    """Return the weather
    of a place.

    It is not for models to read this.
    """
    return f"{place.city} {unit} {days}"


def test_a_typed_function_is_a_tool_with_a_schema() -> None:
    tool = FunctionTool(weather).tool
    assert (tool.name, tool.description) == ("weather", "Return the weather of a place.")
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/Place"},
            "unit": {"enum": ["C", "F"], "default": "C"},
            "days": {"type": "integer", "minimum": 1, "description": "how many", "default": 1},
        },
        "required": ["place"],
        "additionalProperties": False,
        "$defs": {
            "Place": {
                "title": "Place",
                "type": "object",
                "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "FR"}},
                "required": ["city"],
            }
        },
    }


def test_arguments_are_decoded_by_the_types_of_the_function() -> None:
    tool = FunctionTool(weather)
    assert weather(**tool.decode('{"place": {"city": "Paris"}, "days": "2"}')) == "Paris C 2"
    with pytest.raises(msgspec.ValidationError, match=r"\$\.days"):
        tool.decode('{"place": {"city": "Paris"}, "days": 0}')
    with pytest.raises(msgspec.ValidationError, match="unknown field `colour`"):
        tool.decode('{"place": {"city": "Paris"}, "colour": 0}')


class Stop(pydantic.BaseModel):
    city: str
    then: Stop | None = None


ROME = Stop(city="Rome")


def tour(first: Stop, others: list[Stop], last: Stop | None = None, base: Stop = ROME) -> list[str]:
    """Plan a tour."""
    return [stop.city for stop in (first, *others, last or base)]


def test_parameters_can_be_pydantic_models() -> None:
    tool = FunctionTool(tour)
    parameters = tool.tool.parameters
    jsonschema_rs.validator_for(parameters).validate({"first": {"city": "Ulm"}, "others": []})
    assert parameters["required"] == ["first", "others"]

    given = tool.decode('{"first": {"city": "Ulm", "then": {"city": "Bonn"}}, "others": [{"city": "Kiel"}]}')
    assert given == {
        "first": Stop(city="Ulm", then=Stop(city="Bonn")),
        "others": [Stop(city="Kiel")],
        "last": None,
        "base": Stop(city="Rome"),
    }
    assert tour(**given) == ["Ulm", "Kiel", "Rome"]
    with pytest.raises(msgspec.ValidationError, match=r"(?s)city.*\$\.others\[0\]"):
        tool.decode('{"first": {"city": "Ulm"}, "others": [{"town": "Kiel"}]}')


def test_models_of_the_same_name_keep_schemas_of_their_own() -> None:
    class Other(pydantic.BaseModel):
        places: list[Stop]

    Other.__name__ = "Stop"

    def both(one: Stop, two: Other) -> None: ...

    both.__annotations__.update(one=Stop, two=Other)
    parameters = FunctionTool(both).tool.parameters
    validator = jsonschema_rs.validator_for(parameters)
    validator.validate({"one": {"city": "Ulm"}, "two": {"places": [{"city": "Bonn"}]}})
    assert not validator.is_valid({"one": {"places": []}, "two": {"places": []}})


def test_a_function_without_parameters_is_a_tool() -> None:
    def now() -> str:
        return "now"

    assert FunctionTool(now).tool == Tool("now")
    assert FunctionTool(now).decode("") == {}


SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


@pytest.mark.parametrize(
    "given",
    [
        Tool("f", "d", SCHEMA),
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}},
        {"type": "function", "name": "f", "description": "d", "parameters": SCHEMA},
        {"name": "f", "description": "d", "input_schema": SCHEMA},
        {"type": "custom", "name": "f", "description": "d", "input_schema": SCHEMA},
    ],
)
def test_tools_are_taken_in_every_form(given: Any) -> None:
    assert tools_of([given]) == (Tool("f", "d", SCHEMA),)


def test_no_tools_are_no_tools() -> None:
    assert tools_of(None) == tools_of([]) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "tools is of type int; it must be a list of tools"),
        ({"name": "f"}, "tools is of type dict"),
        ([7], r"tools\[0\] is of type int; it must be an ultra.Tool, a function with types"),
        ([Tool("f"), {"type": "function"}], r"tools\[1\] has no name"),
        (
            [{"name": "f", "parameters": 7}],
            r"tools\[0\]: Expected `object \| null`, got `int` - at `\$.parameters`",
        ),
        (
            [Tool("f"), {"type": "web_search_20250305", "name": "web_search"}],
            r"tools\[1\] has the type 'web_search_20250305': a tool that the provider carries out",
        ),
        ([{"type": "custom", "name": "f"}], r"tools\[0\] has the type 'custom': .* without a schema"),
        ([{"name": "a b"}], r"tools\[0\]: the tool is named 'a b'; a name has 1 to 128 letters"),
        ([{"name": "f", "parameters": {"type": "array"}}], "must be the JSON schema of an object"),
        ([Tool("f"), Tool("f")], "the name 'f' more than once"),
        ([lambda x: x], "the tool is named|has no type"),
        ([lambda *x: x], r"has the parameter '\*x'"),
    ],
)
def test_a_bad_tool_is_refused_with_its_place(given: Any, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        tools_of(given)


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        (None, None),
        ("auto", ToolChoice("auto")),
        ("any", ToolChoice("required")),
        ("f", ToolChoice("named", "f")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("named", "f")),
        (
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
            ToolChoice("named", "f", parallel=False),
        ),
        ({"type": "any"}, ToolChoice("required")),
    ],
)
def test_a_tool_choice_is_taken_in_every_form(given: Any, choice: ToolChoice | None) -> None:
    assert ToolChoice.of(given) == choice


@pytest.mark.parametrize("given", [7, {"type": "function"}, {}, {"type": ["any"]}, {"type": {}}])
def test_a_bad_tool_choice_is_refused(given: Any) -> None:
    with pytest.raises(BadCall, match="give 'auto', 'none', 'required'"):
        ToolChoice.of(given)


def test_equal_arguments_have_one_canonical_form() -> None:
    assert canonical_arguments('{"b": 1, "a": 2.0}') == canonical_arguments('{"a":2.0,"b":1}')
    assert canonical_arguments("") == canonical_arguments("{}")
    assert canonical_arguments("{broken") == "{broken"


def test_a_function_that_changes_its_default_changes_none_of_the_next_call() -> None:
    def count(words: dict[str, list[str]] = {"seen": []}) -> int:  # noqa: B006 - as users write it
        words["seen"].append("x")
        return len(words["seen"])

    tool = FunctionTool(count)
    assert [count(**tool.decode("{}")) for _ in range(3)] == [1, 1, 1]


def test_tools_without_parameters_share_no_schema() -> None:
    first, second = Tool("f"), Tool("g")
    first.parameters["properties"]["x"] = {"type": "string"}
    assert second.parameters == {"type": "object", "properties": {}}
    assert tools_of([{"name": "h"}])[0].parameters == {"type": "object", "properties": {}}
