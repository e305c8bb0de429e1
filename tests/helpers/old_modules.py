"""Runs a script that was written before modules moved: ``python old_modules.py SCRIPT`` maps the old names.

The scripts under ``shared/cases`` import some internal modules by the addresses that they had when a
fault was reported. Their public imports need no help.
"""

from __future__ import annotations

import runpy
import sys
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

MOVED = {
    "ultra.actors.limits": "ultra.actors.model.limits",
    "ultra.actors.timeouts": "ultra.actors.model.timeouts",
    "ultra.clients.embedded": "ultra.clients.local.embedded",
    "ultra.clients.rate_limits": "ultra.clients.wire.rate_limits",
    "ultra.clients.transport": "ultra.clients.http.client",
    "ultra.pricing": "ultra.clients.pricing",
}


class Moved(MetaPathFinder, Loader):
    """Finds a module that has moved, by its old name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return import_module(MOVED[spec.name])

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it was run under its own name."""


if __name__ == "__main__":
    sys.meta_path.append(Moved())
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, script.rpartition("/")[0])
    runpy.run_path(script, run_name="__main__")
