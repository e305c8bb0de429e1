"""For all tests. Besides, pytest lets them import what lies beside this file, such as `helpers`."""

from __future__ import annotations

import gc
import re
import signal
from typing import TYPE_CHECKING

import pytest
import structlog
import trio.lowlevel
from hypothesis import HealthCheck, settings

from helpers.bytecode import keep_bytecode
from helpers.garbage import collect_garbage
from helpers.next_item import NEXT_ITEM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

keep_bytecode()
gc.disable()  # while the tests are imported, in which there is no garbage

# The same examples in every run, and a machine that is busy makes none of them fail.
settings.register_profile(
    "ultra", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ultra")


GROUPS = frozenset({"long", "ray"})
"""The groups of tests that are left out, unless ``-m`` names them: ``pytest -m long``."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups = GROUPS.difference(re.findall(r"\w+", config.getoption("markexpr") or ""))
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        is_left_out = any(item.get_closest_marker(group) is not None for group in groups)
        (left_out if is_left_out else kept).append(item)
    if left_out:
        items[:] = kept
        config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    item.stash[NEXT_ITEM] = nextitem
    return (yield)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not in what the tests have imported."""
    collect_garbage()
    gc.enable()


def pytest_sessionfinish() -> None:
    """Collect garbage once; pytest looks for more of it five times when it ends, and then finds little."""
    collect_garbage()


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_not_ignored() -> Iterator[None]:
    """Tests press Ctrl-C, here and in programs that they start and that inherit what is ignored.

    A shell lets what it starts in the background ignore Ctrl-C.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.fixture(autouse=True)
def structlog_is_not_configured() -> Iterator[None]:
    """Ultra logs through structlog only if the host configured it, as `capture_logs` does for good."""
    yield
    structlog.reset_defaults()


@pytest.fixture
async def no_task_is_left() -> AsyncIterator[None]:
    """Fails an async test that leaves a task running."""
    before = trio.lowlevel.current_statistics().tasks_living
    yield
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.fixture
def no_garbage_is_left() -> Iterator[None]:
    """Collects what a test has left, so that the warnings of that meet the test's own filters."""
    yield
    collect_garbage()
