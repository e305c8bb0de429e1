"""Retries of a failed call, by tenacity: which errors are retried, how often, and after which waits.

This is the only retry loop of Ultra. A wait is drawn between 0 and a limit that doubles with each attempt
("full jitter", Marc Brooker, AWS Architecture Blog, 2015), so that clients that failed at the same time do
not try again at the same time. A server's Retry-After is waited in full.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import trio
from msgspec import Struct

from ultra._support.checks import check_count, check_seconds
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from random import Random

    from tenacity import RetryCallState

__all__ = ["RetriedCall", "RetryPolicy", "load_tenacity", "with_retries"]

T_co = TypeVar("T_co", covariant=True)


def load_tenacity() -> None:
    """Import what decides on retries, when a model is registered.

    Not with this module: it takes a tenth of the time in which Ultra is imported. Not at the first failure,
    either: that may be that no file can be opened.
    """
    import tenacity  # noqa: F401, PLC0415 - as above


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
        check_count("max_retries", self.max_retries, least=0)
        for name in ("initial", "maximum", "retry_after_cap"):
            check_seconds(name, getattr(self, name))

    def wait(self, attempt: int, error: ModelError, random: Random) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 1), which failed with `error`."""
        if error.retry_after is not None:
            return error.retry_after
        return random.uniform(0, min(self.maximum, self.initial * 2 ** min(attempt - 1, 60)))


class RetriedCall(Protocol[T_co]):
    """What is called again while it fails."""

    @property
    def deadline(self) -> float:
        """When the last wait has to be over (`trio.current_time`); asked after each failure."""
        ...

    def attempt(self) -> Awaitable[T_co]:
        """Make one call."""
        ...

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        """Take note that this attempt (from 1) has failed, and that the next follows in `wait` seconds."""

    def sleep(self, seconds: float) -> Awaitable[None]:
        """Wait so long before the next attempt."""
        ...


async def with_retries(call: RetriedCall[T_co], policy: RetryPolicy, random: Random) -> T_co:
    """Make attempts until one succeeds or `policy` ends the retries, and return its result.

    Raises the last `ModelError` when that is not retryable, when the attempts are used up, when a
    Retry-After is longer than the policy allows, and when the wait would end after the call's deadline. Other
    exceptions of the call pass through, and so does cancellation. `random` draws the waits.
    """
    retries: _Retries | None = None
    while True:
        try:
            return await call.attempt()
        except ModelError as error:
            retries = retries or _Retries(call, policy, random)
            wait = retries.wait_after(error)
        await call.sleep(wait)


class _Retries:
    """What tenacity decides after each failed attempt of one call."""

    def __init__(self, call: RetriedCall[object], policy: RetryPolicy, random: Random) -> None:
        from tenacity import RetryCallState, Retrying  # noqa: PLC0415 - see `load_tenacity`

        def retry(state: RetryCallState) -> bool:
            return _error(state).retryable

        def wait(state: RetryCallState) -> float:
            return policy.wait(state.attempt_number, _error(state), random)

        def stop(state: RetryCallState) -> bool:
            error = _error(state)
            too_long = error.retry_after is not None and error.retry_after > policy.retry_after_cap
            too_late = trio.current_time() + state.upcoming_sleep >= call.deadline
            return state.attempt_number > policy.max_retries or too_long or too_late

        def tell(state: RetryCallState) -> None:
            call.retrying(state.attempt_number, _error(state), state.upcoming_sleep)

        def give_up(state: RetryCallState) -> NoReturn:
            raise _error(state)  # not by `reraise`, whose frames would hold the error that they raise

        self._retrying = Retrying(
            stop=stop, wait=wait, retry=retry, before_sleep=tell, retry_error_callback=give_up
        )
        self._retrying.begin()
        self._state = RetryCallState(self._retrying, fn=None, args=(), kwargs={})

    def wait_after(self, error: ModelError) -> float:
        """Return the seconds to wait before the next attempt; raise `error` where there is none."""
        self._state.set_exception((type(error), error, error.__traceback__))
        del error  # raised from here, its traceback would refer to it
        try:
            self._retrying.iter(self._state)
            self._state.prepare_for_next_attempt()
        finally:
            # These objects refer to each other, and to an error whose traceback refers to them. To collect
            # such a cycle would take more time than all the rest.
            self._retrying.iter_state.reset()
            self._state.outcome = None
        return self._state.upcoming_sleep


def _error(state: RetryCallState) -> ModelError:
    """Return the error of the latest attempt."""
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, ModelError):
        raise TypeError(f"a retried call raised {error!r}; it must raise ModelError")
    return error
