"""Waiting on trio for the futures of libraries with threads of their own."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import trio
from outcome import Value, capture
from trio.lowlevel import (
    Abort,
    checkpoint_if_cancelled,
    current_task,
    current_trio_token,
    enable_ki_protection,
    reschedule,
    wait_task_rescheduled,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from outcome import Outcome

__all__ = ["call_when_done", "result_of"]

T = TypeVar("T")


def call_when_done(future: Future[T], function: Callable[[Outcome[T]], object]) -> None:
    """Have ``function(outcome)`` called in this trio run when the future is done; it must not raise.

    Where the run has ended by then, nobody is called.
    """
    token = current_trio_token()

    def done(future: Future[T]) -> None:  # in whichever thread the library has
        outcome = capture(future.result)
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(function, outcome)

    future.add_done_callback(done)


# Protected: after a KeyboardInterrupt before the wait, the task would be woken while it does something else.
@enable_ki_protection
async def result_of(future: Future[T]) -> T:
    """Wait for a future that another thread completes; return its result, or raise its error.

    Always a checkpoint. Cancelled, this waits no longer; the future, and the work behind it, go on.
    """
    await checkpoint_if_cancelled()
    task = current_task()
    waits = True

    def go_on(outcome: Outcome[T]) -> None:
        if waits:
            reschedule(task, Value(outcome))

    def abort(_: object) -> Abort:
        nonlocal waits
        waits = False
        return Abort.SUCCEEDED

    call_when_done(future, go_on)
    outcome: Outcome[T] = await wait_task_rescheduled(abort)
    return outcome.unwrap()
