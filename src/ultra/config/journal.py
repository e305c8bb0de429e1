"""Where submitted runs are kept, the section `[journal]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.checks import check_seconds
from ultra.stores.journal_contract import Retention
from ultra.stores.journal_opening import Synchronous, check_journal, open_journal
from ultra.stores.opening import without_password

if TYPE_CHECKING:
    from ultra.stores.journal_contract import RunJournal

__all__ = ["JournalConfig"]


class JournalConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The journal of submitted runs.

    Attributes:
        store: ``sqlite:///path``, ``redis://host``, or ``memory``; None: there is no journal, and no run can
            be submitted, but `ultra serve` then keeps runs in memory for a day. ``off``: there is none
            there, either.
        retention: how long ended runs are kept, in seconds and in bytes.
        lease: seconds after which a run whose process has died is taken up by another one. A process renews
            its leases three times in that time: one that stands still for longer loses its runs.
        synchronous: ``full``: a power cut loses nothing, and each group of events costs a write to the disk.

    Raises:
        BadCall: a value is not allowed.
    """

    store: str | None = None
    retention: Retention | None = None
    synchronous: Synchronous = "normal"
    lease: float = 10.0

    def __post_init__(self) -> None:
        check_seconds("lease", self.lease, positive=True)
        if not (self.store is None or self.is_off):
            check_journal(self.store, self.synchronous)

    def __repr__(self) -> str:
        return f"JournalConfig(store={self._shown!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: a URL may hold a password."""
        return [("store", self._shown)]

    @property
    def _shown(self) -> str | None:
        return None if self.store is None else without_password(self.store)

    @property
    def is_off(self) -> bool:
        """Whether no runs are to be kept."""
        return self.store == "off"

    def open(self) -> RunJournal | None:
        """Return the journal; None: there is none. Raises what `open_journal` does."""
        if self.store is None or self.is_off:
            return None
        return open_journal(
            self.store, retention=self.retention, synchronous=self.synchronous, lease=self.lease
        )
