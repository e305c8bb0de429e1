"""A circuit breaker: after repeated failures it rejects calls for a while, then tries one.

After Michael Nygard, "Release It!" (2007). A closed circuit lets calls through. An open one rejects them.
A half-open one lets a single call through, the probe, whose outcome closes or opens it. The state changes
only when a call begins or ends, so the breaker needs no task and no timer.
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
    from collections.abc import Callable
    from types import TracebackType

    from ultra.errors import ErrorKind

__all__ = [
    "BreakerPolicy",
    "BreakerState",
    "BreakerStatistics",
    "CallGuard",
    "CircuitBreaker",
    "counts_as_failure",
]

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]

_log = get_logger("ultra.model")

# Faults of the provider. The other kinds are faults of the caller (its key, account, request, prompt or
# rate of calls). They do not predict how the next call will end, and an open circuit would hide them. For
# a rate limit, the limiter pauses.
_COUNTED: Final[frozenset[ErrorKind]] = frozenset(
    {"overloaded", "server", "timeout", "connection", "protocol"}
)

_SLICES: Final = 10
"""How many parts a window is counted in; a part leaves the window as a whole."""


def counts_as_failure(error: BaseException) -> bool:
    """Return whether `error` is a failure of the model, rather than a mistake of the caller.

    Of `ModelError`, the kinds overloaded, server, timeout, connection and protocol count. Ultra's other
    errors do not count, and neither does cancellation. Any other exception of a client counts.
    """
    if isinstance(error, ModelError):
        return error.kind in _COUNTED and not isinstance(error, CircuitOpen)
    return isinstance(error, Exception) and not isinstance(error, UltraError)


class BreakerPolicy(Struct, frozen=True, kw_only=True):
    """When a circuit opens, and for how long.

    It opens after `consecutive_failures`, or when at least `minimum_calls` were made in the last `window`
    seconds and a share of `failure_rate` (0..1) of them failed; None switches either rule off. It stays
    open for `cooldown` seconds, and twice as long after each failed probe, up to `max_cooldown` seconds::

        BreakerPolicy(consecutive_failures=3, cooldown=60.0)

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
    """The state of a breaker at one moment.

    `calls` and `failures` count what the window holds. `opened` counts how often the circuit has opened,
    `rejected` the calls that it has rejected. `open_for`: seconds until a probe is let through.
    """

    state: BreakerState
    consecutive_failures: int
    failures: int
    calls: int
    opened: int
    rejected: int
    open_for: float


class _Window:
    """The outcomes of the last `length` seconds, counted in memory of a fixed size."""

    def __init__(self, length: float) -> None:
        self._slice_length = length / _SLICES
        # [number of the slice, calls, failures], oldest first. One more than `_SLICES`, since the window may
        # begin in the middle of a slice. The maximum length bounds it even if `count` is never called.
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
        """Return the number of calls, and of those that failed."""
        oldest = now // self._slice_length - _SLICES
        while self._slices and self._slices[0][0] <= oldest:
            self._slices.popleft()
        return sum(int(part[1]) for part in self._slices), sum(int(part[2]) for part in self._slices)

    def clear(self) -> None:
        self._slices.clear()
        self._newest = [-math.inf, 0, 0]


class CallGuard:
    """The block of one call. A class, since it takes less time than a generator, in every call."""

    __slots__ = ("_breaker", "_epoch")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    def __enter__(self) -> None:
        self._epoch = self._breaker._begin()  # noqa: SLF001 - a guard is a part of its breaker

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._breaker._end(self._epoch, error)  # noqa: SLF001 - as above

    def failed(self, error: BaseException) -> None:
        """Report how the call ended, before the block is left; what leaves it then must be no failure."""
        self._breaker._end(self._epoch, error)  # noqa: SLF001 - as above


