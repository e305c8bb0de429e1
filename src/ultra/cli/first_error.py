"""The errors of a service as commands tell them: one, without the groups that nurseries put around it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["raising_first"]


async def raising_first(work: Callable[[], Awaitable[object]]) -> None:
    """Await ``work()``; of a group of errors, raise the first alone. Cancellation passes through."""
    failure: list[Exception] = []
    try:
        await work()
    except* Exception as group:  # noqa: BLE001 - raised below, without the group around it
        failure.append(_innermost(group))
    if failure:
        raise failure[0]


def _innermost(error: Exception) -> Exception:
    """Return the first error in a group of groups."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
