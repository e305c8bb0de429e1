"""When a failed call is tried again, and how long to wait before."""

from __future__ import annotations

import gc
import math
import subprocess
import sys
from contextlib import contextmanager
from itertools import repeat
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ultra.actors.model.retry import RetryPolicy, with_retries
from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator


class Attempts:
    """Fails with `errors`, one a call, then answers; remembers when it was called, and what was told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.deadlines: Iterator[float] = repeat(math.inf)
        self.times: list[float] = []
        self.told: list[tuple[int, float]] = []

    async def attempt(self) -> str:
        self.times.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    @property
    def deadline(self) -> float:
        return next(self.deadlines)

    def retrying(self, attempt: int, error: ModelError, wait: float) -> None:
        self.told.append((attempt, wait))

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def run(self, policy: RetryPolicy | None = None) -> str:
        return await with_retries(self, policy or RetryPolicy(), Random(1))

    @property
    def waits(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


def busy(**fields: Any) -> ModelError:
    return ModelError("busy", kind="overloaded", **fields)


async def test_a_call_that_succeeds_is_made_once_and_nothing_is_told() -> None:
    attempts = Attempts()
    assert await attempts.run() == "answer"
    assert len(attempts.times) == 1
    assert attempts.told == []


async def test_a_call_is_retried_until_it_succeeds(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(busy(), busy())
    assert await attempts.run() == "answer"
    assert len(attempts.times) == 3
    assert [number for number, _ in attempts.told] == [1, 2]


@pytest.mark.parametrize("retries", [0, 1, 5])
async def test_attempts_are_at_most_one_more_than_retries(
    retries: int, autojump_clock: trio.testing.MockClock
) -> None:
    errors = [busy() for _ in range(10)]
    attempts = Attempts(*errors)
    with pytest.raises(ModelError) as caught:
        await attempts.run(RetryPolicy(max_retries=retries))
    assert caught.value is errors[retries]
    assert len(attempts.times) == retries + 1
    assert len(attempts.told) == retries


async def test_a_permanent_error_ends_it_at_once_whenever_it_comes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    first = Attempts(ModelError("bad key", kind="auth"))
    with pytest.raises(ModelError, match="bad key"):
        await first.run()
    assert len(first.times) == 1

    later = Attempts(busy(), ModelError("bad key", kind="auth"))
    with pytest.raises(ModelError, match="bad key"):
        await later.run()
    assert len(later.times) == 2


async def test_an_exception_of_another_class_passes_through(autojump_clock: trio.testing.MockClock) -> None:
    for errors in ([ZeroDivisionError()], [busy(), ZeroDivisionError()]):
        attempts = Attempts(*errors)
        with pytest.raises(ZeroDivisionError):
            await attempts.run()
        assert len(attempts.times) == len(errors)


async def test_the_waits_that_are_told_are_the_waits_that_are_waited(
    autojump_clock: trio.testing.MockClock,
) -> None:
    attempts = Attempts(*(busy() for _ in range(4)))
    await attempts.run(RetryPolicy(max_retries=4))
    assert attempts.waits == pytest.approx([wait for _, wait in attempts.told])
    assert all(wait > 0 for wait in attempts.waits)


def test_where_no_file_can_be_opened_a_call_is_tried_again_all_the_same() -> None:
    # In a process of its own: what the first retry of all imports must be there once a model is registered.
    ran = subprocess.run([sys.executable, "-c", FIRST_RETRY], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("answer after ['no file [connection]']\n", "")


FIRST_RETRY = """
import errno, os, sys
from math import inf
from random import Random
import trio
from ultra import MultiLLMOrchestrator
from ultra.actors.model.retry import RetryPolicy, with_retries
from ultra.errors import ModelError