class CircuitBreaker:
    """The circuit breaker of one model. For use within one trio run at a time.

    ::

        with breaker.guard():  # raises CircuitOpen if the circuit is open
            completion = await client.generate(prompt)
    """

    def __init__(self, model_name: str, policy: BreakerPolicy | None = None) -> None:
        self._model_name = model_name
        self._policy = policy if policy is not None else BreakerPolicy()
        self._now = ContinuousClock()
        self.on_change: Callable[[float | None], None] | None = None
        """Called when the circuit opens here, with the seconds for which, and when it closes, with None."""
        self._window = _Window(self._policy.window)
        self._consecutive = self._opened = self._rejected = 0
        self._cooldown = self._policy.cooldown
        self._probe_at = -math.inf  # when an open circuit lets a probe through
        self._closed = True
        self._probing = False
        # An outcome counts only in the state in which its call began: the outcome of a call that was sent
        # before the circuit opened is out of date.
        self._epoch = 0

    @property
    def state(self) -> BreakerState:
        """``closed``, ``open``, or ``half_open`` while the probe is under way or the next call is one."""
        if self._closed:
            return "closed"
        return "half_open" if self._probing or self._now() >= self._probe_at else "open"

    def check(self) -> None:
        """Raise `CircuitOpen` if a call would be rejected now.

        This starts no probe and counts no rejection, so that a call can fail before it waits for a permit.
        """
        if not self._closed and (self._probing or self._now() < self._probe_at):
            raise self._refusal()

    def guard(self) -> CallGuard:
        """Return a context manager for one call, which reports how the call ended.

        An exception for which `counts_as_failure` is true is a failure, a normal end is a success. Any
        other exception is neither, cancellation included; if the call was the probe, the next call is it.

        Raises:
            CircuitOpen: when the block is entered, if the circuit is open or another call is the probe.
        """
        return CallGuard(self)

    def _begin(self) -> int:
        """Let a call through, and return the epoch that its outcome counts for; raise `CircuitOpen`."""
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
        elif error is None or counts_as_failure(error):
            self._report(epoch, failed=error is not None)
        elif epoch == self._epoch:
            self._probing = False

    def opened_elsewhere(self, seconds: float) -> None:
        """Open the circuit, since another process has found that the model fails.

        Where the probe of this process is under way, that decides.
        """
        if self._probing:
            return
        self._cooldown = min(max(self._cooldown, seconds), self._policy.max_cooldown)
        until = self._now() + seconds
        if self._closed:
            self._to_open(until)
        self._probe_at = max(self._probe_at, until)

    def closed_elsewhere(self) -> None:
        """Close the circuit, since another process has found that the model answers."""
        if not self._closed:
            self._to_closed()

    def reset(self) -> None:
        """Close the circuit and clear all failures, as after a repair by hand."""
        self._close()

    def forked(self) -> None:
        """Let the next call be the probe, if one is under way: that is the parent's."""
        self._probing = False

    def statistics(self) -> BreakerStatistics:
        """Return the state at this moment; raise `RuntimeError` outside of trio."""
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
        self._to_open(self._now() + self._cooldown)
        if self.on_change is not None:
            self.on_change(self._cooldown)

    def _to_open(self, until: float) -> None:
        self._closed = self._probing = False
        self._epoch += 1
        self._opened += 1
        self._probe_at = until
        _log.warning(
            "circuit opened",
            model=self._model_name,
            consecutive_failures=self._consecutive,
            cooldown=self._cooldown,
        )

    def _close(self) -> None:
        was_open = not self._closed
        self._to_closed()
        if was_open and self.on_change is not None:
            self.on_change(None)

    def _to_closed(self) -> None:
        if not self._closed:
            _log.info("circuit closed", model=self._model_name)
        self._closed, self._probing = True, False
        self._epoch += 1
        self._consecutive = 0
        self._cooldown = self._policy.cooldown
        self._window.clear()

    def _refusal(self) -> CircuitOpen:
        return CircuitOpen(self._model_name, None if self._probing else self._probe_at - self._now())
