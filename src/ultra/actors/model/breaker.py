"""A circuit breaker: a model that keeps failing is left alone for a while, then tried with one call.

The pattern is Michael Nygard's ("Release It!", 2007): closed lets calls through, open rejects them,
half-open lets one probe through and goes by its outcome. Every change of state happens when a call
asks or reports, so the breaker needs no task and no timer.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from msgspec import Struct

from ultra._support.checks import check_count, check_number, check_seconds
from ultra._support.clock import ContinuousClock
from ultra._support.log import get_logger
from ultra.errors import CircuitOpen, ModelError, UltraError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from ultra.errors import ErrorKind

__all__ = ["BreakerPolicy", "BreakerState", "BreakerStatistics", "CircuitBreaker", "speaks_against_the_model"]

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]

_log = get_logger("ultra.model")

# What says that the provider is not well. The other kinds are the caller's: its key, its account, its
# request, its prompt, its pace. They say nothing about the next call's chances, and an open circuit
# would hide them from everyone else. A rate limit has its remedy in the limiter's pause.
_COUNTED: Final[frozenset[ErrorKind]] = frozenset(
    {"overloaded", "server", "timeout", "connection", "protocol"}
)

# A window is counted in so many parts, which leave it one by one.
_SLICES: Final = 10


def speaks_against_the_model(error: BaseException) -> bool:
    """Whether `error` counts as a failure of the model, rather than a mistake of the caller.

    Of `ModelError`, the kinds overloaded, server, timeout, connection and protocol count. Ultra's own
    complaints about a call do not, nor does a deadline that the caller set, nor cancellation, nor that
    nobody waits any more. Any other exception of a client counts.
    """
    if isinstance(error, ModelError):
        return error.kind in _COUNTED and not isinstance(error, CircuitOpen)
    return isinstance(error, Exception) and not isinstance(error, UltraError)


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a circuit opens and for how long.

    It opens after `consecutive_failures`, or when of at least `minimum_calls` in the last `window`
    seconds a share of `failure_rate` (0 to 1) failed; None switches either off. It stays open for
    `cooldown` seconds, twice as long after each failed probe, but never longer than `max_cooldown`.

    Raises:
        BadCall: a number is out of its range.
    """

    consecutive_failures: int | None = 5
    failure_rate: float | None = 0.5
    minimum_calls: int = 20
    window: float = 60.0
    cooldown: float = 30.0
    max_cooldown: float = 300.0

    def __post_init__(self) -> None:
        check_count("consecutive_failures", self.consecutive_failures, optional=True)
        check_count("minimum_calls", self.minimum_calls)
        check_number("failure_rate", self.failure_rate, positive=True, most=1, optional=True)
        check_seconds("window", self.window, positive=True)
        check_seconds("cooldown", self.cooldown, positive=True)
        check_number("max_cooldown", self.max_cooldown, least=self.cooldown, unit="seconds")


class BreakerStatistics(Struct, frozen=True, kw_only=True):
    """A breaker's state.

    `failures` of `calls` is what the window holds. `opened` counts how often the circuit opened and
    `rejected` the calls that it turned away. `open_for`: seconds until a probe is let through.
    """

    state: BreakerState
    consecutive_failures: int
    failures: int
    calls: int
    opened: int
    rejected: int
    open_for: float


class _Window:
    """Counts outcomes of the last `length` seconds, in memory that does not grow with them."""

    def __init__(self, length: float) -> None:
        self._slice_length = length / _SLICES
        # [number of the slice, calls, failures], oldest first; one more than the window has, at a moment
        # when it begins in the middle of a slice. Nothing else may ever take them out: nobody has to count.
        self._slices: deque[list[float]] = deque(maxlen=_SLICES + 1)
        self._newest: list[float] = [-math.inf, 0, 0]

    def add(self, now: float, *, failed: bool) -> None:
        number, newest = now // self._slice_length, self._newest
        if newest[0] != number:
            newest = self._newest = [number, 0, 0]
            self._slices.append(newest)
        newest[1] += 1
        newest[2] += failed

    def count(self, now: float) -> tuple[int, int]:
        """Calls and failures."""
        oldest = now // self._slice_length - _SLICES
        while self._slices and self._slices[0][0] <= oldest:
            self._slices.popleft()
        return sum(int(part[1]) for part in self._slices), sum(int(part[2]) for part in self._slices)

    def clear(self) -> None:
        self._slices.clear()
        self._newest = [-math.inf, 0, 0]


