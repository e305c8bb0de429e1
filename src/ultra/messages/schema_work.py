"""How often one value is checked by a JSON schema.

Schemas come from anybody, and small ones can double that again and again. The number is that of the ways
through the schema that lead to one value: two references side by side, each to two more, and so on for
thirty levels, are a thousand million checks. Validators follow all these ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ultra.errors import BadCall
from ultra.messages.schema_forms import at_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["SchemaWork", "size_of"]

_HERE: Final = ("not", "if", "then", "else")
_HERE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_HERE_NAMES: Final = ("dependentSchemas", "dependencies")
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_ANCHORS: Final = ("$anchor", "$dynamicAnchor", "$id")
_EITHER: Final = ("properties", "prefixItems", "items")
"""Of these, each value is checked by one: a property by its name, an item by its place."""
_ALL: Final = (
    *("patternProperties", "additionalProperties", "additionalItems", "contains", "propertyNames"),
    *("unevaluatedItems", "unevaluatedProperties"),
)
_TWICE: Final = ("unevaluatedItems", "unevaluatedProperties")
"""With these, what stands beside them is looked through once more."""


class _Node:
    """One schema, with the numbers of those by which the same value, and the values in it, are checked."""

    __slots__ = ("all", "either", "here", "twice")

    def __init__(self, *, twice: bool) -> None:
        self.here: list[int] = []
        self.either: list[int] = []
        self.all: list[int] = []
        self.twice = twice

    def checks(self, here: list[int], inside: list[int], *, own: int) -> int:
        """Return the checks of one value, by those of the schemas `here`, and of what is `inside`."""
        same = sum(here[each] for each in self.here) * (2 if self.twice else 1)
        either = max((inside[each] for each in self.either), default=0)
        return own + same + either + sum(inside[each] for each in self.all)


class SchemaWork:
    """The checks that one schema makes.

    `most_checks` is how often one value is checked at most, where what refers back to itself is followed
    once: validators remember what they know of it when they only say whether a value satisfies the schema.

    Raises:
        BadCall: a part of the schema is checked by itself, without end, or the number is above `limit`.
    """

    def __init__(self, schema: Mapping[str, Any], *, limit: int) -> None:
        self._nodes: list[_Node] = []
        _Graph(schema, self._nodes)
        self._in_order = _ordered(self._nodes, lambda node: node.here, _refuse_loop)
        known = [0] * len(self._nodes)
        for number in _ordered(self._nodes, lambda node: [*node.here, *node.either, *node.all]):
            known[number] = min(self._nodes[number].checks(known, known, own=1), limit + 1)
        self.most_checks = known[0]
        if self.most_checks > limit:
            raise BadCall(
                f"the schema checks one value in more than {limit} ways, since its parts refer to each other "
                "again and again; give one that says the same with fewer references side by side"
            )

    def checks_at(self, depth: int, limit: int) -> int:
        """Return how often a value at most `depth` levels inside another is checked, up to ``limit + 1``."""
        inside = [0] * len(self._nodes)
        most = 0
        for level in range(depth + 1):
            here = [0] * len(self._nodes)
            for number in self._in_order:
                checks = self._nodes[number].checks(here, inside, own=level == 0)
                here[number] = min(checks, limit + 1)
            inside = here
            most = max(most, here[0])
            if most > limit or not any(here):
                break
        return most


class _Graph:
    """Makes the nodes of a schema; the first is its root."""

    def __init__(self, schema: Mapping[str, Any], nodes: list[_Node]) -> None:
        self._nodes = nodes
        self._numbers: dict[int, int] = {}
        self._waiting: list[Mapping[str, Any]] = []
        self._number(schema)
        anchors: dict[str, list[Mapping[str, Any]]] = {}
        # Inner schemas that have an id are documents of their own, to which references in them lead.
        documents: dict[int, Mapping[str, Any]] = {id(schema): schema}
        named: list[tuple[int, str]] = []
        while self._waiting:
            each = self._waiting.pop()
            number = self._numbers[id(each)]
            document = documents[id(each)]
            for name in _ANCHORS:
                if isinstance(anchor := each.get(name), str):
                    anchors.setdefault(anchor.removeprefix("#"), []).append(each)
            for kind, inner in _inner(each):
                documents.setdefault(id(inner), inner if "$id" in inner else document)
                if kind is not None:
                    getattr(nodes[number], kind).append(self._number(inner))
                else:
                    self._number(inner)
            for name in _REFERENCES:
                if isinstance(reference := each.get(name), str):
                    found = at_reference(document, reference)
                    if found is None:
                        named.append((number, reference.removeprefix("#")))
                    else:
                        documents.setdefault(id(found[0]), found[1])
                        nodes[number].here.append(self._number(found[0]))
        for number, name in named:
            nodes[number].here += [self._numbers[id(each)] for each in anchors.get(name, ())]

    def _number(self, schema: Mapping[str, Any]) -> int:
        number = self._numbers.get(id(schema))
        if number is None:
            number = self._numbers[id(schema)] = len(self._nodes)
            self._nodes.append(_Node(twice=any(name in schema for name in _TWICE)))
            self._waiting.append(schema)
        return number


def _inner(schema: Mapping[str, Any]) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Give each schema that stands in `schema`, and which values it checks; None: those that refer to it."""
    for name, value in schema.items():
        kind: str | None = None
        if name in _HERE or name in _HERE_LISTS or name in _HERE_NAMES:
            kind = "here"
        elif name in _EITHER:
            kind = "either"
        elif name in _ALL:
            kind = "all"
        elif name not in {"$defs", "definitions"}:
            continue
        many = name in {*_HERE_NAMES, "properties", "patternProperties", "$defs", "definitions"}
        if isinstance(value, dict):
            values = list(value.values()) if many else [value]
        else:
            values = value if isinstance(value, list) else []
        for inner in values:
            if isinstance(inner, dict):
                yield kind, inner


def _ordered(
    nodes: list[_Node], following: Callable[[_Node], list[int]], loop: Callable[[], object] | None = None
) -> list[int]:
    """Return the numbers of all nodes, each behind those that follow it; what leads back is called a loop."""
    done, open_ = set[int](), set[int]()
    found: list[int] = []
    for root in range(len(nodes)):
        stack = [(root, iter(following(nodes[root])))] if root not in done else []
        open_.add(root)
        while stack:
            number, rest = stack[-1]
            for each in rest:
                if each in open_ and each not in done and loop is not None:
                    loop()
                if each not in done and each not in open_:
                    open_.add(each)
                    stack.append((each, iter(following(nodes[each]))))
                    break
            else:
                stack.pop()
                done.add(number)
                found.append(number)
    return found


def _refuse_loop() -> None:
    raise BadCall(
        "the schema has a part that refers back to itself for the same value, without end: every $ref must "
        "lead to something else, or to the schema of a property or an item"
    )


def size_of(value: object, *, deepest: int) -> tuple[int, int]:
    """Return how many values plain JSON has, itself included, and how many levels of objects and lists.

    Of what has more than `deepest` levels, the rest is not counted.
    """
    count, depth = 1, 0
    level: list[Any] = [value] if isinstance(value, dict | list) else []
    while level and depth <= deepest:
        depth += 1
        inner = [each for one in level for each in (one.values() if isinstance(one, dict) else one)]
        count += len(inner)
        level = [each for each in inner if isinstance(each, dict | list)]
    return count, depth
