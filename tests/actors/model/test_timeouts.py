"""How long one attempt may take."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from ultra._support.reminders import Reminders, RunningReminders
from ultra.actors.model.timeouts import AttemptTimer, Timeouts


@given(st.floats(1, 100), st.floats(1, 100), st.floats(1, 100), st.lists(st.floats(0.5, 10), max_size=30))
def test_a_stream_may_be_silent_for_idle_and_never_exceeds_the_attempt(
    attempt: float, first_token: float, idle: float, gaps: list[float]
) -> None:
    timeouts = Timeouts(attempt=attempt, first_token=first_token, idle=idle)

    async def go() -> None:
        began = trio.current_time()
        async with RunningReminders() as reminders:
            timer = AttemptTimer(timeouts, reminders, streams=True)
            expected = min(attempt, first_token)
            with trio.CancelScope() as scope, timer.bounding(scope):
                for gap in gaps:
                    assert timer.deadline - began == pytest.approx(expected)
                    await trio.sleep(gap)
                    timer.heard()
                    expected = min(trio.current_time() - began + idle, attempt)
                await trio.sleep_forever()
            assert scope.cancelled_caught
            assert trio.current_time() - began == pytest.approx(expected)
            assert trio.current_time() - began <= attempt + 1e-6

    trio.run(go, clock=MockClock(autojump_threshold=0))


async def test_a_timer_that_bounds_nothing_any_more_cancels_nothing(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with RunningReminders() as reminders:
        timer = AttemptTimer(Timeouts(attempt=10), reminders, streams=False)
        with trio.CancelScope() as scope:
            with timer.bounding(scope):
                await trio.sleep(5)
            await trio.sleep(10)
        assert not scope.cancel_called


async def test_text_that_comes_after_the_attempt_sets_no_reminder(autojump_clock: MockClock) -> None:
    del autojump_clock
    async with RunningReminders() as reminders:
        timer = AttemptTimer(Timeouts(attempt=100, first_token=60, idle=1), reminders, streams=True)
        with trio.CancelScope() as scope, timer.bounding(scope):
            await trio.sleep(1)
        kept = len(reminders)
        timer.heard()
        assert len(reminders) == kept
        assert not scope.cancel_called


async def test_the_error_names_what_was_waited_for() -> None:
    timer = AttemptTimer(Timeouts(attempt=100, first_token=60, idle=30), Reminders(), streams=True)
    assert "the first piece of the answer did not come within 60 s" in str(timer.error())
    timer.heard()
    assert "the next piece of the answer did not come within 30 s" in str(timer.error())
    whole = AttemptTimer(Timeouts(attempt=100), Reminders(), streams=False)
    assert "the whole answer did not come within 100 s" in str(whole.error())
    assert (whole.error().kind, whole.error().retryable) == ("timeout", True)


@pytest.mark.parametrize("order", [(10.0, 60.0), (10.0, 10.0)])
async def test_the_whole_attempt_comes_before_its_parts(order: tuple[float, float]) -> None:
    timer = AttemptTimer(Timeouts(attempt=order[0], first_token=order[1]), Reminders(), streams=True)
    assert "the whole answer" in str(timer.error())