class _Guard:
    """The block of one call. A class, since every call pays for what a generator would cost more."""

    __slots__ = ("_breaker", "_epoch")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def __enter__(self) -> None:
        self._epoch = self._breaker._begin()  # noqa: SLF001 - a guard is a part of its breaker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker._end(self._epoch, error)  # noqa: SLF001 - as above


class CircuitBreaker:
    """The circuit breaker of one model. For use within one trio run at a time."""

    def __init__(self, model_name: str, policy: BreakerPolicy | None = None) -> None:
        self._model_name = model_name
        self._policy = policy if policy is not None else BreakerPolicy()
        self._now = ContinuousClock()
        self._window = _Window(self._policy.window)
        self._consecutive = self._opened = self._rejected = 0
        self._cooldown = self._policy.cooldown
        self._probe_at = -math.inf  # when the open circuit lets its probe through
        self._closed = True
        self._probing = False
        # Outcomes count only for the state in which their call began: a call that was sent before the
        # circuit opened says nothing about how the model is when it ends.
        self._epoch = 0

    @property
    def state(self) -> BreakerState:
        """``closed``, ``open``, or ``half_open`` where the next call, or one under way, is the probe."""
        if self._closed:
            return "closed"
        return "half_open" if self._probing or self._now() >= self._probe_at else "open"

    def check(self) -> None:
        """Raise `CircuitOpen` if a call would be turned away now; takes no probe and counts no rejection.

        Lets a call fail before it waits for its turn, rather than after.
        """
        if not self._closed and (self._probing or self._now() < self._probe_at):
            raise self._refusal()

    def guard(self) -> AbstractContextManager[None]:
        """Make one call inside the block, whose end reports how the call went.

        An exception that speaks against the model is a failure, a normal end is a success. Anything
        else, cancellation included, is neither; where the call was the probe, the next one is.

        Raises:
            CircuitOpen: before the block, if the circuit is open or another call is the probe.
        """
        return _Guard(self)

    def _begin(self) -> int:
        """Let a call through, or refuse it; returns the epoch that its outcome counts for."""
        if not self._closed:
            try:
                self.check()
            except CircuitOpen:
                self._rejected += 1
                raise
            self._probing = True
        return self._epoch

    def _end(self, epoch: int, error: BaseException | None) -> None:
        if error is None and self._closed and epoch == self._epoch:  # nearly every call
            self._window.add(self._now(), failed=False)
            self._consecutive = 0
        elif error is None or speaks_against_the_model(error):
            self._report(epoch, failed=error is not None)
        elif epoch == self._epoch:
            self._probing = False

    def reset(self) -> None:
        """Close the circuit and forget all failures, as after a deliberate repair."""
        self._close()

    def statistics(self) -> BreakerStatistics:
        """What the breaker holds now. Raises `RuntimeError` outside of trio."""
        now = self._now()
        calls, failures = self._window.count(now)
        return BreakerStatistics(
            state=self.state,
            consecutive_failures=self._consecutive,
            failures=failures,
            calls=calls,
            opened=self._opened,
            rejected=self._rejected,
            open_for=0.0 if self._closed else max(0.0, self._probe_at - now),
        )

    def _report(self, epoch: int, *, failed: bool) -> None:
        if epoch != self._epoch:
            return
        if self._probing:
            self._probed(failed=failed)
            return
        now = self._now()
        self._window.add(now, failed=failed)
        self._consecutive = self._consecutive + 1 if failed else 0
        if failed and self._has_failed_enough(now):
            self._open()

    def _probed(self, *, failed: bool) -> None:
        if failed:
            self._cooldown = min(2 * self._cooldown, self._policy.max_cooldown)
            self._open()
        else:
            self._close()

    def _has_failed_enough(self, now: float) -> bool:
        policy = self._policy
        if policy.consecutive_failures is not None and self._consecutive >= policy.consecutive_failures:
            return True
        calls, failures = self._window.count(now)
        return (
            policy.failure_rate is not None
            and calls >= policy.minimum_calls
            and failures >= policy.failure_rate * calls
        )

    def _open(self) -> None:
        self._closed = self._probing = False
        self._epoch += 1
        self._opened += 1
        self._probe_at = self._now() + self._cooldown
        _log.warning(
            "circuit opened",
            model=self._model_name,
            consecutive_failures=self._consecutive,
            cooldown=self._cooldown,
        )

    def _close(self) -> None:
        if not self._closed:
            _log.info("circuit closed", model=self._model_name)
        self._closed, self._probing = True, False
        self._epoch += 1
        self._consecutive = 0
        self._cooldown = self._policy.cooldown
        self._window.clear()

    def _refusal(self) -> CircuitOpen:
        return CircuitOpen(self._model_name, None if self._probing else self._probe_at - self._now())
