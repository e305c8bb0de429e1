"""Futures of other threads, as tasks on trio wait for them."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, get_ident
from typing import TYPE_CHECKING

import pytest
import trio
from outcome import Error, Value
from trio.testing import wait_all_tasks_blocked

from ultra.bridge.futures import call_when_done, result_of

if TYPE_CHECKING:
    from outcome import Outcome


async def test_the_result_comes_from_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert await result_of(pool.submit(lambda: 7)) == 7


async def test_a_future_that_is_done_has_its_result_at_once_and_again() -> None:
    future: Future[int] = Future()
    future.set_result(7)

    assert [await result_of(future), await result_of(future)] == [7, 7]


async def test_the_error_is_raised_where_somebody_waits() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        await result_of(pool.submit(lambda: 1 / 0))


async def test_a_wait_can_be_cancelled_and_what_comes_later_reaches_nobody() -> None:
    future: Future[int] = Future()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(result_of, future)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught

    future.set_result(7)
    await wait_all_tasks_blocked()

    assert not future.cancelled()


async def test_a_wait_in_a_cancelled_scope_does_not_begin() -> None:
    future: Future[int] = Future()
    future.set_result(7)
    with trio.CancelScope() as scope:
        scope.cancel()
        await result_of(future)
        pytest.fail("a checkpoint in a cancelled scope")
    assert scope.cancelled_caught


async def test_a_function_is_called_on_trio_with_the_result_or_the_error() -> None:
    heard: list[tuple[int, Outcome[int]]] = []
    begin = Event()

    def divide(number: int) -> int:
        begin.wait()
        return 6 // number

    with ThreadPoolExecutor(1) as pool:
        for number in (2, 0):
            call_when_done(pool.submit(divide, number), lambda outcome: heard.append((get_ident(), outcome)))
        begin.set()
    await wait_all_tasks_blocked()

    assert [thread for thread, _ in heard] == [get_ident()] * 2
    assert heard[0][1] == Value(3)
    assert isinstance(heard[1][1], Error)
    assert isinstance(heard[1][1].error, ZeroDivisionError)


def test_a_future_that_is_done_after_the_trio_run_calls_nobody() -> None:
    future: Future[int] = Future()
    called: list[object] = []

    async def main() -> None:
        call_when_done(future, called.append)

    trio.run(main)
    future.set_result(7)

    assert called == []
