"""Trio functions and context managers in a trio thread, awaited from asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import pytest
import trio

from helpers.event_loops import LOOPS, interrupt, on_asyncio, run_on
from helpers.stray_cancellations import raise_stray_cancellation
from ultra.bridge.portal import TrioThread
from ultra.errors import LoopUnavailable, StrayCancelled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

colour: ContextVar[str] = ContextVar("colour", default="none")


@asynccontextmanager
async def trio_thread() -> AsyncIterator[TrioThread]:
    thread = TrioThread()
    thread.start()
    try:
        yield thread
    finally:
        await thread.stop()


class Begun:
    """Lets an asyncio task wait until a trio task has got to a certain point."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


# --- functions -------------------------------------------------------------------------------------


@on_asyncio
async def test_a_function_runs_on_trio_and_what_it_returns_comes_back() -> None:
    async def answer() -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return "answer", threading.current_thread().name

    async with trio_thread() as thread:
        assert await thread.run(answer) == ("answer", "trio")


@on_asyncio
async def test_what_a_function_raises_comes_back_with_its_cause_and_its_traceback() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ConnectionError("lost") from KeyError("first")

    async with trio_thread() as thread:
        with pytest.raises(ConnectionError, match="lost") as caught:
            await thread.run(fail)

    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.traceback[-1].name == "fail"


@on_asyncio
async def test_a_function_sees_the_callers_context_variables_and_changes_only_its_own() -> None:
    async def look() -> str:
        seen = colour.get()
        colour.set("changed")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nothing)
        return seen

    async with trio_thread() as thread:
        token = colour.set("blue")
        assert [await thread.run(look) for _ in range(2)] == ["blue", "blue"]
        assert colour.get() == "blue"
        colour.reset(token)


@on_asyncio
async def test_many_functions_run_at_once() -> None:
    together = trio.Event()
    arrived: list[int] = []

    async def wait_for_all(number: int) -> int:
        arrived.append(number)
        if len(arrived) == 200:
            together.set()
        await together.wait()
        return number

    async with trio_thread() as thread:
        answers = await asyncio.gather(
            *(thread.run(lambda number=number: wait_for_all(number)) for number in range(200))  # type: ignore[misc]
        )

    assert answers == list(range(200))


# --- cancellation ----------------------------------------------------------------------------------


@on_asyncio
async def test_cancelling_a_task_cancels_what_runs_on_trio_and_waits_for_its_end() -> None:
    begun, story = Begun(), list[str]()

    async def clean_up_slowly() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            story.append("cancelled")
            with trio.CancelScope(shield=True):
                await trio.sleep(0.02)
            story.append("ended")

    async with trio_thread() as thread:
        task = asyncio.create_task(thread.run(clean_up_slowly))
        await begun.wait()
        task.cancel("enough")
        with pytest.raises(asyncio.CancelledError, match="enough"):
            await task

    assert story == ["cancelled", "ended"]


@on_asyncio
async def test_a_task_that_is_cancelled_again_and_again_still_waits_for_the_end() -> None:
    begun, end, ended = Begun(), trio.Event(), list[str]()

    async def refuse_to_be_hurried() -> str:
        begun.set()
        with trio.CancelScope(shield=True):
            await end.wait()
        ended.append("ended")
        return "dropped"

    async with trio_thread() as thread:
        task = asyncio.create_task(thread.run(refuse_to_be_hurried))
        await begun.wait()
        for _ in range(5):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        await thread.run(lambda: _set(end))
        with pytest.raises(asyncio.CancelledError):
            await task

    assert ended == ["ended"]


async def _set(event: trio.Event) -> None:
    event.set()


@on_asyncio
async def test_the_timeouts_of_asyncio_work() -> None:
    async with trio_thread() as thread:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await thread.run(trio.sleep_forever)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(thread.run(trio.sleep_forever), 0.01)


@on_asyncio
async def test_the_cancel_scopes_of_anyio_work() -> None:
    ended = list[str]()
    scope = anyio.CancelScope()
    loop = asyncio.get_running_loop()

    async def hang() -> None:
        try:
            loop.call_soon_threadsafe(scope.cancel)
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    async with trio_thread() as thread:
        with scope:
            await thread.run(hang)
        assert scope.cancelled_caught
        assert ended == ["ended"]
        await thread.run(nothing)


