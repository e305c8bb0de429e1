"""What `import ultra` gives: every public name, and nothing imported before somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from inspect import ismodule
from typing import TYPE_CHECKING

import pytest

import ultra
import ultra.actors
import ultra.clients
import ultra.faults
import ultra.stores
import ultra.strategies
import ultra.supervisor

if TYPE_CHECKING:
    from types import ModuleType


def test_every_public_name_can_be_imported() -> None:
    assert [name for name in ultra.__all__ if getattr(ultra, name) is None] == []
    assert {*ultra.__all__} <= {*dir(ultra)}


def test_the_names_and_their_homes_are_the_same_names() -> None:
    assert sorted(ultra._HOMES) == sorted([*ultra.__all__, "RedisCache"])


def test_every_public_name_of_the_clients_can_be_imported() -> None:
    assert [name for name in ultra.clients.__all__ if getattr(ultra.clients, name) is None] == []
    assert {*ultra.clients.__all__} <= {*dir(ultra.clients)} & {*ultra.clients._HOMES}


@pytest.mark.parametrize("package", [ultra.actors, ultra.supervisor])
def test_the_runtime_has_its_errors_beside_its_classes(package: ModuleType) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    used = {
        ultra.actors: "Actor ActorRef AskGroup AskResult ActorError ActorStopped ActorDown ActorCrashed "
        "InboxFull AskTimeout ActorUnresponsive StrayCancelled UsageError BadCall",
        ultra.supervisor: "ActorSystem Supervisor RestartIntensity RestartLimitExceeded RestartStrategy "
        "Backoff",
    }
    assert set(used[package].split()) <= set(package.__all__)


@pytest.mark.parametrize("package", [ultra, ultra.clients, ultra.faults, ultra.stores, ultra.strategies])
def test_a_package_shows_no_name_that_it_imports_for_itself(package: ModuleType) -> None:
    shown = [name for name in dir(package) if not name.startswith("_")]
    public = {*package.__all__, "RedisCache", *(name for name in shown if ismodule(getattr(package, name)))}
    assert set(shown) <= public


def test_an_unknown_name_is_an_attribute_error() -> None:
    for package in (ultra, ultra.clients):
        with pytest.raises(AttributeError, match="no attribute 'Orchestra'"):
            package.Orchestra  # noqa: B018 - looking it up is the test


def test_importing_ultra_imports_nothing_else_of_it_and_no_library() -> None:
    code = (
        "import sys; before = set(sys.modules); import ultra; "
        "print([name for name in sorted(sys.modules.keys() - before) if name not in sys.stdlib_module_names "
        "and name.partition('.')[0] not in sys.stdlib_module_names])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "['ultra', 'ultra._support', 'ultra._support.lazy']"


@pytest.mark.parametrize(
    "module",
    [
        "ultra.config.loading",  # there is a file of configuration
        "tomllib",
        "ultra.clients.providers",  # a client of a provider is wanted
        "ultra.clients.http.connections",
        "httpx",
        "ultra.stores.sqlite",  # answers are kept beyond the process
        "ultra.stores.redis",
        "sqlite3",
        "ultra.bridge.portal",  # the caller is on asyncio
        "ultra.bridge.asyncio_loop",
        "ultra.faults",  # faults are injected
        "email",  # a server has named a date
    ],
)
def test_the_orchestrator_imports_nothing_that_only_some_programs_need(module: str) -> None:
    assert module not in _imported_with_the_orchestrator()


@cache
def _imported_with_the_orchestrator() -> frozenset[str]:
    """What a program imports by it beyond the libraries that it cannot do without."""
    code = (
        "import sys, trio, msgspec, structlog; before = set(sys.modules); "
        "from ultra import MultiLLMOrchestrator; print(*sys.modules.keys() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = frozenset(done.stdout.split())
    assert "ultra.orchestrator.orchestrator" in imported
    return imported