class NoFile:
    def find_spec(self, *_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

class Call:
    deadline, told, sleep = inf, [], staticmethod(trio.sleep)

    async def attempt(self):
        if not self.told:
            raise ModelError("no file", kind="connection") from OSError(errno.EMFILE, "cannot connect")
        return f"answer after {self.told}"

    def retrying(self, attempt, error, wait):
        self.told.append(str(error))

async def main():
    MultiLLMOrchestrator().register_model("llama", lambda prompt: "")
    sys.meta_path.insert(0, NoFile())
    print(await with_retries(Call(), RetryPolicy(initial=0), Random(1)))

trio.run(main)
"""


async def test_a_call_that_was_retried_leaves_no_garbage_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    await Attempts(busy()).run()  # whatever it keeps for good, it keeps now
    with collector_off():
        await Attempts(busy(), busy()).run()
        assert gc.collect() == 0


@contextmanager
def collector_off() -> Iterator[None]:
    """Let no garbage be collected meanwhile but what the block collects."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def test_retry_after_wins_over_the_backoff(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(busy(retry_after=17.0), busy(retry_after=0.0))
    await attempts.run(RetryPolicy(maximum=1.0))
    assert attempts.waits == pytest.approx([17.0, 0.0])


async def test_a_retry_after_above_the_cap_fails_at_once(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(busy(retry_after=60.5))
    with pytest.raises(ModelError, match="busy"):
        await attempts.run(RetryPolicy(retry_after_cap=60.0))
    assert trio.current_time() == attempts.times[0]

    patient = Attempts(busy(retry_after=60.0))
    assert await patient.run(RetryPolicy(retry_after_cap=60.0)) == "answer"


async def test_no_wait_is_begun_that_would_end_after_the_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = trio.current_time()
    attempts = Attempts(busy(retry_after=4.0), busy(retry_after=4.0), busy(retry_after=4.0))
    attempts.deadlines = repeat(begun + 10.0)
    with pytest.raises(ModelError, match="busy"):
        await attempts.run()
    assert attempts.times == pytest.approx([begun, begun + 4, begun + 8])
    assert trio.current_time() == pytest.approx(begun + 8)


async def test_the_deadline_is_asked_for_at_each_failure(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(busy(), busy(), busy())
    attempts.deadlines = iter([math.inf, -math.inf])
    with pytest.raises(ModelError):
        await attempts.run()
    assert len(attempts.times) == 2


async def test_cancellation_ends_the_wait_between_attempts(autojump_clock: trio.testing.MockClock) -> None:
    attempts = Attempts(busy(retry_after=50.0))
    with trio.move_on_after(1) as scope:
        await attempts.run()
    assert scope.cancelled_caught
    assert len(attempts.times) == 1


async def test_what_the_sleep_raises_passes_through() -> None:
    class Interrupted(Attempts):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(0)
            raise KeyError(f"gone before {seconds} s were over")

    attempts = Interrupted(busy())
    with pytest.raises(KeyError):
        await attempts.run()
    assert len(attempts.times) == 1


@given(
    attempt=st.integers(1, 10_000),
    initial=st.floats(0, 100),
    maximum=st.floats(0, 100),
    seed=st.integers(),
)
def test_a_wait_lies_between_zero_and_a_limit_that_doubles_up_to_the_maximum(
    attempt: int, initial: float, maximum: float, seed: int
) -> None:
    policy = RetryPolicy(initial=initial, maximum=maximum)
    wait = policy.wait(attempt, busy(), Random(seed))
    assert 0 <= wait <= maximum
    if attempt < 100:
        assert wait <= initial * 2 ** (attempt - 1)


def test_waits_are_spread_over_the_whole_range() -> None:
    policy = RetryPolicy(initial=1.0, maximum=100.0)
    random = Random(1)
    waits = sorted(policy.wait(3, busy(), random) for _ in range(200))
    assert waits[0] < 0.2
    assert waits[-1] > 3.8


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": True},
        {"initial": -0.1},
        {"maximum": math.inf},
        {"maximum": math.nan},
        {"retry_after_cap": "60"},
        {"retry_after_cap": True},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_by_name(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(BadCall, match=name):
        RetryPolicy(**arguments)
