from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import structlog

from helpers.redis_server import RedisProcess, redis_process
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


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """A Redis server that the tests of a session share; each takes a database of its own."""
    with redis_process(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def url(redis: RedisProcess) -> str:
    """The URL of a database of that server that no other test uses."""
    return redis.database()
