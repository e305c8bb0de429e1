"""The layout that docs and readers rely on. The import contracts are checked by import-linter."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from helpers.paths import ROOT, SOURCE


def _distribution(requirement: str) -> str:
    """The normalized name of the distribution that `requirement` asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("package", ["actors", "supervisor"])
def test_the_runtime_packages_stand_at_the_top_as_links(package: str) -> None:
    link = ROOT / package

    assert link.is_symlink()
    assert link.readlink() == Path("src/ultra") / package
    assert (link / "__init__.py").is_file()


def test_no_source_file_is_longer_than_600_lines() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}

    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > 600} == {}


def test_ultra_is_imported_without_httpx_and_without_any_optional_library() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    optional = {_distribution(requirement) for extra in extras.values() for requirement in extra}
    blocked = [
        module
        for module, distributions in packages_distributions().items()
        if not {"httpx", *optional}.isdisjoint(map(_distribution, distributions))
    ]
    assert "httpx" in blocked

    # None in the place of a module makes its import fail.
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked!r})); from ultra import *"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_every_path_on_the_map_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+[.](?:py|md|toml))?)`", page))
    named |= set(re.findall(r" ((?:[a-z_]+/)+[a-z_]+[.]py)", page))
    assert len(named) > 20

    def exists(path: str) -> bool:
        return any((base / path).exists() for base in (ROOT, SOURCE / "ultra"))

    assert [path for path in sorted(named) if not exists(path)] == []
