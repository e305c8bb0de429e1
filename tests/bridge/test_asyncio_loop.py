"""Coroutines on asyncio loops, awaited from trio. The loops run in threads of the tests."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.event_loops import DEBUGGABLE, LOOPS
from ultra.bridge import asyncio_loop
from ultra.bridge.asyncio_loop import AsyncioLoop, ThreadsafeEvent, TrioQueues
from ultra.bridge.call_queue import CallQueue
from ultra.errors import LoopUnavailable

T = TypeVar("T")
Emit = Callable[[str], None]

colour: ContextVar[str] = ContextVar("colour", default="none")


class LoopThread:
    """An asyncio loop that runs in a thread of its own."""

    def __init__(self, kind: str) -> None:
        self._runner = asyncio.Runner(debug=DEBUGGABLE[kind], loop_factory=LOOPS[kind])
        self.loop = self._runner.get_loop()
        self.loop.slow_callback_duration = 10.0
        self.thread = threading.Thread(target=self.loop.run_forever, name="asyncio loop")
        self.thread.start()
        self.runner = self.call(AsyncioLoop.running)

    def call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result()

    def stop(self) -> None:
        """Let the loop run no more."""
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()

    def close(self) -> None:
        """As `asyncio.run` does at its end: cancel all tasks, wait for them, close the loop."""
        self.stop()
        self._runner.close()


@pytest.fixture(params=LOOPS)
def beside(request: pytest.FixtureRequest) -> Iterator[LoopThread]:
    thread = LoopThread(request.param)
    yield thread
    thread.close()


async def run(
    beside: LoopThread,
    function: Callable[[], Coroutine[Any, Any, T]],
    context: Context | None = None,
) -> T:
    return await beside.runner(lambda _: function(), None, context or copy_context())


async def test_a_coroutine_runs_on_its_loop_and_what_it_returns_comes_back(beside: LoopThread) -> None:
    async def answer() -> tuple[object, object]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), threading.current_thread()

    assert await run(beside, answer) == (beside.loop, beside.thread)


async def test_what_a_coroutine_raises_comes_back_with_its_traceback(beside: LoopThread) -> None:
    async def fail() -> None:
        raise ConnectionError("lost") from KeyError("first")

    with pytest.raises(ConnectionError, match="lost") as caught:
        await run(beside, fail)

    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.traceback[-1].name == "fail"


async def test_a_coroutine_has_a_copy_of_the_context_it_is_given(beside: LoopThread) -> None:
    async def look() -> str:
        seen = colour.get()
        colour.set("changed")
        return seen

    context = copy_context()
    context.run(colour.set, "blue")

    assert [await run(beside, look, context) for _ in range(2)] == ["blue", "blue"]


async def test_many_coroutines_with_one_context_run_at_once(beside: LoopThread) -> None:
    waiting: list[asyncio.Future[str]] = []
    answers: list[str] = []

    async def wait_for_all() -> str:
        mine: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        if len(waiting) == 10:
            for number, future in enumerate(waiting):
                future.set_result(f"{colour.get()} {number}")
        return await mine

    async def ask() -> None:
        answers.append(await run(beside, wait_for_all, context))

    context = copy_context()
    context.run(colour.set, "blue")
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)

    assert sorted(answers) == [f"blue {number}" for number in range(10)]


async def test_calls_of_one_moment_share_one_wake_up_of_the_loop(
    beside: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[object] = []
    wake = AsyncioLoop._wake

    def counted(self: AsyncioLoop, deliver: Callable[[], None]) -> None:
        wakes.append(deliver)
        wake(self, deliver)

    monkeypatch.setattr(AsyncioLoop, "_wake", counted)
    runner = AsyncioLoop(beside.loop)  # a new one, since the known one has bound the old way to wake

    async def nothing() -> None:
        pass

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(runner, lambda _: nothing(), None, copy_context())

    assert len(wakes) == 1


async def test_replies_of_one_moment_share_one_wake_up_of_trio(beside: LoopThread) -> None:
    token = trio.lowlevel.current_trio_token()
    wakes: list[object] = []

    def wake(deliver: Callable[[], None]) -> None:
        wakes.append(deliver)
        token.run_sync_soon(deliver)
        time.sleep(0.01)  # trio delivers meanwhile, so that whatever else is sent would wake it anew

    async def nothing() -> None:
        pass

    waiting: list[asyncio.Future[None]] = []

    def end_all() -> None:
        for future in waiting:
            future.set_result(None)

    async def wait_for_all() -> None:
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        waiting.append(mine)
        if len(waiting) == 50:
            loop.call_soon(end_all)
        await mine

    TrioQueues.install(CallQueue(wake))
    for function, expected in ((nothing, 1), (wait_for_all, 2)):
        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(run, beside, function)
        assert len(wakes) == expected


# --- cancellation ----------------------------------------------------------------------------------


async def test_cancelling_cancels_the_coroutine_and_waits_for_its_end(beside: LoopThread) -> None:
    begun, story = trio.Event(), list[str]()
    token = trio.lowlevel.current_trio_token()

    async def clean_up_slowly() -> None:
        token.run_sync_soon(begun.set)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            story.append("cancelled")
            await asyncio.sleep(0.02)
            story.append("ended")
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, beside, clean_up_slowly)
        await begun.wait()
        nursery.cancel_scope.cancel()

    assert story == ["cancelled", "ended"]


async def test_a_timeout_in_trio_ends_a_coroutine(beside: LoopThread) -> None:
    async def hang() -> None:
        await asyncio.sleep(3600)

    with pytest.raises(trio.TooSlowError), trio.fail_after(0.01):
        await run(beside, hang)


async def test_a_coroutine_that_ends_in_spite_of_its_cancellation_has_ended(beside: LoopThread) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def refuse() -> str:
        token.run_sync_soon(begun.set)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return "done all the same"
        return "?"

    answers: list[str] = []

    async def ask() -> None:
        answers.append(await run(beside, refuse))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await begun.wait()
        nursery.cancel_scope.cancel()

    assert answers == ["done all the same"]


async def test_cancelled_before_it_begins_a_coroutine_does_nothing(beside: LoopThread) -> None:
    began: list[str] = []

    async def begin() -> None:
        began.append("yes")

    with trio.CancelScope() as scope:
        scope.cancel()
        await run(beside, begin)

    assert scope.cancelled_caught
    assert began == []


async def test_a_coroutine_that_somebody_else_cancels_is_reported_and_cancels_nobody(
    beside: LoopThread,
) -> None:
    async def give_up() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(3600)

    with pytest.raises(LoopUnavailable, match="was cancelled"):
        await run(beside, give_up)


async def test_a_coroutine_that_is_cancelled_before_its_first_step_is_reported(beside: LoopThread) -> None:
    began: list[str] = []

    async def begin() -> None:
        began.append("yes")

    def cancelled_at_once(
        loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None
    ) -> asyncio.Task[Any]:
        task = asyncio.Task(coroutine, loop=loop, context=context)
        task.cancel()
        return task

    beside.call(lambda: beside.loop.set_task_factory(cancelled_at_once))
    with pytest.raises(LoopUnavailable, match="was cancelled"):
        await run(beside, begin)
    beside.loop.call_soon_threadsafe(beside.loop.set_task_factory, None)

    assert began == []


async def test_an_interrupt_ends_the_loop_and_the_call_on_it(
    beside: LoopThread, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def close_after_it() -> None:
        await trio.to_thread.run_sync(beside.thread.join)
        await trio.to_thread.run_sync(beside.close)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_after_it)
        with pytest.raises(LoopUnavailable, match="was cancelled"):
            await run(beside, interrupt)

    gc.collect()
    assert caplog.messages == []


# --- text ------------------------------------------------------------------------------------------


async def test_text_arrives_in_trios_thread_in_order_and_before_the_result(beside: LoopThread) -> None:
    pieces: list[str] = []
    threads: set[int] = set()

    def hear(text: str) -> None:
        pieces.append(text)
        threads.add(threading.get_ident())

    async def speak(emit: Emit | None) -> int:
        assert emit is not None
        for number in range(1000):
            emit(str(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        return len(pieces)

    await beside.runner(speak, hear, copy_context())

    assert pieces == [str(number) for number in range(1000)]
    assert threads == {threading.get_ident()}


async def test_text_that_comes_after_a_cancellation_is_dropped(beside: LoopThread) -> None:
    pieces: list[str] = []
    scope = trio.CancelScope()

    def hear(text: str) -> None:
        pieces.append(text)
        scope.cancel()

    async def speak(emit: Emit | None) -> None:
        assert emit is not None
        emit("one")
        try:
            await asyncio.sleep(3600)
        finally:
            emit("two")

    with scope:
        await beside.runner(speak, hear, copy_context())

    assert pieces == ["one"]


async def test_a_listener_that_fails_ends_the_coroutine_and_is_told_of(beside: LoopThread) -> None:
    ended = threading.Event()

    def fail(_: str) -> None:
        raise ZeroDivisionError("in the listener")

    async def speak(emit: Emit | None) -> None:
        assert emit is not None
        emit("one")
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    with pytest.raises(ZeroDivisionError, match="in the listener"):
        await beside.runner(speak, fail, copy_context())

    assert ended.is_set()


async def test_a_listener_that_fails_when_the_loop_is_closed_already_is_told_of_all_the_same(
    beside: LoopThread,
) -> None:
    def fail(_: str) -> None:
        beside.close()
        raise ZeroDivisionError("in the listener")

    async def speak(emit: Emit | None) -> None:
        assert emit is not None
        emit("one")
        await asyncio.sleep(3600)

    with pytest.raises(ZeroDivisionError, match="in the listener"):
        await beside.runner(speak, fail, copy_context())


# --- loops that end --------------------------------------------------------------------------------


async def test_a_loop_that_does_not_run_is_refused(beside: LoopThread) -> None:
    async def nothing() -> None:
        pass

    beside.stop()

    assert not beside.runner.is_running
    with pytest.raises(LoopUnavailable, match="does not run"):
        await run(beside, nothing)


def test_a_loop_is_known_by_one_object_and_is_not_kept_alive_by_it() -> None:
    async def both() -> tuple[AsyncioLoop, AsyncioLoop]:
        return AsyncioLoop.running(), AsyncioLoop.running()

    first, second = asyncio.run(both())
    third, _ = asyncio.run(both())

    assert first is second
    assert first is not third
    assert not first.is_running
    with pytest.raises(LoopUnavailable, match="was closed"):
        first.post(print)
    with pytest.raises(RuntimeError, match="no running event loop"):
        AsyncioLoop.running()


async def test_a_call_ends_when_its_loop_is_closed_the_way_asyncio_closes_it(beside: LoopThread) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()
    errors: list[LoopUnavailable] = []

    async def hang() -> None:
        token.run_sync_soon(begun.set)
        await asyncio.sleep(3600)

    async def ask() -> None:
        try:
            await run(beside, hang)
        except LoopUnavailable as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await begun.wait()
        await trio.to_thread.run_sync(beside.close)

    assert "was cancelled" in str(errors[0])


async def test_a_call_begins_also_where_the_loop_takes_it_at_the_moment_it_is_sent(
    beside: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = TrioQueues.send

    def taken_at_once(
        queues: TrioQueues, queue: CallQueue, function: Callable[..., object], *args: object
    ) -> None:
        send(queues, queue, function, *args)
        monkeypatch.undo()
        beside.call(queue.deliver)  # as a loop does that is in the middle of calls that were sent before

    begun = threading.Event()

    async def answer() -> None:
        begun.set()

    monkeypatch.setattr(TrioQueues, "send", taken_at_once)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, beside, answer)
        if not await trio.to_thread.run_sync(begun.wait, 5):
            beside.stop()  # a call that was lost can only end with its loop, and raises then


async def test_a_call_on_a_loop_that_runs_no_more_can_be_cancelled(beside: LoopThread) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def hang() -> None:
        token.run_sync_soon(begun.set)
        await asyncio.sleep(3600)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, beside, hang)
        await begun.wait()
        beside.stop()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.parametrize("started", [True, False])
async def test_a_call_that_was_given_up_does_not_go_on_with_its_loop(
    beside: LoopThread, monkeypatch: pytest.MonkeyPatch, *, started: bool, cancelled: bool
) -> None:
    monkeypatch.setattr(asyncio_loop, "LOOP_CHECK_INTERVAL", 0.01)
    begun, token = trio.Event(), trio.lowlevel.current_trio_token()
    seen: list[str] = []

    async def hang() -> None:
        token.run_sync_soon(begun.set)
        seen.append("began")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def ask() -> None:
        try:
            await run(beside, hang)
        except LoopUnavailable:
            seen.append("given up")

    async with trio.open_nursery() as nursery:
        if started:
            nursery.start_soon(ask)
            await begun.wait()
            beside.stop()
        else:
            monkeypatch.setattr(AsyncioLoop, "is_running", True)
            beside.stop()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            monkeypatch.undo()
            monkeypatch.setattr(asyncio_loop, "LOOP_CHECK_INTERVAL", 0.01)
        if cancelled:
            nursery.cancel_scope.cancel()
    for _ in range(5):
        await trio.to_thread.run_sync(lambda: beside.loop.run_until_complete(asyncio.sleep(0)))
    assert seen == ["began"] * started + ["given up"] * (not cancelled) + ["cancelled"] * started


async def test_a_loop_that_is_thrown_away_with_a_call_on_it_leaves_no_noise(
    beside: LoopThread, caplog: pytest.LogCaptureFixture
) -> None:
    begun = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def hang() -> None:
        token.run_sync_soon(begun.set)
        await asyncio.get_running_loop().create_future()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, beside, hang)
        await begun.wait()
        beside.stop()
        nursery.cancel_scope.cancel()

    gc.collect()  # pytest would tell of an exception that nobody can catch
    assert [message for message in caplog.messages if "was destroyed but it is pending" not in message] == []


async def test_a_threadsafe_event_wakes_an_asyncio_task_once_and_from_any_thread(beside: LoopThread) -> None:
    events: list[ThreadsafeEvent] = []
    waiting = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async def wait() -> str:
        event = ThreadsafeEvent()
        events.append(event)
        token.run_sync_soon(waiting.set)
        await event.wait()
        return "woken"

    async def set_twice() -> None:
        await waiting.wait()
        events[0].set()
        events[0].set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(set_twice)
        assert await run(beside, wait) == "woken"
