"""Keeping the connections of a store, whatever store it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra._support.log import get_logger
from ultra.stores.contracts import KeepsConnections

if TYPE_CHECKING:
    from ultra.stores.contracts import TaskStatus

__all__ = ["keep_connected"]

log = get_logger("ultra.stores")


async def keep_connected(store: object, task_status: TaskStatus | None = None) -> None:
    """Keep the connections of `store` open until cancelled; return at once if it keeps none.

    It raises nothing: a store whose task fails connects for each use, and no run is to fail for that.
    """
    if not isinstance(store, KeepsConnections):
        if task_status is not None:
            task_status.started()
        return
    try:
        await store.keep_connected(task_status=task_status)
    except Exception:
        log.exception("connections not kept", store=type(store).__name__)
