"""The JSON schema that an answer must satisfy."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from ultra._support.checks import as_json
from ultra._support.lazy import lazy_pattern
from ultra.errors import BadCall

__all__ = ["InvalidOutputError", "JsonSchema"]

_NAME: Final = lazy_pattern(r"[A-Za-z0-9_-]{1,64}")


class InvalidOutputError(ValueError):
    """A text has no JSON, or JSON that does not satisfy the schema; the message says what is wrong."""


class JsonSchema(Struct, frozen=True):
    """A JSON schema with a name, as providers want it.

    `strict` asks the provider to hold the model to it, where it can. `wrapped`: what is wanted is no object,
    so it is the property ``answer`` of the one that the schema describes.

    Raises:
        BadCall: the name is not allowed, or the schema cannot be written as JSON.
    """

    name: str
    schema: dict[str, Any]
    strict: bool = True
    wrapped: bool = False

    def __post_init__(self) -> None:
        if not _NAME().fullmatch(self.name):
            raise BadCall(
                f"the schema is named {self.name[:64]!r}; a name has 1 to 64 letters, digits, _ and -"
            )
        as_json(f"the schema {self.name!r}", self.schema)

    @property
    def of_value(self) -> dict[str, Any]:
        """The schema of what is wanted, without the object that it is wrapped in."""
        if not self.wrapped:
            return self.schema
        (inner,) = self.schema["properties"].values()
        return {
            **{name: self.schema[name] for name in ("$defs", "definitions") if name in self.schema},
            **inner,
        }
