"""Which context variables a client reads, as far as its code shows it.

A client may act for its caller: it reads a tenant or a key from a context variable. Then the answer to one
caller must not be given to another. A client can say so with its attribute ``reads_context``. For one that
does not, its Python code is searched for the context variables to which it refers.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ContextReads", "context_reads"]

ContextReads: TypeAlias = bool | tuple[ContextVar[Any], ...]
"""The variables that a client reads; True: it reads some, and nobody knows which; False: none are known."""

_MOST_VISITED: Final = 500
"""How many functions and objects are looked at."""


def context_reads(client: object, declared: object) -> ContextReads:
    """Return what a client reads of its caller's context: what it has `declared`, or what its code shows.

    The search follows functions of the client's own package, methods, closures and partial functions. It
    finds no variable that is read by other libraries, or under a name that is computed.
    """
    if isinstance(declared, bool):
        return declared
    if isinstance(declared, ContextVar):
        return (declared,)
    if isinstance(declared, Iterable) and not isinstance(declared, str | bytes):
        found = tuple(declared)
        if found and all(isinstance(each, ContextVar) for each in found):
            return found
    return tuple(_Search(client).variables) or False


class _Search:
    def __init__(self, client: object) -> None:
        self.variables: dict[ContextVar[Any], None] = {}
        self._seen: dict[int, object] = {}  # kept alive, so that no other object gets the id
        self._waiting: list[object] = [client]
        self._packages = {_package_of(client)}
        self._add_members(client)
        while self._waiting and len(self._seen) < _MOST_VISITED:
            self._visit(self._waiting.pop())

    def _visit(self, found: object) -> None:
        if id(found) in self._seen:
            return
        self._seen[id(found)] = found
        if isinstance(found, ContextVar):
            self.variables[found] = None
        elif isinstance(found, FunctionType):
            if _is_near(found, self._packages):
                self._waiting += _referred(found)
        elif isinstance(found, MethodType):
            self._waiting.append(found.__func__)
            self._add_members(found.__self__)
        elif isinstance(found, partial):
            self._waiting += [found.func, *found.args, *found.keywords.values()]
        elif isinstance(found, staticmethod | classmethod | property):
            self._waiting.append(found.fget if isinstance(found, property) else found.__func__)

    def _add_members(self, owner: object) -> None:
        """Look at the methods of an object's classes, and at what it holds itself."""
        if isinstance(owner, FunctionType | ModuleType | type):
            return
        own = getattr(owner, "__dict__", {})
        self._packages |= {_package_of(each) for each in list(own.values()) if isinstance(each, FunctionType)}
        kinds = [kind for kind in type(owner).__mro__ if _package_of(kind) in self._packages]
        for members in (own, *map(vars, kinds)):
            self._waiting += [
                member
                for member in list(members.values())
                if isinstance(
                    member,
                    ContextVar | FunctionType | MethodType | partial | staticmethod | classmethod | property,
                )
            ]


def _package_of(client: object) -> str:
    function = client.func if isinstance(client, partial) else client
    module = getattr(function, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _is_near(function: FunctionType, packages: set[str]) -> bool:
    # Ultra's own clients read nothing of the kind, and other libraries are too much to search.
    package = _package_of(function)
    return package in packages and package != "ultra"


def _referred(function: FunctionType) -> Iterator[object]:
    """Give what the code of a function refers to: globals, attributes of these, closures, defaults."""
    names = frozenset(_names(function.__code__))
    for name in names:
        value = function.__globals__.get(name)
        if value is None:
            continue
        yield value
        # As in ``state.tenant.get()``, be `state` a module, a class or an object.
        if not isinstance(value, ContextVar | FunctionType):
            members = getattr(value, "__dict__", None)
            if members is not None:
                yield from (members[each] for each in names if each in members)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # it is empty
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield getattr(function, "__wrapped__", None)


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
