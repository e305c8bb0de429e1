"""A function takes the events of a run in the place of a reader's loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.run_events import assert_well_formed, orchestrator_of
from ultra import BadCall
from ultra.messages.events import Chunk, Event, RunCompleted, RunFailed
from ultra.orchestrator.event_buffer import EventBuffer
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from ultra.orchestrator.streams import RunStream


def chunk(text: str) -> Chunk:
    return Chunk(stage="initial", model_name="a", text=text)


END = RunFailed(error="E", message="m")


async def test_it_gets_the_events_of_a_whole_run(autojump_clock: MockClock) -> None:
    del autojump_clock
    events: list[Event] = []
    orchestrator = orchestrator_of(FakeModel("Yes.", seconds=1.0))
    async with orchestrator, orchestrator.stream_responses("Is it?") as run:
        await run.for_each(events.append)
        result = await run.result()

    assert_well_formed(events)
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result is result


async def test_on_asyncio_it_is_called_in_the_thread_of_its_reader() -> None:
    events: list[Event] = []
    threads: set[int] = set()

    def take(event: Event) -> None:
        events.append(event)
        threads.add(threading.get_ident())

    async def read() -> None:
        orchestrator = orchestrator_of(FakeModel("Yes."))
        async with orchestrator, orchestrator.stream_responses("Is it?") as run:
            await run.for_each(take)

    def on_asyncio() -> int:
        asyncio.run(read())
        return threading.get_ident()

    reader = await trio.to_thread.run_sync(on_asyncio)

    assert threads == {reader}
    assert_well_formed(events)


async def test_a_run_whose_block_was_left_has_no_end_to_wait_for() -> None:
    failures: list[BadCall] = []

    async def read(run: RunStream) -> None:
        try:
            await run.for_each(lambda _: None)
        except BadCall as error:
            failures.append(error)

    orchestrator = orchestrator_of(FakeModel("Yes.", seconds=60.0))
    async with orchestrator, trio.open_nursery() as nursery, orchestrator.stream_responses("Is it?") as run:
        nursery.start_soon(read, run)
        await wait_all_tasks_blocked()

    assert "before the run had ended" in str(failures[0])


async def test_what_came_before_and_what_comes_is_taken_in_order() -> None:
    buffer, taken = EventBuffer("run"), list[Event]()
    buffer.emit(chunk("one"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.for_each, taken.append)
        await wait_all_tasks_blocked()
        buffer.emit(chunk(" two"))
        buffer.emit(chunk(" three"))
        assert [event.text for event in taken if isinstance(event, Chunk)] == ["one", " two", " three"]
        buffer.emit(END)

    assert isinstance(taken[-1], RunFailed)
    assert [event.seq for event in taken] == [0, 1, 2, 3]


async def test_what_it_raises_is_raised_to_the_reader_and_not_to_the_writer() -> None:
    buffer = EventBuffer("run")

    def refuse(event: Event) -> None:
        raise ValueError("not this one")

    async with trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(ValueError, match="not this one"):
                await buffer.for_each(refuse)

        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        buffer.emit(chunk("one"))

    buffer.emit(chunk("two"))
    assert [event.seq for event in buffer.ready()] == [1]  # it waits for another reader


async def test_cancelled_it_takes_nothing_more() -> None:
    buffer, taken = EventBuffer("run"), list[Event]()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(buffer.for_each, taken.append)
            await wait_all_tasks_blocked()
            scope.cancel()

    buffer.emit(chunk("one"))

    assert not taken
    assert buffer.has_unread


async def test_a_buffer_that_is_closed_ends_it() -> None:
    buffer, taken = EventBuffer("run"), list[Event]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.for_each, taken.append)
        await wait_all_tasks_blocked()
        with pytest.raises(BadCall, match="another task is reading"):
            await buffer.for_each(taken.append)
        buffer.close()

    assert not taken


async def test_it_leaves_nothing_for_the_garbage_collector() -> None:
    buffer = EventBuffer("run")
    gone = weakref.ref(buffer)
    gc.disable()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(buffer.for_each, lambda _: None)
            await wait_all_tasks_blocked()
            buffer.emit(END)
        del buffer
        await trio.lowlevel.checkpoint()  # the reader's task is forgotten
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("waits", [True, False], ids=["while it waits", "at once"])
async def test_a_function_that_cancels_the_following_gets_nothing_more_and_the_writer_goes_on(
    *, waits: bool
) -> None:
    buffer, taken, was_cancelled = EventBuffer("run"), list[Event](), list[bool]()

    async def read() -> None:
        with trio.CancelScope() as scope:

            def take(event: Event) -> None:
                taken.append(event)
                scope.cancel()

            await buffer.for_each(take)
        was_cancelled.append(scope.cancelled_caught)

    async with trio.open_nursery() as nursery:
        if not waits:
            buffer.emit(chunk("one"))
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        if waits:
            buffer.emit(chunk("one"))
        await wait_all_tasks_blocked()
        buffer.emit(chunk("two"))
        buffer.emit(END)  # must wake nobody
        await wait_all_tasks_blocked()

    assert was_cancelled == [True]
    assert [event.seq for event in taken] == [0]
    assert [event.seq for event in buffer.ready()] == [1, 2]


async def test_a_function_that_cancels_and_raises_wakes_its_reader_once() -> None:
    buffer, seen = EventBuffer("run"), list[str]()

    async def read() -> None:
        with trio.CancelScope() as scope:

            def take(event: Event) -> None:
                scope.cancel()
                raise ValueError("not this one")

            with pytest.raises(ValueError, match="not this one"):
                await buffer.for_each(take)
            await trio.lowlevel.checkpoint()
        seen.append("cancelled" if scope.cancelled_caught else "not cancelled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        buffer.emit(chunk("one"))
        buffer.emit(END)

    assert seen == ["cancelled"]
    assert [event.seq for event in buffer.ready()] == [1]


async def test_after_one_that_was_refused_the_others_wait_for_another_reader() -> None:
    buffer = EventBuffer("run")
    buffer.emit(chunk("one"))
    buffer.emit(END)

    def refuse(event: Event) -> None:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        await buffer.for_each(refuse)

    assert [event.seq for event in buffer.ready()] == [1]


def test_on_asyncio_too_they_wait_for_another_reader() -> None:
    buffer = EventBuffer("run", time.monotonic)
    buffer.emit(chunk("one"))
    buffer.emit(END)

    def refuse(event: Event) -> None:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        asyncio.run(buffer.for_each(refuse))

    assert [event.seq for event in buffer.ready()] == [1]


@pytest.mark.parametrize("way", ["for_each", "next"])
def test_on_asyncio_a_writer_that_is_faster_leaves_others_their_turns(way: str) -> None:
    buffer, turns, taken = EventBuffer("run", time.monotonic), [0], [0]
    buffer.emit(chunk("one"))

    def take(_: Event) -> None:
        taken[0] += 1
        buffer.emit(chunk("more") if taken[0] < 100 else END)  # as from another thread, while this reads

    async def others() -> None:
        while True:
            await asyncio.sleep(0)
            turns[0] += 1

    async def read() -> None:
        other = asyncio.create_task(others())
        if way == "for_each":
            await buffer.for_each(take)
        else:
            while (event := await buffer.next()) is not None:
                take(event)
        other.cancel()

    asyncio.run(read())
    assert taken[0] == 101
    assert turns[0] > 20


async def test_a_function_may_write_and_close() -> None:
    buffer, taken = EventBuffer("run"), list[Event]()

    def take(event: Event) -> None:
        taken.append(event)
        if len(taken) == 1:
            buffer.emit(chunk("one more"))
        else:
            buffer.emit(chunk("nobody reads this"))
            buffer.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(buffer.for_each, take)
        await wait_all_tasks_blocked()
        buffer.emit(chunk("one"))

    assert [event.seq for event in taken] == [0, 1]


async def test_it_is_called_with_the_context_variables_of_its_reader() -> None:
    name: ContextVar[str] = ContextVar("name", default="nobody")
    buffer, seen = EventBuffer("run"), list[str]()

    async def read() -> None:
        name.set("reader")
        await buffer.for_each(lambda _: seen.append(name.get()))

    async with trio.open_nursery() as nursery:
        name.set("writer")
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        buffer.emit(chunk("one"))
        buffer.emit(END)

    assert seen == ["reader", "reader"]
