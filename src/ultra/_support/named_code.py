"""Code of the user's own, named as ``package.module:attribute``: a class of clients, a strategy, a grader."""

from __future__ import annotations

from importlib import import_module
from operator import attrgetter

from ultra.errors import BadCall

__all__ = ["load_named"]


def load_named(what: str, name: str) -> object:
    """Return what is called `name`; `what` says in an error what it is for. That imports its module.

    Raises:
        BadCall: it cannot be imported, or the module has none of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        found: object = attrgetter(attribute)(import_module(module))
    except (Exception, SystemExit) as error:  # some modules are programs, and end
        raise BadCall(f"{what} {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
    return found
