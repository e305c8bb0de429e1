"""Threads that cannot start, loops that end, forked children, task factories: nothing waits for ever."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import nullcontext
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import sniffio
import trio

from helpers.event_loops import LOOPS
from helpers.forked_children import forked
from ultra import BreakerPolicy, Limits, MultiLLMOrchestrator, OrchestratorClosed
from ultra.bridge.asyncio_loop import AsyncioLoop
from ultra.bridge.portal import SharedTrioThread, TrioThread
from ultra.errors import LoopUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable


async def answer(_: str) -> str:
    await asyncio.sleep(0)
    return "fine"


async def nothing() -> str:
    return "done"


STARTS_THREADS = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
"""What `threading` starts threads with."""


def test_a_thread_that_cannot_start_is_an_error_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_threads(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        shared = SharedTrioThread()
        with monkeypatch.context() as patch:
            patch.setattr(threading, STARTS_THREADS, no_threads)
            with pytest.raises(LoopUnavailable, match="cannot be started: can't start new thread"):
                await shared.run(nothing)
        async with asyncio.timeout(5):
            assert await shared.run(nothing) == "done"

    asyncio.run(main())


def test_a_thread_that_dies_at_its_start_is_an_error_of_all_who_wait_and_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_files(*_: object, **__: object) -> NoReturn:
        may_die.wait(5)
        raise OSError("too many open files")

    async def main() -> None:
        shared = SharedTrioThread()
        with monkeypatch.context() as patch:
            patch.setattr(trio, "run", no_files)
            calls = [asyncio.create_task(shared.run(nothing)) for _ in range(3)]
            await asyncio.sleep(0)
            may_die.set()
            async with asyncio.timeout(5):
                ends = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(end) for end in ends] == [LoopUnavailable] * 3
            assert "too many open files" in str(ends[0])
        async with asyncio.timeout(5):
            assert await shared.run(nothing) == "done"

    may_die = threading.Event()
    asyncio.run(main())


def test_a_thread_that_has_ended_takes_no_call() -> None:
    async def main() -> None:
        thread = TrioThread()
        thread.start()
        await thread.stop()
        async with asyncio.timeout(5):
            with pytest.raises(LoopUnavailable):
                await thread.run(nothing)

    asyncio.run(main())


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_loop_that_stops_in_the_middle_of_a_call_ends_it(*, cancelled: bool) -> None:
    async def hang(_: object) -> None:
        await asyncio.sleep(1000)

    def busy_and_then_stop() -> None:
        time.sleep(0.3)  # the cancellation comes meanwhile, and the loop never gets to it
        loop.stop()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def own() -> AsyncioLoop:
        return AsyncioLoop.running()

    runner = asyncio.run_coroutine_threadsafe(own(), loop).result()
    with trio.fail_after(5):
        with trio.move_on_after(0.1 if cancelled else 4) as scope:
            loop.call_soon_threadsafe(loop.call_later, 0.05, busy_and_then_stop)
            with pytest.raises(LoopUnavailable) if not cancelled else nullcontext():
                await runner(hang, None, copy_context())
        assert scope.cancelled_caught == cancelled
    await trio.to_thread.run_sync(thread.join)
    loop.close()


def classic(loop: asyncio.AbstractEventLoop, coroutine: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop)


def raising(*_: object, **__: object) -> NoReturn:
    raise ZeroDivisionError("in the factory")


FACTORIES: dict[str, Callable[..., Any]] = {"classic": classic}
if sys.version_info >= (3, 12):
    FACTORIES["eager"] = asyncio.eager_task_factory


@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)
def test_a_loop_may_have_a_task_factory_of_its_own(factory: Any, loop_factory: Any) -> None:
    async def main() -> None:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        orchestrator.register_model("m", answer)
        asyncio.get_running_loop().set_task_factory(factory)
        async with asyncio.timeout(5):
            assert (await orchestrator.get_model_response("m", "q")).content == "fine"
        asyncio.get_running_loop().set_task_factory(None)  # uvloop cannot end with a classic one

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def empty_handed(*_: object, **__: object) -> None:
    """A factory that forgot its return."""


FAILURES = {"raising": (raising, "ZeroDivisionError"), "empty-handed": (empty_handed, "which is no task")}


@pytest.mark.parametrize("loop_factory", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize(("factory", "says"), FAILURES.values(), ids=FAILURES)
def test_a_task_factory_that_fails_fails_the_call_at_once(factory: Any, says: str, loop_factory: Any) -> None:
    async def main() -> None:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        orchestrator.register_model("m", answer)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            loop.set_task_factory(factory)
            with pytest.raises(Exception, match=f"task factory of the asyncio loop failed: .*{says}"):
                await orchestrator.get_model_response("m", "q")
            loop.set_task_factory(None)
            assert (await orchestrator.get_model_response("m", "q")).content == "fine"

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_asyncio_beside_trio_in_guest_mode_is_asyncio() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        stop = trio.Event()
        trio.lowlevel.start_guest_run(
            stop.wait, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=done.set_result
        )
        await asyncio.sleep(0.01)
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        orchestrator.register_model("m", answer)
        async with asyncio.timeout(5):
            assert (await orchestrator.get_model_response("m", "q")).content == "fine"
            async with orchestrator.stream_responses("q", stages=["initial"]) as run:
                assert [event async for event in run]
        loop.call_soon(stop.set)
        await done

    asyncio.run(main())


def test_a_client_whose_loop_has_ended_runs_on_trio_when_called_from_there() -> None:
    async def client(_: str) -> str:
        return "fine"

    async def register() -> None:
        orchestrator.register_model("m", client)

    orchestrator = MultiLLMOrchestrator(max_retries=0)
    asyncio.run(register())
    assert trio.run(orchestrator.get_model_response, "m", "q").content == "fine"


def test_the_host_of_a_guest_run_looks_at_the_actors_in_its_own_thread() -> None:
    async def main() -> None:
        loop, orchestrator = asyncio.get_running_loop(), MultiLLMOrchestrator()
        entered, ended = asyncio.Event(), loop.create_future()
        leave: trio.Event | None = None

        async def guest() -> None:
            nonlocal leave
            leave = trio.Event()
            async with orchestrator:
                entered.set()
                await leave.wait()

        trio.lowlevel.start_guest_run(
            guest, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=ended.set_result
        )
        await entered.wait()
        orchestrator.register_model("m", answer)
        orchestrator.revive_model("m")
        assert orchestrator.health()["m"].status == "up"
        assert orchestrator.get_metrics()["m"].requests == 0
        assert [child.name for child in orchestrator.tree().children] == ["models", "coordinator"]
        assert sniffio.current_async_library() == "asyncio"
        assert leave is not None
        leave.set()
        (await ended).unwrap()

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("entered", [False, True])
def test_a_forked_child_has_actors_of_its_own(*, entered: bool) -> None:
    async def main() -> int:
        orchestrator = MultiLLMOrchestrator(max_retries=0)
        orchestrator.register_model("m", answer)
        if entered:
            async with orchestrator:
                return await in_child(orchestrator)
        return await in_child(orchestrator)

    async def in_child(orchestrator: MultiLLMOrchestrator) -> int:
        await orchestrator.get_model_response("m", "q")
        child = forked(lambda: asyncio.run(ask(orchestrator)))
        return os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1])

    async def ask(orchestrator: MultiLLMOrchestrator) -> int:
        async with asyncio.timeout(5):
            return int((await orchestrator.get_model_response("m", "in the child")).content != "fine")

    assert asyncio.run(main()) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_waits_for_no_call_of_its_parent_and_executes_none_of_its_runs() -> None:
    async def main() -> int:
        orchestrator = MultiLLMOrchestrator(
            max_retries=0,
            limits=Limits(concurrency=1),
            breaker=BreakerPolicy(cooldown=0.001),
            journal="memory",
        )
        orchestrator.register_model("m", hangs)
        async with orchestrator:
            orchestrator._lifespan.trio_run.run_sync(orchestrator._registry.get("m").breaker._open)
            await asyncio.sleep(0.002)
            call = asyncio.create_task(orchestrator.get_model_response("m", "?"))  # it is the probe
            await begun.wait()
            child = forked(lambda: asyncio.run(in_child(orchestrator)))
            status = (await asyncio.to_thread(os.waitpid, child, 0))[1]
            goes_on.set()
            assert (await call).content == "fine"
            return os.waitstatus_to_exitcode(status)

    async def hangs(prompt: str) -> str:
        if prompt == "?":
            begun.set()
            await goes_on.wait()
        return "fine"

    async def in_child(orchestrator: MultiLLMOrchestrator) -> int:
        async with asyncio.timeout(5):
            assert (await orchestrator.get_model_response("m", "in the child")).content == "fine"
            try:
                await orchestrator.submit("?")
            except OrchestratorClosed:
                return 0
        return 1

    begun, goes_on = asyncio.Event(), asyncio.Event()
    assert asyncio.run(main()) == 0
