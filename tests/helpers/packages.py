"""Packages that are installed for one test: modules and metadata in a folder of their own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest


def install(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    name: str,
    group: str,
    entry_points: Mapping[str, str],
    modules: Mapping[str, str],
) -> None:
    """Make version 1.0 of the distribution `name` importable, and its entry points known, for this test."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = "".join(f"{entry} = {value}\n" for entry, value in entry_points.items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)
        # So that the test imports it afresh, and leaves it to no other.
        monkeypatch.setitem(sys.modules, module, None)
        del sys.modules[module]
    monkeypatch.syspath_prepend(folder)
