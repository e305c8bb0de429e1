"""Stores of models' answers and of runs: in memory, in a SQLite file, in Redis, or of your own.

Answers are in a `CacheStore`, submitted runs in a `RunJournal`.

`open_cache` makes the store that a setting such as ``"sqlite:///answers.db"`` names. A name is imported when
it is first used, so a program without SQLite or Redis loads neither::

    from ultra.stores import SqliteCache

    orchestrator = MultiLLMOrchestrator(cache=SqliteCache("answers.db", ttl=86400))
"""

from typing import TYPE_CHECKING, Final

from ultra._support.lazy import lazy_names

if TYPE_CHECKING:
    from ultra.stores.contracts import CacheShard, CacheStatistics, CacheStore
    from ultra.stores.journal_contract import Retention, RunJournal, RunRecord
    from ultra.stores.journal_memory import MemoryJournal
    from ultra.stores.journal_opening import open_journal
    from ultra.stores.journal_redis import RedisJournal
    from ultra.stores.journal_sqlite import SqliteJournal
    from ultra.stores.memory import MemoryCache
    from ultra.stores.opening import open_cache
    from ultra.stores.redis import RedisCache
    from ultra.stores.shared_contract import SharedModels
    from ultra.stores.shared_memory import MemorySharedModels
    from ultra.stores.shared_redis import RedisSharedModels
    from ultra.stores.sqlite import SqliteCache

__all__ = [
    "CacheShard",
    "CacheStatistics",
    "CacheStore",
    "MemoryCache",
    "MemoryJournal",
    "MemorySharedModels",
    "RedisCache",
    "RedisJournal",
    "RedisSharedModels",
    "Retention",
    "RunJournal",
    "RunRecord",
    "SharedModels",
    "SqliteCache",
    "SqliteJournal",
    "open_cache",
    "open_journal",
]

_HOMES: Final = {
    "CacheShard": "ultra.stores.contracts",
    "CacheStatistics": "ultra.stores.contracts",
    "CacheStore": "ultra.stores.contracts",
    "MemoryCache": "ultra.stores.memory",
    "RedisCache": "ultra.stores.redis",
    "SqliteCache": "ultra.stores.sqlite",
    "open_cache": "ultra.stores.opening",
    "Retention": "ultra.stores.journal_contract",
    "RunJournal": "ultra.stores.journal_contract",
    "RunRecord": "ultra.stores.journal_contract",
    "MemoryJournal": "ultra.stores.journal_memory",
    "RedisJournal": "ultra.stores.journal_redis",
    "SqliteJournal": "ultra.stores.journal_sqlite",
    "open_journal": "ultra.stores.journal_opening",
    "MemorySharedModels": "ultra.stores.shared_memory",
    "RedisSharedModels": "ultra.stores.shared_redis",
    "SharedModels": "ultra.stores.shared_contract",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
