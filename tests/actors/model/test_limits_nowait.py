"""Calls that do not have to wait for their turn."""

from __future__ import annotations

import pytest
import trio

from ultra.actors.model.limits import Limiter, Limits
from ultra.errors import BadCall


async def test_a_call_that_need_not_wait_is_let_through_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limiter = Limiter("m", Limits(concurrency=1, tokens_per_minute=100))
    assert limiter.counts_tokens
    with limiter.acquire_nowait(60), pytest.raises(trio.WouldBlock):
        limiter.acquire_nowait(1)
    with pytest.raises(trio.WouldBlock):
        limiter.acquire_nowait(60)
    assert limiter.statistics().admitted == 1
    await trio.sleep(60)
    with limiter.acquire_nowait(60):
        assert limiter.statistics().in_flight == 1
    with pytest.raises(BadCall, match="tokens"):
        limiter.acquire_nowait(-1)


async def test_nobody_overtakes_those_who_wait(autojump_clock: trio.testing.MockClock) -> None:
    limiter = Limiter("m", Limits(tokens_per_minute=100))
    limiter.acquire_nowait(90).release()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(limiter.acquire, 50)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            limiter.acquire_nowait(1)
