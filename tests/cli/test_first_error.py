"""Of the errors of several tasks, a command tells the first."""

from __future__ import annotations

import pytest
import trio

from ultra.cli.first_error import raising_first


async def test_the_first_error_in_groups_of_groups_is_raised_alone() -> None:
    async def fail() -> None:
        async with trio.open_nursery() as outer, trio.open_nursery() as inner:
            outer.start_soon(trio.sleep_forever)
            inner.start_soon(trio.sleep_forever)
            raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason") as caught:
        await raising_first(fail)
    assert caught.value.__context__ is None


async def test_cancellation_passes_through() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await raising_first(trio.sleep_forever)
    assert scope.cancelled_caught


async def test_work_that_fails_in_no_way_ends() -> None:
    await raising_first(trio.lowlevel.checkpoint)
