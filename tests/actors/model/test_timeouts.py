"""How long one attempt may take."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ultra.actors.model.timeouts import AttemptTimer, Timeouts


class Clock(trio.abc.Clock):
    """Stands still until it is told the time."""

    def __init__(self) -> None:
        self.now = 0.0

    def start_clock(self) -> None:
        """Nothing to start."""

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0


@given(st.floats(0.1, 100), st.floats(0.1, 100), st.floats(0.1, 100), st.lists(st.floats(0, 10), max_size=30))
def test_a_stream_may_be_silent_for_idle_and_never_exceeds_the_attempt(
    attempt: float, first_token: float, idle: float, gaps: list[float]
) -> None:
    timeouts = Timeouts(attempt=attempt, first_token=first_token, idle=idle)
    clock = Clock()

    async def go() -> None:
        timer = AttemptTimer(timeouts, streams=True)
        timer.scope = trio.CancelScope(deadline=timer.deadline)
        assert timer.deadline == min(attempt, first_token)
        for gap in gaps:
            clock.now += gap
            timer.heard()
            assert timer.scope.deadline == timer.deadline == min(clock.now + idle, attempt)
        await trio.lowlevel.checkpoint()

    trio.run(go, clock=clock)


async def test_the_error_names_what_was_waited_for() -> None:
    timer = AttemptTimer(Timeouts(attempt=100, first_token=60, idle=30), streams=True)
    assert "the first piece of the answer did not come within 60 s" in str(timer.error())
    timer.heard()
    assert "the next piece of the answer did not come within 30 s" in str(timer.error())
    whole = AttemptTimer(Timeouts(attempt=100), streams=False)
    assert "the whole answer did not come within 100 s" in str(whole.error())
    assert (whole.error().kind, whole.error().retryable) == ("timeout", True)


@pytest.mark.parametrize("order", [(10.0, 60.0), (10.0, 10.0)])
async def test_the_whole_attempt_comes_before_its_parts(order: tuple[float, float]) -> None:
    timer = AttemptTimer(Timeouts(attempt=order[0], first_token=order[1]), streams=True)
    assert "the whole answer" in str(timer.error())
