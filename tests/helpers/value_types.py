"""Whether a type is one of values: whatever it holds survives the way to another process and back."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from datetime import UTC
from importlib import import_module
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from hypothesis import strategies as st
from msgspec import Struct, inspect

import ultra
from ultra.actors.runtime.message import Message, SystemMessage
from ultra.errors import MissingExtra

Sample = st.SearchStrategy[Any]


class NoValueError(Exception):
    """A type can hold something that has no encoding, or nothing is known about what it holds."""


def import_all_of_ultra() -> None:
    """Import every module of the package, but those whose extra is not installed."""
    for module in pkgutil.walk_packages(ultra.__path__, "ultra."):
        try:
            import_module(module.name)
        except MissingExtra:
            continue
        except ModuleNotFoundError as error:
            if (error.name or "ultra").partition(".")[0] == "ultra":
                raise


def messages_of_ultra() -> list[type[Message[Any]]]:
    """All classes of messages that the package defines, but for the base classes."""
    return [kind for kind in structs_of("ultra") if issubclass(kind, Message)]


def structs_of(*rooms: str) -> list[type[Struct]]:
    """All Structs that these packages define, but for the base classes of messages."""
    import_all_of_ultra()
    kinds = {
        kind for kind in _subclasses(Struct) if kind.__module__.startswith(tuple(f"{r}." for r in rooms))
    }
    return sorted(kinds - {Message, SystemMessage}, key=lambda kind: (kind.__module__, kind.__qualname__))


def _subclasses(kind: type[Any]) -> Iterator[type[Any]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def reply_type(message: type[Message[Any]]) -> Any:
    """The type of the reply to such messages: what stands in the brackets of ``Message[...]``.

    Raises:
        LookupError: there is nothing in brackets.
    """
    for kind in message.__mro__:
        for base in kind.__dict__.get("__orig_bases__", ()):
            origin = get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Message):
                (reply,) = get_args(base)
                if not isinstance(reply, TypeVar):
                    return reply
    raise LookupError(f"{message.__qualname__} does not say what the reply is")


def there_and_back(value: Any, kind: Any) -> Any:
    """What arrives in another process that expects a `kind`."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=kind)


def samples(kind: Any, known: Mapping[tuple[type, str], Sample]) -> Sample:
    """Draw values of this type, from what its fields say of themselves.

    `known` has the fields that cannot say what they take: what is in an ``Any``, or has bounds that the
    class checks.

    Raises:
        NoValueError: a field takes something that is no value, such as a function.
    """
    return _Sampler(known).of(inspect.type_info(kind), getattr(kind, "__qualname__", str(kind)))


class _Sampler:
    def __init__(self, known: Mapping[tuple[type, str], Sample]) -> None:
        self._known = known
        self._structs: dict[type, Sample] = {}

    def of(self, info: inspect.Type, where: str) -> Sample:
        match info:
            case inspect.StructType(cls=cls, fields=fields):
                sample = self._struct(cls, fields)
            case inspect.UnionType(types=types):
                sample = st.one_of([self.of(each, where) for each in types])
            case inspect.LiteralType(values=values):
                sample = st.sampled_from(values)
            case inspect.EnumType(cls=enum):
                sample = st.sampled_from(enum)
            case inspect.ListType(item_type=item):
                sample = st.lists(self.of(item, where), max_size=2)
            case inspect.VarTupleType(item_type=item):
                sample = st.lists(self.of(item, where), max_size=2).map(tuple)
            case inspect.TupleType(item_types=types):
                sample = st.tuples(*[self.of(each, where) for each in types])
            case inspect.DictType(key_type=key, value_type=value):
                sample = st.dictionaries(self.of(key, where), self.of(value, where), max_size=2)
            case _ if type(info) in _PLAIN:
                sample = _PLAIN[type(info)]
            case _:
                raise NoValueError(f"{where} can hold a {type(info).__name__}, which may be no value")
        return sample

    def _struct(self, cls: type[Struct], fields: tuple[inspect.Field, ...]) -> Sample:
        if cls not in self._structs:
            drawn: dict[str, Sample] = {}
            self._structs[cls] = st.deferred(lambda: st.builds(cls, **drawn))  # it may hold its own kind
            for field in fields:
                known = self._known.get((cls, field.name))
                where = f"{cls.__qualname__}.{field.name}"
                drawn[field.name] = self.of(field.type, where) if known is None else known
        return self._structs[cls]


_PLAIN: Mapping[type[inspect.Type], Sample] = {
    inspect.NoneType: st.none(),
    inspect.BoolType: st.booleans(),
    inspect.IntType: st.integers(-(2**63), 2**64 - 1),
    inspect.FloatType: st.floats(allow_nan=False),
    inspect.StrType: st.text(max_size=5),
    inspect.BytesType: st.binary(max_size=5),
    inspect.DateTimeType: st.datetimes(timezones=st.just(UTC)),
}