@on_asyncio
async def test_a_task_group_cancels_its_tasks_on_trio() -> None:
    begun, ended = Begun(), list[str]()

    async def hang() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.append("ended")

    async def fail() -> None:
        await begun.wait()
        raise ZeroDivisionError

    async def both(thread: TrioThread) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(thread.run(hang))
            group.create_task(fail())

    async with trio_thread() as thread:
        with pytest.raises(ExceptionGroup) as caught:
            await both(thread)

    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert ended == ["ended"]


@on_asyncio
async def test_a_coroutine_that_is_thrown_away_cancels_what_runs_on_trio() -> None:
    begun, ended = Begun(), Begun()

    async def hang() -> None:
        begun.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with trio_thread() as thread:
        coroutine = thread.run(hang)
        coroutine.send(None)
        await begun.wait()
        coroutine.close()
        await ended.wait()


# --- the end of the thread -------------------------------------------------------------------------


@on_asyncio
async def test_stopping_cancels_what_runs_and_refuses_what_comes_after() -> None:
    begun = Begun()

    async def hang() -> None:
        begun.set()
        await trio.sleep_forever()

    async with trio_thread() as thread:
        task = asyncio.create_task(thread.run(hang))
        await begun.wait()

    with pytest.raises(LoopUnavailable, match="was stopped"):
        await task
    with pytest.raises(LoopUnavailable, match="has ended"):
        await thread.run(nothing)


@on_asyncio
async def test_a_cancellation_that_is_raised_again_ends_its_function_and_not_the_thread() -> None:
    begun, ended = Begun(), trio.Event()

    async def waits() -> str:
        begun.set()
        await ended.wait()
        return "done"

    async def end() -> None:
        ended.set()

    async with trio_thread() as thread:
        task = asyncio.create_task(thread.run(waits))
        await begun.wait()
        with pytest.raises(StrayCancelled):
            await thread.run(raise_stray_cancellation)
        await thread.run(end)
        assert await task == "done"


@on_asyncio
async def test_stopping_is_not_cut_short_by_cancellation() -> None:
    thread = TrioThread()
    thread.start()
    stopping = asyncio.create_task(thread.stop())
    await asyncio.sleep(0)
    stopping.cancel()

    with pytest.raises(asyncio.CancelledError):
        await stopping

    with pytest.raises(LoopUnavailable, match="has ended"):
        await thread.run(nothing)


@on_asyncio
async def test_a_thread_that_breaks_down_fails_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    begun = Begun()

    async def hang() -> None:
        begun.set()
        await trio.sleep_forever()

    def break_down() -> None:
        raise ZeroDivisionError("a bug in trio")

    thread = TrioThread()
    thread.start()
    task = asyncio.create_task(thread.run(hang))
    await begun.wait()
    thread.post(break_down)

    with pytest.raises(LoopUnavailable):
        await task
    await thread.stop()


@pytest.mark.parametrize("kind", LOOPS)
def test_ctrl_c_ends_everything(kind: str) -> None:
    story: list[str] = []

    async def main() -> None:
        async with trio_thread() as thread:
            loop = asyncio.get_running_loop()

            async def hang() -> None:
                loop.call_soon_threadsafe(interrupt)
                try:
                    await trio.sleep_forever()
                finally:
                    story.append("ended")

            await thread.run(hang)

    with pytest.raises(KeyboardInterrupt):
        run_on(kind, main)

    assert story == ["ended"]


