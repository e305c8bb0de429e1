"""The history of the command, the section `[history]`."""

from __future__ import annotations

from msgspec import Struct

from ultra.stores.journal_contract import Retention

__all__ = ["HistoryConfig"]


class HistoryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the command keeps what is asked, in the user's journal.

    Attributes:
        enabled: whether runs are kept.
        retention: how long, in seconds and in bytes.

    Raises:
        BadCall: a value is not allowed.
    """

    enabled: bool = True
    retention: Retention | None = None
