"""Forms of a JSON schema: with an object at its root, and as strict as providers want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["WRAPPED", "check_schema", "resolved", "strict_form", "with_object_at_root", "without_bounds"]

WRAPPED: Final = "answer"
"""The name of the one property that holds a value which is no object."""

_DEFINITIONS: Final = ("$defs", "definitions")
_OF_NAMES: Final = ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS)
_OF_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_OF_ONE: Final = (
    "items",
    "additionalProperties",
    "contains",
    "propertyNames",
    "not",
    "if",
    "then",
    "else",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_NOT_STRICT: Final = frozenset(
    {"allOf", "contains", "dependentRequired", "dependentSchemas", "else", "if", "maxProperties"}
    | {"minProperties", "not", "oneOf", "patternProperties", "prefixItems", "propertyNames", "then"}
    | {"unevaluatedItems", "unevaluatedProperties", "uniqueItems"}
)
"""What OpenAI's strict mode does not know."""
_TOLD: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_BOUNDS: Final = frozenset(
    {*_TOLD, "minLength", "maxLength", "pattern", "minItems", "maxItems", "minProperties", "maxProperties"}
)
_RANGES: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_TYPES_OF: Final = (
    (bool, {"boolean"}),  # ahead of int, whose subclass it is
    (int, {"number", "integer"}),
    (float, {"number"}),
    (str, {"string"}),
    (list, {"array"}),
    (dict, {"object"}),
)
_TYPES: Final = frozenset({"null"}.union(*(names for _, names in _TYPES_OF)))
_DEEPEST_TOGETHER: Final = 8
"""References and ``allOf`` inside each other that are looked into for contradictions."""
_DEEPEST: Final = 200
"""Levels of a schema."""


