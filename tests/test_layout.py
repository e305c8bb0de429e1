"""The layout that docs and readers rely on: links at the top, short files, imports that run one way."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"

LAYERS = (
    ("errors", "chance", "records", "messages", "mailbox", "loops", "host"),
    ("clients", "actors"),
    ("supervisor",),
    ("pipeline", "config"),
    ("orchestrator",),
    ("faults",),
    ("service", "cli"),
)
"""Parts of the package, lowest first. A part imports from its own layer and the ones below it."""

RUNTIME = ("ultra.actors.actor", "ultra.actors.inbox", "ultra.supervisor")
"""The modules, with what is inside them, that run actors of any kind."""

LANGUAGE_MODELS = (
    *("ultra.actors.model", "ultra.actors.coordinator", "ultra.actors.cache"),
    *("ultra.actors.retry", "ultra.actors.limits", "ultra.clients", "ultra.messages", "ultra.metrics"),
    *("ultra.orchestrator", "ultra.pipeline", "ultra.prompts", "ultra.quality"),
)
"""The modules, with what is inside them, that are about language models."""


def _module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_module_name(path): path for path in sorted((SOURCE / "ultra").rglob("*.py"))}


def _imports(module: str) -> set[str]:
    """The modules of Ultra that `module` names in an import, at its top or anywhere inside."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    named: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            named.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            submodules = (f"{origin}.{alias.name}" for alias in node.names)
            named.update(name if name in MODULES else origin for name in submodules)
    return named & MODULES.keys()


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else "ultra"


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _distribution(requirement: str) -> str:
    """The normalized name of the distribution that `requirement` asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


@pytest.mark.parametrize("package", ["actors", "supervisor"])
def test_the_runtime_packages_stand_at_the_top_as_links(package: str) -> None:
    link = ROOT / package

    assert link.is_symlink()
    assert link.readlink() == Path("src/ultra") / package
    assert (link / "__init__.py").is_file()


def test_no_source_file_is_longer_than_400_lines() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in SOURCE.rglob("*.py")}

    assert {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > 400} == {}


def test_imports_run_from_upper_layers_to_lower_ones() -> None:
    layer_of = {part: number for number, layer in enumerate(LAYERS) for part in layer}
    layer_of["ultra"] = len(LAYERS) - 1  # the public names: whatever they gather is for the outside

    upward = [
        f"{module} imports {imported}"
        for module in MODULES.keys() - {"ultra"}
        for imported in sorted(_imports(module))
        if layer_of.get(_part(imported), 0) > layer_of.get(_part(module), len(LAYERS))
    ]

    assert upward == []


def test_no_two_parts_of_the_package_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        graph.setdefault(_part(module), set()).update(map(_part, _imports(module)))
    without_loops = {part: imported - {part} for part, imported in graph.items()}

    try:
        TopologicalSorter(without_loops).prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' <- '.join(error.args[1])}")


def test_the_runtime_knows_nothing_of_language_models() -> None:
    reached = {module: [module] for module in MODULES if _inside(module, RUNTIME)}
    waiting = list(reached)
    while waiting:
        module = waiting.pop()
        for imported in _imports(module) - reached.keys():
            reached[imported] = [*reached[module], imported]
            waiting.append(imported)

    assert [" -> ".join(way) for module, way in reached.items() if _inside(module, LANGUAGE_MODELS)] == []


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
