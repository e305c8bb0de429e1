"""Names that have a better one now: they go on working for some versions, and say so where they are used."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["GOES_WITH", "old_names"]

GOES_WITH: Final = "0.4.0"
"""The version that has the old names of now no longer; docs/versions.md lists them."""


def old_names(
    package: str, new_names: Mapping[str, str], others: Callable[[str], object] | None = None
) -> Callable[[str], object]:
    """Return the `__getattr__` of a package that has old names (PEP 562).

    `new_names` maps each old name to what the same thing is called now, in the same package. `others` looks
    up what is no old name; without it, that is an `AttributeError`. The caller hides this function from type
    checkers, which would otherwise take any name for one of the package::

        if not TYPE_CHECKING:
            __getattr__ = old_names(__name__, {"Strategy": "RestartStrategy"})
    """

    def get(name: str) -> object:
        new_name = new_names.get(name)
        if new_name is None:
            if others is not None:
                return others(name)
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        # `from package import name` looks twice: the import system whether there is such a name, and then
        # the line itself, which is the one to tell.
        if sys._getframe(1).f_globals.get("__name__") != "importlib._bootstrap":  # noqa: SLF001 - as warnings does
            text = f"{package}.{name} is an old name, which goes with Ultra {GOES_WITH}"
            warnings.warn(f"{text}: use {package}.{new_name}", DeprecationWarning, stacklevel=2)
        return getattr(sys.modules[package], new_name)

    return get
