"""What the processes of one service share of their models, the section `[shared]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.checks import check_flag
from ultra.stores.opening import check_shared, open_shared, without_password

if TYPE_CHECKING:
    from ultra.stores.shared_contract import SharedModels

__all__ = ["SharedConfig"]


class SharedConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is shared between processes: rates, pauses and circuits of models, and equal calls.

    Attributes:
        store: ``redis://host``; None: each process keeps to its own.
        single_flight: whether an equal call of another process is waited for, and not made again.

    Raises:
        BadCall: a value is not allowed.
    """

    store: str | None = None
    single_flight: bool = True

    def __post_init__(self) -> None:
        check_flag("single_flight", self.single_flight)
        if self.store is not None:
            check_shared(self.store)

    def __repr__(self) -> str:
        return f"SharedConfig(store={self._shown!r}, single_flight={self.single_flight!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: a URL may hold a password."""
        return [("store", self._shown), ("single_flight", self.single_flight)]

    @property
    def _shown(self) -> str | None:
        return None if self.store is None else without_password(self.store)

    def open(self) -> SharedModels | None:
        """Return the store; None: there is none. Raises `MissingExtra` if it needs packages."""
        return open_shared(self.store)