def resolved(schema: object, root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that `schema` refers to within `root`, or itself; an empty one if there is none."""
    for _ in range(_DEEPEST):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        schema = _at(root, reference)
    return {}


def with_object_at_root(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return `schema` as providers want it, and whether its value had to be wrapped.

    Its root is an object; any other value becomes the property ``answer`` of one.
    """
    root = resolved(schema, schema)
    definitions: dict[str, Any] = {name: schema[name] for name in _DEFINITIONS if name in schema}
    if root.get("type") == "object":
        return (schema if root is schema else {**root, **definitions}), False
    inner = {name: value for name, value in schema.items() if name not in {*_DEFINITIONS, "$schema", "$id"}}
    wrapped = {
        "type": "object",
        "properties": {WRAPPED: inner},
        "required": [WRAPPED],
        "additionalProperties": False,
        **definitions,
    }
    return _mapped(wrapped, _moved), True


def strict_form(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return `schema` as OpenAI's strict mode wants it; None where that would change what it means.

    Objects take no other properties than those they name, and all of these are required. A property that may
    be null becomes required: null says that it is not there. What satisfies this satisfies `schema`, too.
    """
    try:
        return _mapped(schema, lambda each: _strict(each, schema))
    except _NotStrictError:
        return None


def without_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with its bounds of numbers and lengths told in the descriptions.

    For providers that refuse a schema with bounds; whoever asked checks them anyway.
    """

    def unbounded(each: dict[str, Any]) -> dict[str, Any]:
        bounds = {name: value for name, value in each.items() if name in _BOUNDS}
        if not bounds:
            return each
        told = ", ".join(f"{name}: {value}" for name, value in bounds.items())
        kept = {name: value for name, value in each.items() if name not in _BOUNDS}
        return {**kept, "description": f"{each['description']} ({told})" if "description" in each else told}

    return _mapped(schema, unbounded)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `BadCall` where it is plain that no value satisfies `schema`, or it refers to other documents."""
    for place, each in _schemas(schema, "schema", 0):
        reference = each.get("$ref", "#")
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise BadCall(
                f"{place}.$ref is {reference!r:.200}; it must lead to a place in this schema, such as "
                "'#/$defs/…'"
            )
        _check_together(place, list(_parts(each, schema)))
        _check_required(place, each)


def _parts(schema: object, root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas that a value must satisfy together: itself, what it refers to, those of ``allOf``."""
    if depth < _DEEPEST_TOGETHER and isinstance(schema, dict):
        yield schema
        if isinstance(reference := schema.get("$ref"), str):
            yield from _parts(_at(root, reference), root, depth + 1)
        for each in schema.get("allOf") or ():
            yield from _parts(each, root, depth + 1)


def _check_together(place: str, parts: list[Mapping[str, Any]]) -> None:
    """Raise `BadCall` where types, values or ranges of `parts` exclude each other."""
    types, values = set(_TYPES), None
    for each in parts:
        if "type" in each:
            given = each["type"] if isinstance(each["type"], list) else [each["type"]]
            if not set(_TYPES).issuperset(map(str, given)):
                return  # no JSON schema at all, which is told elsewhere
            types &= {*given, *(["integer"] if "number" in given else [])}
        for choices in (each.get("enum"), [each["const"]] if "const" in each else None):
            if isinstance(choices, list):
                written = {msgspec.json.encode(choice): choice for choice in choices}
                values = written if values is None else {k: v for k, v in values.items() if k in written}
    if not types:
        raise BadCall(f"{place} wants several types at once: no value is of all of them")
    if values is not None and not any(_type_of(value) & types for value in values.values()):
        raise BadCall(f"{place}: no value of its enum or const satisfies it; there must be one at least")
    for least, most in _RANGES:
        lows, highs = _numbers(parts, least), _numbers(parts, most)
        if lows and highs and max(lows) > min(highs):
            raise BadCall(
                f"{place}: {least} is {max(lows)}, and {most} is {min(highs)}: no value satisfies both"
            )


def _numbers(parts: list[Mapping[str, Any]], name: str) -> list[int | float]:
    found = [each.get(name) for each in parts]
    return [each for each in found if isinstance(each, int | float)]


def _type_of(value: object) -> set[str]:
    """Return the types of a schema that a JSON value is of."""
    if isinstance(value, float) and value.is_integer():
        return {"number", "integer"}
    return next((names for kind, names in _TYPES_OF if isinstance(value, kind)), {"null"})


def _check_required(place: str, schema: Mapping[str, Any]) -> None:
    known, required = schema.get("properties") or {}, schema.get("required")
    if not (isinstance(required, list) and isinstance(known, dict)):
        return
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    for name in required:
        if known.get(name) is False or (closed and name not in known):
            raise BadCall(
                f"{place}.required names {name!r}, which the schema does not allow: no object satisfies it; "
                f"add it to {place}.properties, or take it out of required"
            )


class _NotStrictError(Exception):
    """The schema has what strict mode does not know."""


def _strict(schema: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    if not _NOT_STRICT.isdisjoint(schema):
        raise _NotStrictError
    kept = {name: value for name, value in schema.items() if name not in {"default", "$schema", "$id"}}
    if kept.get("type") != "object" and "properties" not in kept:
        return kept
    properties = kept.get("properties", {})
    required = kept.get("required", [])
    if kept.get("additionalProperties", False) is not False or not properties:
        raise _NotStrictError
    for name, each in properties.items():
        if name not in required and not _may_be_null(each, root):
            raise _NotStrictError
    return {**kept, "required": list(properties), "additionalProperties": False}


def _may_be_null(schema: object, root: dict[str, Any]) -> bool:
    found = resolved(schema, root)
    kind = found.get("type")
    if kind == "null" or (isinstance(kind, list) and "null" in kind):
        return True
    return any(_may_be_null(each, {}) for each in found.get("anyOf", ()) if isinstance(each, dict))


def _moved(schema: dict[str, Any]) -> dict[str, Any]:
    """Let references to the old root lead to where it stands now."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return schema
    if reference.startswith(tuple(f"#/{name}/" for name in _DEFINITIONS)):
        return schema
    return {**schema, "$ref": f"#/properties/{WRAPPED}{reference[1:]}"}


def _mapped(
    schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], depth: int = 0
) -> dict[str, Any]:
    """Return `schema` with each schema in it changed, the inner ones first."""
    _check_depth(depth)
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in _OF_NAMES and isinstance(value, dict):
            found[name] = {
                key: _mapped(each, change, depth + 1) if isinstance(each, dict) else each
                for key, each in value.items()
            }
        elif name in _OF_LISTS and isinstance(value, list):
            found[name] = [
                _mapped(each, change, depth + 1) if isinstance(each, dict) else each for each in value
            ]
        elif name in _OF_ONE and isinstance(value, dict):
            found[name] = _mapped(value, change, depth + 1)
        else:
            found[name] = value
    return change(found)


def _schemas(schema: Mapping[str, Any], place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give each schema in `schema` with the place at which it stands."""
    _check_depth(depth)
    yield place, schema
    for name, value in schema.items():
        inner: list[tuple[str, object]] = []
        if name in _OF_NAMES and isinstance(value, dict):
            inner = [(f"{place}.{name}.{key}", each) for key, each in value.items()]
        elif name in _OF_LISTS and isinstance(value, list):
            inner = [(f"{place}.{name}[{index}]", each) for index, each in enumerate(value)]
        elif name in _OF_ONE:
            inner = [(f"{place}.{name}", value)]
        for where, each in inner:
            if isinstance(each, dict):
                yield from _schemas(each, where, depth + 1)


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise BadCall(f"the schema has more than {_DEEPEST} levels; give one with fewer")


def _at(root: Mapping[str, Any], reference: str) -> object:
    found: object = root
    for step in reference.removeprefix("#").split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if reference.startswith("#") else None
