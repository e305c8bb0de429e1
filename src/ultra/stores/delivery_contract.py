"""Notices of the ends of runs, which a journal keeps until they are delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DELIVERY_ORPHANED", "Delivery", "DeliveryJournal"]

DELIVERY_ORPHANED = 3600.0
"""Seconds after which a notice is dropped whose run is not in the journal."""


class Delivery(Struct, frozen=True, kw_only=True):
    """A notice that is to be delivered once its run has ended.

    Attributes:
        id: its name, by which a receiver knows it again.
        run_id: the run.
        url: to where.
        attempts: how often it was tried, without success.
    """

    id: str
    run_id: str
    url: str
    attempts: int = 0


@runtime_checkable
class DeliveryJournal(Protocol):
    """A journal that keeps such notices beside its runs; all methods raise `JournalUnavailable`."""

    async def add_delivery(self, delivery: Delivery) -> None:
        """Keep a notice; its run may be accepted after it. One whose run is not there is dropped some day."""
        ...

    async def take_deliveries(self, limit: int, hold: float) -> Sequence[Delivery]:
        """Return notices whose run has ended and that are due, and let none take them for `hold` seconds."""
        ...

    async def settle_delivery(self, delivery_id: str, again_in: float | None = None) -> None:
        """Drop a notice, or note that it failed, and is due again in so many seconds."""
        ...
