"""Stores of models' answers: in memory, in a SQLite file, in Redis, or a `CacheStore` of your own.

`open_cache` makes the store that a setting such as ``"sqlite:///answers.db"`` names. A name is imported when
it is first used, so a program without SQLite or Redis loads neither::

    from ultra.stores import SqliteCache

    orchestrator = MultiLLMOrchestrator(cache=SqliteCache("answers.db", ttl=86400))
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.stores.contracts import CacheShard, CacheStatistics, CacheStore
    from ultra.stores.memory import MemoryCache
    from ultra.stores.opening import open_cache
    from ultra.stores.redis import RedisCache
    from ultra.stores.sqlite import SqliteCache

__all__ = [
    "CacheShard",
    "CacheStatistics",
    "CacheStore",
    "MemoryCache",
    "RedisCache",
    "SqliteCache",
    "open_cache",
]

_HOMES: Final = {
    "CacheShard": "ultra.stores.contracts",
    "CacheStatistics": "ultra.stores.contracts",
    "CacheStore": "ultra.stores.contracts",
    "MemoryCache": "ultra.stores.memory",
    "RedisCache": "ultra.stores.redis",
    "SqliteCache": "ultra.stores.sqlite",
    "open_cache": "ultra.stores.opening",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
