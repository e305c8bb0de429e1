from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from ultra.bridge.trio_run import TrioRun
from ultra.errors import OrchestratorInUse


async def thread_name() -> str:
    await trio.lowlevel.checkpoint()  # fails anywhere but in a trio run
    return threading.current_thread().name


async def test_on_trio_it_is_the_caller_s_own_run() -> None:
    trio_run = TrioRun()
    assert await trio_run.run(thread_name) == threading.current_thread().name
    lock = trio.Lock()
    assert trio_run.wrap_context_manager(lock) is lock


def test_on_asyncio_it_is_the_run_of_a_thread() -> None:
    async def name() -> str:
        return await TrioRun().run(thread_name)

    assert asyncio.run(name()) == "ultra"


async def test_another_run_is_refused_until_all_claims_are_released() -> None:
    trio_run = TrioRun()
    trio_run.claim()
    trio_run.claim()

    async def claim() -> None:
        trio_run.claim()
        trio_run.release()

    async def call() -> None:
        trio_run.run_sync(list)

    trio_run.release()
    for use in (claim, call):
        with pytest.raises(OrchestratorInUse, match="in another thread's trio run"):
            await trio.to_thread.run_sync(trio.run, use)
    trio_run.release()
    for use in (claim, call):
        await trio.to_thread.run_sync(trio.run, use)


async def test_other_threads_call_functions_in_the_run_that_is_claimed() -> None:
    trio_run, thread = TrioRun(), threading.get_ident()
    assert await trio.to_thread.run_sync(trio_run.run_sync, threading.get_ident) != thread
    trio_run.claim()
    assert await trio.to_thread.run_sync(trio_run.run_sync, threading.get_ident) == thread
    assert trio_run.run_sync(threading.get_ident) == thread
    trio_run.release()


def test_a_run_that_has_ended_without_a_release_is_called_right_here() -> None:
    trio_run = TrioRun()

    async def claim() -> None:
        trio_run.claim()

    trio.run(claim)
    assert trio_run.run_sync(threading.get_ident) == threading.get_ident()
