"""Structs that can be read as mappings, too: ``result.status`` and ``result["status"]`` are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Record"]


class Record:
    """A base that lets a Struct be read like a dictionary, as the guide reads results.

    Subclasses may add keys that are not fields: they override `keys` and `__getitem__`. ``dict(record)``
    copies one level::

        class Usage(Record, Struct):
            input_tokens: int = 0

        Usage()["input_tokens"] == Usage().input_tokens
    """

    __slots__ = ()
    __struct_fields__: ClassVar[tuple[str, ...]]  # Struct sets it

    def keys(self) -> tuple[str, ...]:
        """Return the names that can be read, in the order of the fields."""
        return self.__struct_fields__

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - each key has its field's own type
        if key not in self.keys():
            choices = ", ".join(self.keys())
            raise KeyError(f"{type(self).__name__} has no {key!r}; it has: {choices}")
        return getattr(self, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - as in dict
        """Return the value at `key`, or `default` where there is no such key."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that get

    def values(self) -> tuple[Any, ...]:
        """Return the values, in the order of `keys`."""
        return tuple(self[key] for key in self.keys())

    def items(self) -> tuple[tuple[str, Any], ...]:
        """Return pairs of key and value, in the order of `keys`."""
        return tuple((key, self[key]) for key in self.keys())
