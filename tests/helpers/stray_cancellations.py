"""A cancellation that is raised again where its scope is over, by code that has kept it."""

from __future__ import annotations

from typing import NoReturn

import trio

__all__ = ["raise_stray_cancellation"]


async def raise_stray_cancellation() -> NoReturn:
    """Raise the `trio.Cancelled` of a scope that has ended."""
    old: trio.Cancelled | None = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            old = error
            raise
    assert old is not None
    raise old