def test_a_thread_that_was_never_stopped_does_not_keep_the_program_from_ending() -> None:
    program = """
import asyncio, trio
from ultra.bridge.portal import TrioThread

async def main():
    thread = TrioThread()
    thread.start()
    await thread.run(trio.lowlevel.checkpoint)
    print("done")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30, check=True
    )

    assert (done.stdout, done.stderr) == ("done\n", "")


# --- blocks ----------------------------------------------------------------------------------------


class Block:
    """A trio context manager that tells what happens to it."""

    def __init__(
        self, *, enter_fails: bool = False, swallows: bool = False, ends_by_itself: bool = False
    ) -> None:
        self.story: list[str] = []
        self.tasks: list[trio.lowlevel.Task] = []
        self.enter_fails = enter_fails
        self.swallows = swallows
        self.ends_by_itself = ends_by_itself

    async def __aenter__(self) -> str:
        self.tasks.append(trio.lowlevel.current_task())
        if self.enter_fails:
            raise ConnectionError("cannot enter")
        self.nursery_manager = trio.open_nursery()
        nursery = await self.nursery_manager.__aenter__()
        if self.ends_by_itself:
            nursery.start_soon(_fail)
        self.story.append("entered")
        return "value"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self.tasks.append(trio.lowlevel.current_task())
        self.story.append(f"left by {kind.__name__ if kind else None}")
        if self.swallows:
            return await self.nursery_manager.__aexit__(None, None, None) or True
        try:
            return await self.nursery_manager.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            if group.exceptions == (error,):
                return False
            raise


async def _fail() -> None:
    raise ZeroDivisionError


@on_asyncio
async def test_a_block_is_entered_and_left_in_one_trio_task() -> None:
    block = Block()

    async with trio_thread() as thread, thread.wrap_context_manager(block) as value:
        assert value == "value"
        assert block.story == ["entered"]

    assert block.story == ["entered", "left by None"]
    assert block.tasks[0] is block.tasks[1]


@on_asyncio
async def test_an_exception_in_a_block_is_shown_to_its_manager_and_goes_on_as_it_was() -> None:
    block = Block()
    error = ValueError("mine")

    async with trio_thread() as thread:
        with pytest.raises(ValueError, match="mine") as caught:
            async with thread.wrap_context_manager(block):
                raise error

    assert caught.value is error
    assert error.__context__ is None
    assert [entry.name for entry in caught.traceback] == [caught.traceback[0].name]
    assert block.story == ["entered", "left by ValueError"]


@on_asyncio
async def test_a_manager_can_swallow_the_exception_of_its_block() -> None:
    async with trio_thread() as thread, thread.wrap_context_manager(Block(swallows=True)):
        raise ValueError("mine")


@on_asyncio
async def test_a_block_that_cannot_be_entered_says_why() -> None:
    async with trio_thread() as thread:
        with pytest.raises(ConnectionError, match="cannot enter"):
            async with thread.wrap_context_manager(Block(enter_fails=True)):
                pytest.fail("entered")


@on_asyncio
async def test_a_cancelled_block_is_left_by_cancellation() -> None:
    block = Block()

    async def enter(thread: TrioThread) -> None:
        async with asyncio.timeout(None) as timeout, thread.wrap_context_manager(block):
            timeout.reschedule(0)
            await asyncio.sleep(3600)

    async with trio_thread() as thread:
        with pytest.raises(TimeoutError):
            await enter(thread)

    assert block.story == ["entered", "left by CancelledError"]


@on_asyncio
async def test_a_task_that_is_cancelled_while_it_enters_has_left() -> None:
    entering, story = Begun(), list[str]()

    class Slow:
        async def __aenter__(self) -> None:
            entering.set()
            try:
                await trio.sleep_forever()
            finally:
                story.append("gave up")

        async def __aexit__(self, *how: object) -> None:
            story.append("left")

    async def enter() -> None:
        async with thread.wrap_context_manager(Slow()):
            story.append("entered")

    async with trio_thread() as thread:
        task = asyncio.create_task(enter())
        await entering.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert story == ["gave up"]


@on_asyncio
async def test_a_block_entered_in_the_moment_of_a_cancellation_is_left_again() -> None:
    block = Block()

    async def enter() -> None:
        async with thread.wrap_context_manager(block):
            await asyncio.sleep(3600)

    async with trio_thread() as thread:
        for _ in range(20):
            block = Block()
            task = asyncio.create_task(enter())
            await asyncio.sleep(0)
            await thread.run(nothing)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(block.story) in {0, 2}


@on_asyncio
async def test_a_block_that_trio_ends_by_itself_tells_so_when_it_is_left() -> None:
    block = Block(ends_by_itself=True)

    async with trio_thread() as thread:
        with pytest.raises(ExceptionGroup) as caught:
            async with thread.wrap_context_manager(block):
                await thread.run(nothing)

    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError]
    assert block.story == ["entered", "left by Cancelled"]
