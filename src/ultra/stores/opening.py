"""Makes the store that a setting names, and imports its module only then."""

from __future__ import annotations

from typing import Final

from ultra.errors import BadCall
from ultra.stores.contracts import CacheStore, SharedLimits
from ultra.stores.memory import MemoryCache
from ultra.stores.shared_contract import SharedModels

__all__ = [
    "check_cache",
    "check_limits",
    "check_shared",
    "open_cache",
    "open_limits",
    "open_shared",
    "shown_store",
    "without_password",
]

_SQLITE: Final = "sqlite:///"
_REDIS: Final = ("redis://", "rediss://")


def open_cache(spec: CacheStore | str | bool | None = None) -> CacheStore:  # noqa: FBT001 - it is one of the specs
    """Return the store that `spec` names.

    True, None and ``"memory"`` make a `MemoryCache` with its default bounds. ``"sqlite:///answers.db"``
    makes a `SqliteCache` at a path relative to the working directory, ``"sqlite:////var/answers.db"`` one
    at an absolute path. ``"redis://host:6379/0"`` makes a `RedisCache`, over TLS with ``rediss://``. An
    object that has the methods of a `CacheStore` is returned as it is.

    Raises:
        BadCall: `spec` is none of these.
        ConfigError: the file is not a cache, or belongs to a newer version of Ultra.
        MissingExtra: the store needs packages that are not installed.
    """
    if spec is None or spec is True or spec == "memory":
        return MemoryCache()
    if isinstance(spec, str) and spec.startswith(_SQLITE):
        from ultra.stores.sqlite import SqliteCache  # noqa: PLC0415 - few need it

        return SqliteCache(spec.removeprefix(_SQLITE))
    if isinstance(spec, str) and spec.startswith(_REDIS):
        from ultra.stores.redis import RedisCache  # noqa: PLC0415 - it needs the extra

        return RedisCache(spec)
    if isinstance(spec, CacheStore):
        return spec
    raise _not_allowed(spec)


def check_cache(spec: str) -> None:
    """Raise what `open_cache` would raise for this text, as far as that shows without opening anything.

    No file is looked for or made, and no server is looked up or connected to.
    """
    if spec.startswith(_SQLITE):
        from ultra.stores.sqlite import check_path  # noqa: PLC0415 - few need it

        check_path(spec.removeprefix(_SQLITE))
    elif spec.startswith(_REDIS):
        from ultra.stores.redis import check_url  # noqa: PLC0415 - it needs the extra

        check_url(spec)
    elif spec != "memory":
        raise _not_allowed(spec)


def open_limits(spec: str) -> SharedLimits:
    """Return the store of limits that `spec` names: ``memory``, ``sqlite:///limits.db``, ``redis://host``.

    Raises:
        BadCall: `spec` is none of these.
        ConfigError: the file cannot be used.
        MissingExtra: the store needs packages that are not installed.
    """
    check_limits(spec)
    if spec.startswith(_SQLITE):
        from ultra.stores.sqlite_limits import SqliteLimits  # noqa: PLC0415 - few need it

        return SqliteLimits(spec.removeprefix(_SQLITE))
    if spec.startswith(_REDIS):
        from ultra.stores.redis_limits import RedisLimits  # noqa: PLC0415 - it needs the extra

        return RedisLimits(spec)
    from ultra.stores.memory_limits import MemoryLimits  # noqa: PLC0415 - few need it

    return MemoryLimits()


def check_limits(spec: str) -> None:
    """Raise `BadCall` if `open_limits` knows no such store; nothing is opened."""
    if spec.startswith(_SQLITE):
        from ultra.stores.sqlite_limits import check_path  # noqa: PLC0415 - few need it

        check_path(spec.removeprefix(_SQLITE))
    elif spec.startswith(_REDIS):
        from ultra.stores.redis_server import check_url  # noqa: PLC0415 - few need it

        check_url(spec)
    elif spec != "memory":
        raise BadCall(
            f"{shown_store(spec)} is no store of limits; give 'memory', 'sqlite:///path' or 'redis://host'"
        )


def open_shared(spec: SharedModels | str | None) -> SharedModels | None:
    """Return what several processes share of their models: ``redis://host``, an object, or None.

    Raises:
        BadCall: `spec` is none of these.
        MissingExtra: the store needs packages that are not installed.
    """
    if spec is None or isinstance(spec, SharedModels):
        return spec
    check_shared(spec)
    from ultra.stores.shared_redis import RedisSharedModels  # noqa: PLC0415 - it needs the extra

    return RedisSharedModels(spec)


def check_shared(spec: object) -> None:
    """Raise `BadCall` if `open_shared` knows no such store; nothing is opened."""
    if not isinstance(spec, str) or not spec.startswith(_REDIS):
        raise BadCall(
            f"shared={shown_store(spec)} is not allowed; give 'redis://host', or an object with the methods "
            "of ultra.stores.SharedModels"
        )
    from ultra.stores.redis_server import check_url  # noqa: PLC0415 - few need it

    check_url(spec)


def shown_store(spec: object) -> str:
    """Return what may be shown of a setting: what follows the scheme of a URL may hold a password."""
    if not isinstance(spec, str):
        return repr(spec)
    scheme, separator, _ = spec.partition("://")
    return f"'{scheme}://...'" if separator else str.__repr__(spec)


def without_password(spec: str) -> str:
    """Return what may be shown of a store in a configuration; see `shown_store`."""
    scheme, separator, _ = spec.partition("://")
    return f"{scheme}://***" if separator else spec


def _not_allowed(spec: object) -> BadCall:
    return BadCall(
        f"cache={shown_store(spec)} is not allowed; give True, 'memory', 'sqlite:///path', 'redis://host', "
        "or an object with the methods of ultra.stores.CacheStore"
    )
