"""Forms of a JSON schema: with an object at its root, and as strict as providers want it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "WRAPPED",
    "at_reference",
    "check_depth",
    "resolved",
    "strict_form",
    "with_object_at_root",
    "without_bounds",
]

WRAPPED: Final = "answer"
"""The name of the one property that holds a value which is no object."""

_DEFINITIONS: Final = ("$defs", "definitions")
INNER_NAMES: Final = ("properties", "patternProperties", "dependentSchemas", *_DEFINITIONS)
INNER_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
INNER_ONE: Final = (
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
_DEEPEST: Final = 200
"""Levels of a schema."""
_MOST_REFERENCES: Final = 16
"""References of which each leads to the next."""
_LONGEST_INDEX: Final = 9


def resolved(schema: object, root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema that `schema` refers to within `root`, or itself; an empty one if there is none."""
    for _ in range(_MOST_REFERENCES):
        if not isinstance(schema, dict):
            return {}
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        found = at_reference(root, reference)
        schema = None if found is None else found[0]
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
    null_at: dict[str, bool] = {}

    def may_be_null(each: object) -> bool:
        """Remember it by reference: many properties may refer to one schema."""
        reference = each.get("$ref") if isinstance(each, dict) else None
        if not isinstance(reference, str):
            return _may_be_null(each, schema)
        if reference not in null_at:
            null_at[reference] = _may_be_null(each, schema)
        return null_at[reference]

    try:
        return _mapped(schema, lambda each: _strict(each, may_be_null))
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


class _NotStrictError(Exception):
    """The schema has what strict mode does not know."""


def _strict(schema: dict[str, Any], may_be_null: Callable[[object], bool]) -> dict[str, Any]:
    if not _NOT_STRICT.isdisjoint(schema):
        raise _NotStrictError
    kept = {name: value for name, value in schema.items() if name not in {"default", "$schema", "$id"}}
    if kept.get("type") != "object" and "properties" not in kept:
        return kept
    properties = kept.get("properties", {})
    required = set(kept.get("required", ()))
    if kept.get("additionalProperties", False) is not False or not properties:
        raise _NotStrictError
    for name, each in properties.items():
        if name not in required and not may_be_null(each):
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
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return schema  # also that of a schema with a name of its own, which keeps it
    if unquote(reference).startswith(tuple(f"#/{name}/" for name in _DEFINITIONS)):
        return schema
    return {**schema, "$ref": f"#/properties/{WRAPPED}{reference[1:]}"}


def _mapped(
    schema: dict[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]], depth: int = 0
) -> dict[str, Any]:
    """Return `schema` with each schema in it changed, the inner ones first."""
    check_depth(depth)
    found: dict[str, Any] = {}
    for name, value in schema.items():
        if name in INNER_NAMES and isinstance(value, dict):
            found[name] = {
                key: _mapped(each, change, depth + 1) if isinstance(each, dict) else each
                for key, each in value.items()
            }
        elif name in INNER_LISTS and isinstance(value, list):
            found[name] = [
                _mapped(each, change, depth + 1) if isinstance(each, dict) else each for each in value
            ]
        elif name in INNER_ONE and isinstance(value, dict):
            found[name] = _mapped(value, change, depth + 1)
        else:
            found[name] = value
    return change(found)


def check_depth(depth: int) -> None:
    """Raise `BadCall` below the deepest level that a schema may have."""
    if depth > _DEEPEST:
        raise BadCall(f"the schema has more than {_DEEPEST} levels; give one with fewer")


def at_reference(
    document: Mapping[str, Any], reference: str
) -> tuple[dict[str, Any], Mapping[str, Any]] | None:
    """Return the schema to which `reference` leads in `document`, and the document in which it stands.

    That is another one where an inner schema has an id. None: there is none, or it has a name of its own.
    """
    found: Any = document
    if not reference.startswith("#") or (reference != "#" and not reference.startswith("#/")):
        return None
    for step in unquote(reference).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict):
            found = found.get(name)
        elif isinstance(found, list) and name.isdecimal() and len(name) < _LONGEST_INDEX:
            found = found[int(name)] if int(name) < len(found) else None
        else:
            return None
        if isinstance(found, dict) and isinstance(found.get("$id"), str):
            document = found
    return (found, document) if isinstance(found, dict) else None
