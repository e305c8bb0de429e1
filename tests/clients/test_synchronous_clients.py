"""Clients whose calls block: they run in threads, of which there are so many."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.adapted_clients import QUESTION
from ultra.clients.adapter import ClientAdapter
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import Callable


async def test_a_synchronous_client_runs_in_a_thread_with_the_callers_context() -> None:
    variable = ContextVar[str]("variable")
    variable.set("from the caller")

    def client(prompt: str) -> str:
        assert threading.current_thread() is not threading.main_thread()
        return variable.get()

    assert (await ClientAdapter(client).call(QUESTION)).content == "from the caller"


async def test_a_cancelled_call_does_not_wait_for_a_synchronous_client() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def client(prompt: str) -> str:
        started.set()
        release.wait(10)
        ended.set()
        return "too late"

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ClientAdapter(client).call, QUESTION)
            assert await trio.to_thread.run_sync(started.wait, 10)
            nursery.cancel_scope.cancel()
        assert not ended.is_set()
    finally:
        release.set()
        assert await trio.to_thread.run_sync(ended.wait, 10)


async def test_no_more_threads_than_allowed_even_when_calls_are_abandoned() -> None:
    release, running = threading.Event(), threading.Semaphore(0)

    def client(prompt: str) -> str:
        running.release()
        release.wait(10)
        return "x"

    adapter = ClientAdapter(client, max_threads=1)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adapter.call, QUESTION)
            await trio.to_thread.run_sync(running.acquire)
            nursery.cancel_scope.cancel()
        with trio.CancelScope() as scope:
            scope.cancel()
            await adapter.call(QUESTION)
        assert scope.cancelled_caught
        assert not running.acquire(blocking=False)
    finally:
        release.set()
    assert (await adapter.call(QUESTION)).content == "x"


@pytest.mark.parametrize("end", ["returns", "raises"])
async def test_the_thread_of_a_call_that_was_given_up_keeps_a_slot_until_it_ends(end: str) -> None:
    begun, go, over = threading.Event(), threading.Event(), threading.Event()

    def client(prompt: str) -> str:
        begun.set()
        go.wait()
        if end == "raises":
            raise RuntimeError("late")
        return "late"

    kept: list[str] = []

    def keep_slot() -> Callable[[], None]:
        kept.append("slot")
        return over.set

    adapter = ClientAdapter(client)
    adapter.keep_slot = keep_slot
    async with trio.open_nursery() as nursery:
        nursery.start_soon(adapter.call, QUESTION)
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()
    assert kept == ["slot"]
    assert not over.is_set()
    go.set()
    await trio.to_thread.run_sync(over.wait)


async def test_a_call_that_was_not_given_up_or_had_no_thread_yet_keeps_no_slot() -> None:
    kept: list[str] = []
    adapter = ClientAdapter(lambda prompt: "x")

    def keep_slot() -> Callable[[], None]:
        kept.append("slot")
        return lambda: None

    adapter.keep_slot = keep_slot
    await adapter.call(QUESTION)
    with trio.CancelScope() as scope:
        scope.cancel()
        await adapter.call(QUESTION)
    assert not kept


def test_a_thread_abandoned_in_one_run_costs_the_next_run_nothing() -> None:
    release, started = threading.Event(), threading.Event()

    def client(prompt: str) -> str:
        started.set()
        release.wait(10)
        return "x"

    adapter = ClientAdapter(client, max_threads=1)

    async def abandon() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(adapter.call, QUESTION)
            await trio.to_thread.run_sync(started.wait, 10)
            nursery.cancel_scope.cancel()

    async def ask() -> Completion:
        with trio.fail_after(10):
            return await adapter.call(QUESTION)

    trio.run(abandon)
    release.set()
    assert trio.run(ask).content == "x"
