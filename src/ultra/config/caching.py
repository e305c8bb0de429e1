"""Where answers are cached, the section `[cache]`."""

from __future__ import annotations

from msgspec import Struct

__all__ = ["CacheConfig"]


class CacheConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether answers are cached, and where: ``memory``, ``sqlite:///path`` or ``redis://host``."""

    enabled: bool = True
    store: str = "memory"

    def __repr__(self) -> str:
        return f"CacheConfig(enabled={self.enabled!r}, store={self._shown!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: a URL may hold a password."""
        return [("enabled", self.enabled), ("store", self._shown)]

    @property
    def _shown(self) -> str:
        scheme, separator, _ = self.store.partition("://")
        return f"{scheme}{separator}***" if separator else self.store
