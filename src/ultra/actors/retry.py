"""When a failed call is tried again, and how long to wait before: tenacity with trio's sleep.

This is the only retry loop in the stack. Waits are drawn from 0 to a limit that doubles with each
attempt ("full jitter", Marc Brooker, AWS Architecture Blog, 2015), so that clients which failed
together do not come back together; what a server asks for by Retry-After is waited in full.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import tenacity
import trio
from msgspec import Struct

from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["RetryPolicy", "retrying"]


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """At most ``1 + max_retries`` attempts; all times are seconds.

    The wait after the n-th attempt lies between 0 and `initial` * 2 ** (n - 1), never above `maximum`. A
    Retry-After of up to `retry_after_cap` is waited in full; a longer one fails the request at once.
    """

    max_retries: int = 3
    initial: float = 0.5
    maximum: float = 8.0
    retry_after_cap: float = 60.0

    def __post_init__(self) -> None:
        if type(self.max_retries) is not int or self.max_retries < 0:
            raise BadCall(f"max_retries is {self.max_retries!r}; it must be a whole number, 0 or more")
        for name in ("initial", "maximum", "retry_after_cap"):
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 <= value < inf):
                raise BadCall(f"{name} is {value!r}; it must be a number of seconds, 0 or more")

    def wait(self, attempt: int, error: ModelError, random: Random) -> float:
        """Seconds between the attempt with this number (from 1), which failed by `error`, and the next."""
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0, min(self.maximum, self.initial * 2 ** min(attempt - 1, 60)))


def retrying(
    policy: RetryPolicy,
    random: Random,
    deadline: Callable[[], float],
    before_sleep: Callable[[int, ModelError, float], None],
) -> tenacity.AsyncRetrying:
    """Tenacity's loop for one request: call it with an async function that raises `ModelError`.

    It gives up, with the last error, when that is permanent, when the attempts are used up, when the
    server wants more patience than the policy has, and when the wait would end after `deadline()`
    (a `trio.current_time`). `before_sleep` is told attempt, error and wait before each wait.
    """
    waits: dict[int, float] = {}

    def wait(state: tenacity.RetryCallState) -> float:
        # Tenacity asks for the wait before it asks whether to stop; both must see the same number.
        return waits.setdefault(
            state.attempt_number, policy.wait(state.attempt_number, _error(state), random)
        )

    def stop(state: tenacity.RetryCallState) -> bool:
        error, pause = _error(state), wait(state)
        too_patient = error.retry_after is not None and error.retry_after > policy.retry_after_cap
        too_late = trio.current_time() + pause >= deadline()
        return state.attempt_number > policy.max_retries or too_patient or too_late

    def tell(state: tenacity.RetryCallState) -> None:
        before_sleep(state.attempt_number, _error(state), wait(state))

    return tenacity.AsyncRetrying(
        sleep=trio.sleep,
        stop=stop,
        wait=wait,
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, ModelError) and error.retryable),
        before_sleep=tell,
        reraise=True,
    )


def _error(state: tenacity.RetryCallState) -> ModelError:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, ModelError):
        raise TypeError(f"a retried call raised {error!r}; it must raise ModelError")
    return error
