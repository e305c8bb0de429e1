"""Compiling once what all processes of the tests import."""

from __future__ import annotations

import os
import sys

from helpers.paths import ROOT

__all__ = ["keep_bytecode"]


def keep_bytecode() -> None:
    """Keep compiled modules in the cache of pytest where they must not lie beside their sources.

    Without any cache, each Python that tests start would compile for a second or more all that it imports.
    """
    if sys.dont_write_bytecode:
        folder = str(ROOT / ".pytest_cache" / "bytecode")
        sys.dont_write_bytecode = False
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
