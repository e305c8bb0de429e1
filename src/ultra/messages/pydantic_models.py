"""Pydantic models where msgspec's types are: their JSON schemas, and their values, read and written.

Pydantic itself is never imported here: a model is told by its methods.
"""

from __future__ import annotations

from typing import Any, cast

from msgspec import to_builtins

__all__ = ["ModelSchemas", "is_pydantic_model", "of_plain", "to_plain"]


def is_pydantic_model(kind: object) -> bool:
    """Return whether this is the class of a pydantic model."""
    return isinstance(kind, type) and all(
        callable(getattr(kind, name, None)) for name in ("model_json_schema", "model_validate")
    )


class ModelSchemas:
    """The schemas of the models inside of one type; `schema` is a ``schema_hook`` of msgspec.

    Attributes:
        definitions: what the schemas refer to, by names that differ from model to model.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._prefixes: dict[type, str] = {}

    def schema(self, kind: type) -> dict[str, Any]:
        """Return the schema of a model. Raises `NotImplementedError` for all else."""
        if not is_pydantic_model(kind):
            raise NotImplementedError
        prefix = self._prefixes.setdefault(kind, f"{kind.__name__}{len(self._prefixes) or ''}__")
        model = cast("Any", kind)
        schema: dict[str, Any] = to_builtins(
            model.model_json_schema(ref_template=f"#/$defs/{prefix}{{model}}")
        )
        for name, definition in schema.pop("$defs", {}).items():
            self.definitions[prefix + name] = definition
        return schema


def of_plain(kind: type, value: object) -> object:
    """Read plain JSON as a model; a ``dec_hook``. Raises `NotImplementedError` for all else."""
    if not is_pydantic_model(kind):
        raise NotImplementedError
    return cast("Any", kind).model_validate(value)


def to_plain(value: object) -> object:
    """Write a model as plain JSON; an ``enc_hook``. Raises `NotImplementedError` for all else."""
    dump = getattr(value, "model_dump", None)
    if not callable(dump):
        raise NotImplementedError
    return dump(mode="json")
