"""What is made when it is first asked for: public names are imported, and patterns compiled."""

from __future__ import annotations

import re
import sys
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["lazy_names", "lazy_pattern"]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package whose public names are in other modules.

    `homes` maps each public name to the module that defines it. That module is imported when the name is
    first used, and the name is then kept in the package (PEP 562)::

        __getattr__, __dir__ = lazy_names(__name__, {"Stage": "ultra.strategies.stages"})
    """

    def get(name: str) -> object:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        present = vars(sys.modules[package])
        # Not what the package imports for its own use.
        others = {name for name, value in present.items() if name[0] == "_" or isinstance(value, ModuleType)}
        return sorted({*homes, *present.get("__all__", ()), *others})

    return get, names


def lazy_pattern(pattern: str, flags: int = 0) -> Callable[[], re.Pattern[str]]:
    r"""Return a function that returns the compiled pattern, for one that takes long to compile.

    ::

        _WORD: Final = lazy_pattern(r"\w+")
        _WORD().findall(text)
    """
    return cache(partial(re.compile, pattern, flags))
