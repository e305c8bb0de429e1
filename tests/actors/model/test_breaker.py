from __future__ import annotations

import math
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, get_args

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra.actors.model.breaker import BreakerPolicy, CircuitBreaker
from ultra.errors import BadCall, CircuitOpen, DeadlineExceeded, ErrorKind, ModelError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

BY_COUNT = BreakerPolicy(consecutive_failures=3, failure_rate=None, cooldown=10, max_cooldown=35)
BY_RATE = BreakerPolicy(consecutive_failures=None, failure_rate=0.5, minimum_calls=4, window=60, cooldown=10)


def failure(kind: ErrorKind = "server") -> ModelError:
    return ModelError("no", kind=kind)


def call(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    """One call through the breaker that ends with `error`, or well."""
    with pytest.raises(type(error)) if error is not None else nullcontext(), breaker.guard():
        if error is not None:
            raise error


def state(breaker: CircuitBreaker) -> str:
    return breaker.state


def open_circuit(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        call(breaker, failure())
    assert state(breaker) == "open"


# --- opening -----------------------------------------------------------------------------------


async def test_consecutive_failures_open_the_circuit(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("llama", BY_COUNT)
    for _ in range(2):
        call(breaker, failure())
    assert state(breaker) == "closed"
    call(breaker, failure())
    assert state(breaker) == "open"
    await trio.sleep(4)
    with pytest.raises(CircuitOpen, match=r"'llama' is open for another 6\.0 s") as caught:
        call(breaker)
    assert caught.value.retry_after == pytest.approx(6)
    assert not caught.value.retryable


async def test_a_success_in_between_starts_the_count_again() -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for error in [failure(), failure(), None, failure(), failure()]:
        call(breaker, error)
    assert state(breaker) == "closed"


async def test_a_share_of_failures_opens_the_circuit_once_there_are_enough_calls() -> None:
    breaker = CircuitBreaker("m", BY_RATE)
    for error in [failure(), None, failure()]:
        call(breaker, error)
    assert state(breaker) == "closed"
    call(breaker, failure())
    assert state(breaker) == "open"


async def test_a_smaller_share_of_failures_does_not_open_it() -> None:
    breaker = CircuitBreaker("m", BY_RATE)
    for error in [None, None, failure(), None, failure()] * 20:
        call(breaker, error)
    assert state(breaker) == "closed"


async def test_failures_older_than_the_window_are_forgotten(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_RATE)
    for _ in range(3):
        call(breaker, failure())
    await trio.sleep(61)
    call(breaker, failure())
    statistics = breaker.statistics()
    assert (statistics.state, statistics.calls, statistics.failures) == ("closed", 1, 1)


async def test_the_window_takes_the_same_memory_however_many_calls_it_counts(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreaker("m", BreakerPolicy(consecutive_failures=None, failure_rate=1.0, window=60))
    for _ in range(500):
        call(breaker)
        call(breaker, failure())
        await trio.sleep(0.5)
    assert len(breaker._window._slices) <= 11
    statistics = breaker.statistics()
    assert 215 <= statistics.calls <= 242
    assert abs(statistics.calls - 2 * statistics.failures) <= 1


# --- what counts -------------------------------------------------------------------------------

THE_CALLERS: set[ErrorKind] = {"auth", "bad_request", "rate_limit", "quota", "content"}


async def test_the_window_takes_no_more_memory_the_longer_it_counts_successes(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreaker("m", BreakerPolicy(window=10))

    for _ in range(200):
        await trio.sleep(1)
        with breaker.guard():
            pass

    assert len(breaker._window._slices) == 11
    assert 9 <= breaker.statistics().calls <= 11


@pytest.mark.parametrize("kind", sorted(THE_CALLERS))
async def test_what_the_caller_can_mend_never_opens_the_circuit(kind: ErrorKind) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for _ in range(10):
        call(breaker, failure(kind))
    assert state(breaker) == "closed"


@pytest.mark.parametrize("kind", [kind for kind in get_args(ErrorKind) if kind not in THE_CALLERS])
async def test_every_other_kind_of_failure_opens_the_circuit(kind: ErrorKind) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for _ in range(3):
        call(breaker, failure(kind))
    assert state(breaker) == "open"


@pytest.mark.parametrize(
    "error",
    [UsageError("x"), BadCall("x"), CircuitOpen("m", 1.0), DeadlineExceeded("x"), KeyboardInterrupt()],
)
async def test_the_caller_s_own_mistakes_and_interrupts_do_not_count(error: BaseException) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for _ in range(10):
        call(breaker, error)
    assert state(breaker) == "closed"
    assert breaker.statistics().calls == 0


async def test_a_mistake_of_the_caller_leaves_the_count_of_failures_as_it_is() -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for error in [failure(), failure(), failure("bad_request"), failure()]:
        call(breaker, error)
    assert state(breaker) == "open"


@pytest.mark.parametrize("error", [RuntimeError("x"), OSError("x"), TimeoutError("x"), trio.TooSlowError()])
async def test_any_other_exception_of_a_client_counts(error: Exception) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for _ in range(3):
        call(breaker, error)
    assert state(breaker) == "open"


async def test_cancelled_calls_do_not_count(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    for _ in range(10):
        with trio.move_on_after(1), breaker.guard():
            await trio.sleep_forever()
    assert breaker.statistics().calls == 0


# --- half-open ---------------------------------------------------------------------------------


async def test_after_the_cooldown_one_probe_goes_through_and_its_success_closes_the_circuit(
    autojump_clock: MockClock,
) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    open_circuit(breaker)
    await trio.sleep(10)
    assert state(breaker) == "half_open"
    with breaker.guard():
        for turned_away in (breaker.check, lambda: call(breaker)):
            with pytest.raises(CircuitOpen, match="half-open") as caught:
                turned_away()
            assert caught.value.retry_after is None
    assert state(breaker) == "closed"
    statistics = breaker.statistics()
    assert (statistics.consecutive_failures, statistics.opened, statistics.rejected) == (0, 1, 1)


async def test_each_failed_probe_doubles_the_cooldown_up_to_its_maximum(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    open_circuit(breaker)
    for cooldown in [10, 20, 35, 35]:
        assert breaker.statistics().open_for == pytest.approx(cooldown)
        await trio.sleep(cooldown)
        call(breaker, failure())
    await trio.sleep(35)
    call(breaker)
    open_circuit(breaker)
    assert breaker.statistics().open_for == pytest.approx(10)


@pytest.mark.parametrize("kind", ["bad_request", "rate_limit"])
async def test_a_probe_that_says_nothing_about_the_model_is_followed_by_another(
    kind: ErrorKind, autojump_clock: MockClock
) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    open_circuit(breaker)
    await trio.sleep(10)
    call(breaker, failure(kind))
    assert state(breaker) == "half_open"
    call(breaker)
    assert state(breaker) == "closed"


async def test_a_cancelled_probe_makes_way_for_the_next(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    open_circuit(breaker)
    await trio.sleep(10)
    with trio.move_on_after(1), breaker.guard():
        await trio.sleep_forever()
    call(breaker)
    assert state(breaker) == "closed"


@pytest.mark.parametrize("error", [None, failure()])
async def test_a_call_from_before_the_circuit_opened_does_not_decide_for_the_probe(
    error: ModelError | None, autojump_clock: MockClock
) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)

    async def slow() -> None:
        with pytest.raises(ModelError) if error else trio.CancelScope(), breaker.guard():
            await trio.sleep(12)
            if error is not None:
                raise error

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow)
        await trio.sleep(1)
        open_circuit(breaker)
        await trio.sleep(10)
        with breaker.guard():  # the probe
            await trio.sleep(5)  # meanwhile the slow call ends
            assert state(breaker) == "half_open"
    assert state(breaker) == "closed"


async def test_check_neither_takes_the_probe_nor_counts(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    breaker.check()
    open_circuit(breaker)
    with pytest.raises(CircuitOpen):
        breaker.check()
    await trio.sleep(10)
    breaker.check()
    breaker.check()
    call(breaker)
    assert breaker.statistics().rejected == 0


async def test_reset_closes_the_circuit_and_disowns_a_probe_under_way(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    open_circuit(breaker)
    await trio.sleep(10)
    with pytest.raises(ModelError), breaker.guard():  # noqa: PT012 - both belong to the probe
        breaker.reset()
        raise failure()
    assert state(breaker) == "closed"
    assert breaker.statistics().consecutive_failures == 0


async def test_opening_and_closing_are_logged(autojump_clock: MockClock) -> None:
    breaker = CircuitBreaker("m", BY_COUNT)
    with structlog.testing.capture_logs() as logs:
        open_circuit(breaker)
        await trio.sleep(10)
        call(breaker)
    assert [(entry["event"], entry["log_level"], entry["model"]) for entry in logs] == [
        ("circuit opened", "warning", "m"),
        ("circuit closed", "info", "m"),
    ]


def test_a_circuit_stays_open_from_one_trio_run_to_the_next() -> None:
    breaker = CircuitBreaker("m", BY_COUNT)

    async def run(act: Callable[[], None], seconds: float) -> str:
        act()
        assert state(breaker) == "open"
        await trio.sleep(seconds)
        return state(breaker)

    assert trio.run(run, lambda: open_circuit(breaker), 4, clock=MockClock(autojump_threshold=0)) == "open"
    assert trio.run(run, lambda: None, 5.9, clock=MockClock(autojump_threshold=0)) == "open"
    assert trio.run(run, lambda: None, 0.2, clock=MockClock(autojump_threshold=0)) == "half_open"


# --- properties --------------------------------------------------------------------------------

kinds = st.sampled_from(["ok", "server", "bad_request", "cancelled"])
steps = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 9.9, 10.0, 40.0]), kinds, st.sampled_from([0.0, 0.5, 15.0])),
    max_size=40,
)


class Patients:
    """Calls that end as they are told, and a count of the probes among them."""

    def __init__(self) -> None:
        self.breaker = CircuitBreaker("m", BY_COUNT)
        self.probes = 0

    async def one(self, outcome: str, lasts: float) -> None:
        was = state(self.breaker)
        with trio.CancelScope() as scope, suppress(ModelError), self.breaker.guard():
            assert was != "open"
            self.probes += was == "half_open"
            assert self.probes <= 1
            try:
                await trio.sleep(lasts)
                await self.end(outcome, scope)
            finally:
                self.probes -= was == "half_open"

    async def end(self, outcome: str, scope: trio.CancelScope) -> None:
        if outcome == "cancelled":
            scope.cancel()
            await trio.sleep_forever()
        if outcome == "server":
            raise failure("server")
        if outcome == "bad_request":
            raise failure("bad_request")


@settings(max_examples=80)
@given(steps)
def test_whatever_happens_one_probe_at_a_time_and_a_healthy_model_is_soon_called_again(steps: Any) -> None:
    async def main() -> None:
        patients = Patients()
        async with trio.open_nursery() as nursery:
            for after, outcome, lasts in steps:
                await trio.sleep(after)
                nursery.start_soon(patients.one, outcome, lasts)
                await wait_all_tasks_blocked()
        await trio.sleep(35)  # the longest cooldown
        call(patients.breaker)
        assert state(patients.breaker) == "closed"

    trio.run(main, clock=MockClock(autojump_threshold=0))


# --- bad values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"consecutive_failures": 0},
        {"consecutive_failures": True},
        {"minimum_calls": None},
        {"failure_rate": 1.01},
        {"failure_rate": 0},
        {"failure_rate": "half"},
        {"window": math.inf},
        {"window": None},
        {"window": 0},
        {"cooldown": 0},
        {"cooldown": -1},
        {"max_cooldown": 29},
        {"max_cooldown": math.nan},
    ],
)
def test_a_policy_out_of_range_is_a_bad_call(values: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=f"{next(iter(values))} is .*; it must be a"):
        BreakerPolicy(**values)
