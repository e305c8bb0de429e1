from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from ultra.stores.sqlite import SqliteCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


@pytest.fixture
async def cache(path: Path) -> AsyncIterator[SqliteCache]:
    cache = SqliteCache(path)
    yield cache
    await cache.aclose()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries
