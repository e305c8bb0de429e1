"""Generate values that satisfy a JSON schema: arguments of calls, and answers in an asked form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from random import Random

__all__ = ["value_for"]

_WORDS: Final = (
    "amber",
    "birch",
    "cobalt",
    "delta",
    "ember",
    "fjord",
    "granite",
    "harbour",
    "indigo",
    "juniper",
)

_DEEPEST: Final = 8  # levels of a schema that refers to itself; below them, only what must be there

_FORMATS: Final[Mapping[str, str]] = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1H",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

_LARGEST: Final = 100


def value_for(schema: object, random: Random) -> Any:  # noqa: ANN401 - any JSON
    """Return a value of `schema`, as `random` decides; equal schemas and seeds give equal values.

    References within the schema, `anyOf`, `allOf`, `enum`, `const`, bounds of numbers and lengths, common
    formats, and the capital type names of Gemini are heeded. A `pattern` is not.
    """
    return _Generator(schema, random).value(schema, 0)


class _Generator:
    def __init__(self, root: object, random: Random) -> None:
        self._root = root
        self._random = random
        self._types: Mapping[str, Callable[[dict[str, Any], int], Any]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
            "null": self._null,
        }

    def value(self, given: object, depth: int) -> Any:  # noqa: ANN401 - any JSON
        schema = self._resolved(given, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._random.choice(schema["enum"])
        for name in ("anyOf", "oneOf"):
            if options := schema.get(name):
                # Deep down, null ends a schema that refers to itself.
                ends = [each for each in options if depth >= _DEEPEST and self._type(each, depth) == "null"]
                return self.value((ends or options)[0], depth + 1)
        generate: Callable[[dict[str, Any], int], Any] = self._string
        generate = self._types.get(self._type(schema, depth), generate)
        return generate(schema, depth)

    def _resolved(self, given: object, depth: int) -> dict[str, Any]:
        """Return a schema without references, and with what all of its `allOf` say."""
        schema: dict[str, Any] = given if isinstance(given, dict) else {}
        for _ in range(_DEEPEST):
            if not isinstance(reference := schema.get("$ref"), str):
                break
            schema = self._find(reference) | {name: item for name, item in schema.items() if name != "$ref"}
        for part in schema.get("allOf") or () if depth <= 2 * _DEEPEST else ():
            other = self._resolved(part, depth + 1)
            both = {
                "properties": {**(schema.get("properties") or {}), **(other.get("properties") or {})},
                "required": [*(schema.get("required") or ()), *(other.get("required") or ())],
            }
            schema = {**schema, **other, **{name: value for name, value in both.items() if value}}
        return schema

    def _find(self, reference: str) -> dict[str, Any]:
        found: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name, {}) if isinstance(found, dict) and name else found
        return found if isinstance(found, dict) else {}

    def _type(self, given: object, depth: int) -> str:
        schema = self._resolved(given, depth)
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = "null" if depth >= _DEEPEST and "null" in kind else next(iter(kind), None)
        if isinstance(kind, str):
            return kind.lower()
        return "object" if "properties" in schema else "array" if "items" in schema else "string"

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        names = [name for name in properties if name in required or depth < _DEEPEST]
        return {name: self.value(properties[name], depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least = int(schema.get("minItems") or 0)
        count = least if depth >= _DEEPEST else max(least, 1)
        first = schema.get("prefixItems") or []
        return [
            self.value(first[number] if number < len(first) else schema.get("items"), depth + 1)
            for number in range(max(count, len(first)))
        ]

    def _string(self, schema: dict[str, Any], depth: int) -> str:  # noqa: ARG002 - as the others
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._random.choice(_WORDS)
        while len(text) < int(schema.get("minLength") or 0):
            text += " " + self._random.choice(_WORDS)
        most = schema.get("maxLength")
        return text if most is None else text[: int(most)]

    def _boolean(self, schema: dict[str, Any], depth: int) -> bool:  # noqa: ARG002 - as the others
        return bool(self._random.getrandbits(1))

    def _null(self, schema: dict[str, Any], depth: int) -> None:  # noqa: ARG002 - as the others
        return None

    def _bounds(self, schema: dict[str, Any]) -> tuple[float, float]:
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        most = schema.get("maximum", schema.get("exclusiveMaximum", max(_LARGEST, least + _LARGEST)))
        return min(least, most) if "minimum" not in schema else least, most

    def _integer(self, schema: dict[str, Any], depth: int) -> int:  # noqa: ARG002 - as the others
        least, most = self._bounds(schema)
        step = int(schema.get("multipleOf") or 1)
        low = -int(-least // step) + ("exclusiveMinimum" in schema and least % step == 0)
        high = int(most // step) - ("exclusiveMaximum" in schema and most % step == 0)
        return step * self._random.randint(low, max(low, high))

    def _number(self, schema: dict[str, Any], depth: int) -> float:  # noqa: ARG002 - as the others
        least, most = self._bounds(schema)
        if step := schema.get("multipleOf"):
            return float(step * self._random.randint(int(-(-least // step)), int(most // step)))
        return round(least + (most - least) * self._random.randint(1, 7) / 8, 3)
