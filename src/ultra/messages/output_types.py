"""The form in which an answer is wanted: a type or a JSON schema, and how a text is read by it.

This object stays with the caller: what is sent to models is the `JsonSchema` in it, a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from ultra.errors import BadCall, MissingExtra
from ultra.messages.bounded_json import MOST_VALUES, decode_json, has_too_many_values
from ultra.messages.functions import schema_of
from ultra.messages.json_in_text import json_candidates
from ultra.messages.pydantic_models import is_pydantic_model, of_plain, to_plain
from ultra.messages.schema import InvalidOutputError, JsonSchema
from ultra.messages.schema_check import check_schema
from ultra.messages.schema_forms import WRAPPED, strict_form, with_object_at_root
from ultra.messages.schema_work import SchemaWork, size_of

__all__ = ["FoundOutput", "InvalidOutputError", "OutputType"]

T = TypeVar("T")

_LARGEST: Final = 256 * 1024
"""Bytes of a schema."""
_MOST_TOLD: Final = 8
"""So many errors of one answer are told to its model."""
_LONGEST_TOLD: Final = 300
"""Characters of one of them."""
_LONGEST_KEPT: Final = 4_000
_DEEPEST: Final = 200
"""Levels of an answer: what reads it goes down level by level."""
_MOST_CHECKS: Final = 10_000
"""So often a schema may check one value."""
_MOST_IN_ALL: Final = 50_000_000
"""So many checks of one answer are made, in about a second."""
_MOST_EXPLAINED: Final = 10_000
"""So many are made again to tell what is wrong, which takes far longer for each."""
_KEYWORDS: Final = frozenset(
    {"type", "properties", "$ref", "anyOf", "oneOf", "allOf", "enum", "const", "items", "prefixItems"}
    | {"required", "additionalProperties", "patternProperties", "not", "if"}
)
_ALLOWED: Final = (
    "a msgspec Struct, a dataclass, a TypedDict, a NamedTuple, a list or a union of such, a pydantic model, "
    "a JSON schema (a dict), or a dict such as "
    "{'type': 'json_schema', 'json_schema': {'name': …, 'schema': …}}"
)


class FoundOutput(NamedTuple):
    """What was found in a text: the JSON as it stands there, and its value as plain JSON."""

    text: str
    value: Any


class OutputType:
    """A type or a JSON schema that answers must satisfy; made by `of`.

    `schema` is what models are given: its root is an object, and it is as strict as it can be without
    changing its meaning.
    """

    __slots__ = ("_decode", "_described", "_wrapped", "schema")

    def __init__(
        self, name: str, schema: dict[str, Any], decode: Callable[[Any], Any], *, strict: bool | None = None
    ) -> None:
        described, self._wrapped = with_object_at_root(schema)
        form = None
        if strict is not False:
            form = described if strict else strict_form(described)
        self._decode = decode
        self._described = name
        self.schema = JsonSchema(
            _name(name), form or described, strict=form is not None, wrapped=self._wrapped
        )

    def __repr__(self) -> str:
        return f"<OutputType {self._described}>"

    @classmethod
    def of(cls, given: object) -> OutputType | None:
        """Return the form that a caller gives as ``output=``; None for None.

        Raises:
            BadCall: it is no such type or schema, or nothing can satisfy it. The message names the place.
            MissingExtra: it is a JSON schema, and the extra ``schema`` is not installed.
        """
        if given is None or isinstance(given, OutputType):
            return given
        if isinstance(given, JsonSchema):
            return cls._of_schema(given.of_value, given.name, strict=None if given.wrapped else given.strict)
        if isinstance(given, Mapping):
            return cls._of_mapping(given)
        if is_pydantic_model(given):
            return cls._of_pydantic(given)
        if given is Any or isinstance(given, str | bytes | int | float | list | tuple):
            raise BadCall(f"output is {given!r:.200}; give {_ALLOWED}")
        return cls._of_type(given)

    def read(self, text: str) -> FoundOutput:
        """Return the JSON in `text` that satisfies the schema.

        It may be the whole text, or stand in fences or between prose. Raises `InvalidOutputError`.
        """
        return FoundOutput(*self._found(text, self.plain))

    def value_in(self, text: str) -> Any:  # noqa: ANN401 - of the type that the caller gave
        """Return the value of the caller's type for the JSON that `read` finds in a text. Raises as it does.

        Not by way of the plain JSON: a type whose validators change what they get (``"5 EUR"`` to 5) may
        refuse what they made of it.
        """
        return self._found(text, self._checked)[1]

    def _found(self, text: str, take: Callable[[object], T]) -> tuple[str, T]:
        if has_too_many_values(text):
            raise InvalidOutputError(f"it has more than {MOST_VALUES} objects and lists")
        wrong: InvalidOutputError | None = None
        for piece in json_candidates(text):
            try:
                value = decode_json(piece)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
            try:
                return piece, take(value)
            except InvalidOutputError as error:
                wrong = wrong or error
        if wrong is None:
            raise InvalidOutputError("there is no whole JSON value in it")
        raise wrong

    def plain(self, value: object) -> Any:  # noqa: ANN401 - JSON
        """Return the plain JSON `value` as it satisfies the schema: unwrapped, with the defaults of the type.

        Raises:
            InvalidOutputError: it does not satisfy the schema.
        """
        return _plain(self._checked(value))

    def _checked(self, value: object) -> Any:  # noqa: ANN401 - as above
        _, depth = size_of(value, deepest=_DEEPEST)
        if depth > _DEEPEST:
            raise InvalidOutputError(f"it has more than {_DEEPEST} levels of objects and lists")
        if self._wrapped and isinstance(value, dict) and list(value) == [WRAPPED]:
            value = value[WRAPPED]
        return self.decoded(value)

    def decoded(self, value: object) -> Any:  # noqa: ANN401 - of the type that the caller gave
        """Return plain JSON as a value of the caller's type. Raises `InvalidOutputError`."""
        try:
            return self._decode(value)
        except InvalidOutputError:
            raise
        except RecursionError:
            raise InvalidOutputError("it is nested too deeply") from None
        except (ValueError, TypeError) as error:  # those of msgspec and of pydantic are ValueErrors
            raise InvalidOutputError(_shortened(str(error), _LONGEST_KEPT)) from error
        except Exception as error:  # of a `__post_init__` or a validator of the caller's own
            told = _shortened(f"{type(error).__name__}: {error}", _LONGEST_KEPT)
            raise InvalidOutputError(told) from error

    @classmethod
    def _of_type(cls, kind: Any) -> OutputType:  # noqa: ANN401 - a type
        try:
            schema = schema_of(kind)
        except Exception as error:  # noqa: BLE001 - msgspec raises several, and a type may be anything
            raise BadCall(
                f"output is {kind!r:.200}, for which there is no JSON schema ({error}); give {_ALLOWED}"
            ) from None

        def decode(value: object) -> object:
            return msgspec.convert(value, kind, str_keys=True, dec_hook=of_plain)

        return cls(getattr(kind, "__name__", WRAPPED), schema, decode)

    @classmethod
    def _of_pydantic(cls, model: Any) -> OutputType:  # noqa: ANN401 - a class of a package that may be absent
        try:
            schema = msgspec.to_builtins(model.model_json_schema())
        except Exception as error:
            raise BadCall(f"output is {model.__name__}, which makes no JSON schema: {error}") from error
        return cls(model.__name__, schema, model.model_validate)

    @classmethod
    def _of_mapping(cls, given: Mapping[Any, Any]) -> OutputType:
        kind = given.get("type")
        if kind == "json_object":
            return cls._of_schema({"type": "object"}, WRAPPED, strict=False)
        if kind != "json_schema":
            return cls._of_schema(given, given.get("title") or WRAPPED)
        inner = given.get("json_schema", given)
        schema = inner.get("schema") if isinstance(inner, Mapping) else None
        if not isinstance(schema, Mapping):
            raise BadCall("output: json_schema.schema is missing; give {'name': …, 'schema': {…}} there")
        return cls._of_schema(schema, inner.get("name") or WRAPPED, strict=inner.get("strict"))

    @classmethod
    def _of_schema(cls, given: Mapping[Any, Any], name: object, *, strict: bool | None = None) -> OutputType:
        try:
            data = msgspec.json.encode(given)
            schema = cast("dict[str, Any]", msgspec.json.decode(data))
        except (TypeError, ValueError, RecursionError) as error:
            raise BadCall(f"the JSON schema of the output cannot be written as JSON: {error}") from None
        if len(data) > _LARGEST:
            raise BadCall(f"the JSON schema of the output has {len(data)} bytes; it may have {_LARGEST}")
        if _KEYWORDS.isdisjoint(schema):
            raise BadCall(
                f"output is a dict that is no JSON schema: it has {sorted(schema)!r:.200}, and neither type, "
                f"properties, enum, anyOf nor $ref; give {_ALLOWED}"
            )
        work = SchemaWork(schema, limit=_MOST_CHECKS)  # ahead of all that follows references
        check_schema(schema)
        return cls(str(name), schema, _schema_check(schema, work), strict=strict)


