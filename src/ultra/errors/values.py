"""An error as a value: what another process can be told of it, and what it makes of that."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final, TypeVar

from msgspec import Struct, convert, msgpack

from ultra.errors.copying import text_of, writable

__all__ = ["ErrorValue", "exception_of"]

T = TypeVar("T")

_MOST_ERRORS: Final = 32
"""How many errors one value holds at most: its causes, and those of its groups."""

_MOST_ITEMS: Final = 256
"""How many items a list or a dictionary in an attribute has at most, and an error attributes."""

_LONGEST_TEXT: Final = 16_384
"""Characters of one text; the rest is cut off, and the text says so."""

_LONGEST_NOTE: Final = 64
"""Characters by which it may be longer with that note, so that what was cut is not cut again."""

_LONGEST_NAME: Final = 256
_LARGEST_STRUCT: Final = 65_536
"""Bytes of an attribute that is a Struct."""

_LARGEST: Final = 2**19
"""Characters of all texts of one value, causes and groups included; another plain value counts as eight."""

_PLAIN_SIZE: Final = 8


class ErrorValue(Struct, frozen=True, kw_only=True, dict=True):
    """An exception as a value, with what led to it.

    In the process where it was raised, `exception` is that very exception, with its traceback. In another
    process it is a new one of the same class, with the same text, causes and plain attributes. Where the
    class is not loaded there, or cannot be made again with this text, it is a `RuntimeError` that has both.
    What a value names is not trusted: it imports nothing, and only exceptions and Structs of Ultra's are
    made. Of the code of an exception's class, nothing is called but ``__str__``.
    ::

        value = ErrorValue.of(error)
        raise value.exception

    Attributes:
        module, type: of the class: ``"builtins"`` and ``"ValueError"``.
        text: ``str(error)``. Texts are cut after 16,384 characters, and say so.
        args: what is plain among its `args`; None in the place of others.
        attributes: its attributes, as far as they are plain values, or Structs of Ultra's, such as a
            `Usage`; None in the place of others.
        structs: module and type of those attributes that were Structs.
        cause: the error that it was raised from.
        errors: those in a group.
    """

    module: str
    type: str
    text: str = ""
    args: list[Any] = []
    attributes: dict[str, Any] = {}
    structs: dict[str, tuple[str, str]] = {}
    cause: ErrorValue | None = None
    errors: list[ErrorValue] = []

    @classmethod
    def of(cls, error: BaseException) -> ErrorValue:
        """Return the value of `error`; raises nothing, whatever the code of its class does."""
        return _Teller().value(error)

    @cached_property
    def exception(self) -> BaseException:
        """The exception: the same each time."""
        return _made_again(self, _MOST_ERRORS)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.module}.{self.type}: {self.text}>"


def exception_of(value: ErrorValue | None) -> Exception | None:
    """Return the exception of a value that may be None."""
    error = None if value is None else value.exception
    return error if error is None or isinstance(error, Exception) else RuntimeError(repr(error))


class _Teller:
    """Make values of errors: each error once, since causes may lead back, so many and so much at most."""

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._room = _LARGEST

    def value(self, error: BaseException) -> ErrorValue:
        self._told.add(id(error))
        try:
            value = self._whole(error)
        except Exception:  # noqa: BLE001 - even `args` may be anybody's code
            kind = type(error)
            text = self._text(text_of(error))
            module, name = _names_of(kind)
            value = ErrorValue(module=module, type=name, text=text)
        vars(value)["exception"] = error
        return value

    def _whole(self, error: BaseException) -> ErrorValue:
        kind = type(error)
        cause = error.__cause__
        text = self._text(text_of(error))
        group = error if isinstance(error, BaseExceptionGroup) else None
        args = (
            [self._text(group.message)]
            if group is not None
            else [*map(self._plain, error.args[:_MOST_ITEMS])]
        )
        attributes, structs = self._attributes(error)
        module, name = _names_of(kind)
        return ErrorValue(
            module=module,
            type=name,
            text=text,
            args=args,
            attributes=attributes,
            structs=structs,
            cause=self.value(cause) if cause is not None and self._may_tell(cause) else None,
            errors=[self.value(inner) for inner in group.exceptions if self._may_tell(inner)]
            if group is not None
            else [],
        )

    def _may_tell(self, error: BaseException) -> bool:
        return id(error) not in self._told and len(self._told) < _MOST_ERRORS

    def _attributes(self, error: BaseException) -> tuple[dict[str, Any], dict[str, tuple[str, str]]]:
        attributes: dict[str, Any] = {}
        structs: dict[str, tuple[str, str]] = {}
        for name, value in vars(error).items():
            if len(name) > _LONGEST_NAME or len(attributes) >= _MOST_ITEMS or not self._fits(len(name)):
                continue
            name, kind = writable(name), type(value)  # noqa: PLW2901 - no other name is told
            if isinstance(value, Struct) and _is_ours(kind.__module__):
                attributes[name] = self._struct(value)
                if attributes[name] is not None:
                    structs[name] = _names_of(kind)
            else:
                attributes[name] = self._plain(value)
        return attributes, structs

    def _struct(self, value: Struct) -> Any:  # noqa: ANN401 - its plain form
        """Return the plain form of a Struct; None: it is too large, or holds what is no value."""
        try:
            encoded = msgpack.encode(value)
            if len(encoded) <= _LARGEST_STRUCT and self._fits(len(encoded)):
                return msgpack.decode(encoded)
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass
        return None

    def _plain(self, value: object) -> Any:  # noqa: ANN401 - any plain value
        """Return `value` if it is plain, or a list or dictionary of what is; None if it is not."""
        if isinstance(value, (list, tuple)) and type(value) in {list, tuple}:
            return [*map(self._plain_item, value)] if len(value) <= _MOST_ITEMS else None
        if isinstance(value, dict) and type(value) is dict and len(value) <= _MOST_ITEMS:
            items = [(key, item) for key, item in value.items() if type(key) is str]
            # A key takes room, too, where there is none for its value.
            return {self._text(key): self._plain_item(item) for key, item in items if self._room > 0}
        return self._plain_item(value)

    def _plain_item(self, value: object) -> str | int | float | bool | None:
        if isinstance(value, str) and type(value) is str:
            return self._text(value) if self._room > 0 else None
        if not self._fits(_PLAIN_SIZE):
            return None
        if isinstance(value, int) and type(value) is int:
            return value if -(2**63) <= value < 2**64 else None
        if isinstance(value, float) and type(value) is float:
            return value if value == value else None  # noqa: PLR0124 - NaN is equal to nothing, itself included
        return value if isinstance(value, bool) else None

    def _text(self, text: str) -> str:
        """Return as much of `text` as there is room for."""
        most = min(_LONGEST_TEXT, max(0, self._room))
        whole = len(text) <= most + _LONGEST_NOTE
        self._room -= min(len(text), most) + (0 if whole else _LONGEST_NOTE)
        return writable(text if whole else f"{text[:most]}… ({len(text) - most:,} more characters)")

    def _fits(self, size: int) -> bool:
        """Return whether there is room for so much, and take it."""
        fits = size <= self._room
        if fits:
            self._room -= size
        return fits


def _names_of(kind: type) -> tuple[str, str]:
    """Return module and name of a class, which may be anything, and of any length."""
    return writable(str(kind.__module__)[:_LONGEST_NAME]), kind.__qualname__[:_LONGEST_NAME]


def _made_again(value: ErrorValue, deepest: int) -> BaseException:
    """Return the exception of `value`, with causes and groups as deep as they are told at most."""
    known: BaseException | None = vars(value).get("exception")
    if known is not None:
        return known
    error = _single(value) if not value.errors or deepest <= 0 else _group(value, deepest - 1)
    if error is None:
        error = RuntimeError(f"{value.type}: {value.text}")
    if value.cause is not None and deepest > 0:
        error.__cause__ = _made_again(value.cause, deepest - 1)
    return error


def _group(value: ErrorValue, deepest: int) -> BaseException:
    message = value.args[0] if value.args else value.text
    return BaseExceptionGroup(str(message), [_made_again(inner, deepest) for inner in value.errors])


def _single(value: ErrorValue) -> BaseException | None:
    """Return an exception of the class of `value`; None if there can be none that has its text."""
    kind = _loaded(value.module, value.type, BaseException)
    if kind is None:
        return None
    try:
        # An `__init__` may take other arguments than `args`, and a `__new__` of other code may do anything.
        error: BaseException = (
            kind(*value.args)
            if value.module == "builtins"
            else _builtin_base(kind).__new__(kind, *value.args)
        )
        if value.module != "builtins":
            error.args = tuple(value.args)
        vars(error).update(value.attributes)
        for name, (module, struct) in value.structs.items():
            known = _loaded(module, struct, Struct) if _is_ours(module) else None
            vars(error)[name] = None if known is None else convert(value.attributes[name], known)
    except Exception:  # noqa: BLE001 - the class may be another here
        return None
    return error if text_of(error) == value.text else None


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins")


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == __name__.partition(".")[0]


def _loaded(module: str, name: str, base: type[T]) -> type[T] | None:
    """Return the class of this name below `base`, if the module is loaded and has it by now.

    No attribute is asked for: that may import a module, or run code.
    """
    names: object = vars(sys.modules[module]) if module in sys.modules else {}
    found: object = None
    for part in name.split("."):
        found = names.get(part) if isinstance(names, Mapping) else None
        names = type.__getattribute__(found, "__dict__") if isinstance(found, type) else None
    return found if isinstance(found, type) and issubclass(found, base) else None
