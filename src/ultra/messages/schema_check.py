"""What can be seen to be wrong in a JSON schema: contradictions, and references to other documents."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ultra.errors import BadCall
from ultra.messages.schema_forms import INNER_LISTS, INNER_NAMES, INNER_ONE, at_reference, check_depth

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["check_schema"]

_TYPES_OF: Final = (
    (bool, {"boolean"}),  # ahead of int, whose subclass it is
    (int, {"number", "integer"}),
    (float, {"number"}),
    (str, {"string"}),
    (list, {"array"}),
    (dict, {"object"}),
)
_TYPES: Final = frozenset({"null"}.union(*(names for _, names in _TYPES_OF)))
_RANGES: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_DEEPEST_TOGETHER: Final = 8
"""References and ``allOf`` inside each other that are looked into for contradictions."""
_LONGEST_REFERENCE: Final = 256
"""Characters."""
_MOST_TOGETHER: Final = 1_000
"""So many schemas that a value must satisfy together are looked at; they refer to each other at will."""
_MOST_COMPARED: Final = 100_000
"""So many of them, and so many values of their enums, are looked at in the whole schema."""
_LONGEST_PLACE: Final = 300
"""Characters of a place that is told."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `BadCall` where it is plain that no value satisfies `schema`, or it refers to other documents."""
    together = _Together()
    for steps, each in _schemas(schema, ("schema",), 0):
        reference = each.get("$ref", "#")
        if not (isinstance(reference, str) and reference.startswith("#")):
            raise BadCall(
                f"{_place(steps)}.$ref is {reference!r:.200}; it must lead to a place in this schema, such "
                "as '#/$defs/…'"
            )
        if len(reference) > _LONGEST_REFERENCE:
            raise BadCall(
                f"{_place(steps)}.$ref has {len(reference)} characters; it may have {_LONGEST_REFERENCE}"
            )
        together.check(steps, each, schema)
        _check_required(steps, each)


def _parts(schema: object, root: Mapping[str, Any], depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas that a value must satisfy together: itself, what it refers to, those of ``allOf``."""
    if depth < _DEEPEST_TOGETHER and isinstance(schema, dict):
        yield schema
        if isinstance(reference := schema.get("$ref"), str):
            found = at_reference(root, reference)
            yield from _parts(None if found is None else found[0], root, depth + 1)
        together = schema.get("allOf")
        for each in together if isinstance(together, list) else ():
            yield from _parts(each, root, depth + 1)


class _Together:
    """Finds types, values or ranges that exclude each other; it looks at so many in all, and no more."""

    def __init__(self) -> None:
        self._left = _MOST_COMPARED
        self._written: dict[int, dict[bytes, Any]] = {}

    def check(self, place: _Steps, schema: Mapping[str, Any], root: Mapping[str, Any]) -> None:
        """Raise `BadCall` where the schemas that a value must satisfy together exclude each other."""
        if self._left <= 0:
            return
        parts = list(islice(_parts(schema, root), _MOST_TOGETHER))
        self._left -= len(parts)
        types = _common_types(parts)
        if types is None:
            return  # no JSON schema at all, which is told elsewhere
        if not types:
            raise BadCall(f"{_place(place)} wants several types at once: no value is of all of them")
        values = self._common_values(parts)
        if values is not None and not any(_type_of(value) & types for value in values.values()):
            raise BadCall(
                f"{_place(place)}: no value of its enum or const satisfies it; there must be one at least"
            )
        for least, most in _RANGES:
            lows, highs = _numbers(parts, least), _numbers(parts, most)
            if lows and highs and max(lows) > min(highs):
                raise BadCall(
                    f"{_place(place)}: {least} is {max(lows)}, and {most} is {min(highs)}: no value "
                    "satisfies both"
                )

    def _common_values(self, parts: Sequence[Mapping[str, Any]]) -> dict[bytes, Any] | None:
        """Return the values that all enums and constants have, by their JSON; None: there are no such."""
        common: dict[bytes, Any] | None = None
        for each in parts:
            for choices in (each.get("enum"), [each["const"]] if "const" in each else None):
                if isinstance(choices, list):
                    written = self._values(choices)
                    self._left -= len(common or ())
                    common = written if common is None else {k: common[k] for k in common if k in written}
        return common

    def _values(self, choices: list[Any]) -> dict[bytes, Any]:
        """Return the values of an enum by their JSON; many parts may refer to the same one."""
        known = self._written.get(id(choices))
        if known is None:
            self._left -= len(choices)
            known = {msgspec.json.encode(choice): choice for choice in choices}
            if len(choices) > 1:  # a list that is not in the schema lives no longer than this call
                self._written[id(choices)] = known
        return known


def _common_types(parts: Sequence[Mapping[str, Any]]) -> set[str] | None:
    """Return the types that all parts allow; None: one of them names something else."""
    common = set(_TYPES)
    for each in parts:
        if "type" in each:
            given = each["type"] if isinstance(each["type"], list) else [each["type"]]
            if len(given) > len(_TYPES) or not _TYPES.issuperset(map(str, given)):
                return None
            common &= {*given, *(["integer"] if "number" in given else [])}
    return common


def _numbers(parts: Sequence[Mapping[str, Any]], name: str) -> list[int | float]:
    found = [each.get(name) for each in parts]
    return [each for each in found if isinstance(each, int | float)]


def _type_of(value: object) -> set[str]:
    """Return the types of a schema that a JSON value is of."""
    if isinstance(value, float) and value.is_integer():
        return {"number", "integer"}
    return next((names for kind, names in _TYPES_OF if isinstance(value, kind)), {"null"})


def _check_required(place: _Steps, schema: Mapping[str, Any]) -> None:
    known, required = schema.get("properties") or {}, schema.get("required")
    if not (isinstance(required, list) and isinstance(known, dict)):
        return
    closed = schema.get("additionalProperties") is False and not schema.get("patternProperties")
    for name in required:
        if known.get(name) is False or (closed and name not in known):
            raise BadCall(
                f"{_place(place)}.required names {name!r:.200}, which the schema does not allow: no object "
                f"satisfies it; add it to {_place(place)}.properties, or take it out of required"
            )


_Steps = tuple[str | int, ...]
"""The way to a schema inside another."""


def _schemas(
    schema: Mapping[str, Any], steps: _Steps, depth: int
) -> Iterator[tuple[_Steps, Mapping[str, Any]]]:
    """Give each schema in `schema` with the place at which it stands."""
    check_depth(depth)
    yield steps, schema
    for name, value in schema.items():
        inner: Iterable[tuple[_Steps, object]] = ()
        if name in INNER_NAMES and isinstance(value, dict):
            inner = (((*steps, name, key), each) for key, each in value.items())
        elif name in INNER_LISTS and isinstance(value, list):
            inner = (((*steps, name, index), each) for index, each in enumerate(value))
        elif name in INNER_ONE:
            inner = (((*steps, name), value),)
        for where, each in inner:
            if isinstance(each, dict):
                yield from _schemas(each, where, depth + 1)


def _place(steps: _Steps) -> str:
    """Return a place as people write it: made only when it is told, for names may be long."""
    shown = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:_LONGEST_PLACE]}" for step in steps)[
        1:
    ]
    return shown if len(shown) <= _LONGEST_PLACE else f"{shown[:_LONGEST_PLACE]}…"