def _schema_check(schema: dict[str, Any], work: SchemaWork) -> Callable[[object], object]:
    """Return what gives a value back that satisfies the schema, and else raises `InvalidOutputError`."""
    try:
        import jsonschema_rs  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtra("a JSON schema as output=", "schema") from None
    try:
        # Patterns are matched in linear time, and nothing is fetched: both may come from anybody.
        validator = jsonschema_rs.validator_for(
            schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True
        )
    except (ValueError, TypeError) as error:
        place = _place("schema", getattr(error, "instance_path", ()))
        told = getattr(error, "message", None) or str(error)
        raise BadCall(f"output is no JSON schema: {place}: {_shortened(str(told), _LONGEST_TOLD)}") from None

    def check(value: object) -> object:
        values, depth = size_of(value, deepest=_DEEPEST)
        if values * work.most_checks > _MOST_IN_ALL:
            raise InvalidOutputError(f"it has {values} values, too many to be checked by this schema")
        # What is wrong is told by trying all ways through the schema; that it is, is found sooner.
        if validator.is_valid(value):
            return value
        checks = work.checks_at(depth, _MOST_EXPLAINED)
        raise InvalidOutputError("\n".join(_told(validator, value, checks, values)))

    return check


def _told(validator: Any, value: object, checks: int, values: int) -> list[str]:  # noqa: ANN401 - of an extra
    """Return what is wrong with a value, as far as that can be found in a moment."""
    errors: list[Any]  # of the extra
    if checks * values <= _MOST_EXPLAINED:
        errors = list(islice(validator.iter_errors(value), _MOST_TOLD))
    elif checks <= _MOST_EXPLAINED // 10:
        errors = []
        try:
            validator.validate(value)
        except ValueError as error:
            errors = [error]
    else:
        return ["it does not satisfy it; where it does not is hard to tell, as deeply as it is nested"]
    return [
        f"{_shortened(_place('$', error.instance_path), _LONGEST_TOLD)}: "
        f"{_shortened(error.message, _LONGEST_TOLD)}"
        for error in errors
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a decoded value as plain JSON."""
    try:
        plain = msgspec.json.decode(msgspec.json.encode(value, enc_hook=to_plain))
        msgspec.msgpack.encode(plain)  # a result is a value, and goes to other processes: 64 bits of a number
        return plain  # noqa: TRY300 - the errors are those of both
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        told = _shortened(f"its value cannot be written as JSON: {error}", _LONGEST_KEPT)
        raise InvalidOutputError(told) from error


def _place(root: str, path: Any) -> str:  # noqa: ANN401 - a list of names and numbers
    return root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or WRAPPED
