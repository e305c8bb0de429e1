"""Events and sleeping on trio and on asyncio, and from one to the other."""

from __future__ import annotations

import asyncio
import math
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.event_loops import on_asyncio
from ultra import Completion
from ultra.testing import AnyLoopEvent, FakeAnswer, FakeModel


async def test_an_event_wakes_all_who_wait_on_trio_in_the_order_of_trio() -> None:
    event = AnyLoopEvent()
    assert repr(event) == "<AnyLoopEvent, not set, 0 waiting>"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(event.wait)
        nursery.start_soon(event.wait)
        await wait_all_tasks_blocked()
        assert repr(event) == "<AnyLoopEvent, not set, 2 waiting>"
        event.set()
    await event.wait()
    assert repr(event) == "<AnyLoopEvent, set, 0 waiting>"


async def test_who_leaves_is_waited_for_no_longer() -> None:
    event = AnyLoopEvent()
    with trio.move_on_after(0):
        await event.wait()
    assert repr(event) == "<AnyLoopEvent, not set, 0 waiting>"


async def test_an_event_that_is_cleared_holds_those_who_come_later() -> None:
    event = AnyLoopEvent(is_set=True)
    event.clear()
    with trio.move_on_after(0.001) as scope:
        await event.wait()
    assert scope.cancelled_caught


@on_asyncio
async def test_an_event_wakes_all_who_wait_on_asyncio() -> None:
    event = AnyLoopEvent()
    waiting = [asyncio.create_task(event.wait()) for _ in range(2)]
    await asyncio.sleep(0)
    assert repr(event) == "<AnyLoopEvent, not set, 2 waiting>"
    event.set()
    await asyncio.gather(*waiting)
    await event.wait()


async def test_any_thread_can_set_an_event_for_trio() -> None:
    event = AnyLoopEvent()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await wait_all_tasks_blocked()
        await trio.to_thread.run_sync(event.set)


@on_asyncio
async def test_any_thread_can_set_an_event_for_asyncio() -> None:
    event = AnyLoopEvent()
    waiting = asyncio.create_task(event.wait())
    await asyncio.sleep(0)
    await asyncio.to_thread(event.set)
    await waiting


def test_tasks_of_trio_and_of_asyncio_wait_for_the_same_event() -> None:
    asked, gate = AnyLoopEvent(), AnyLoopEvent()

    async def on_trio() -> None:
        asked.set()
        await gate.wait()

    async def on_asyncio() -> None:
        await asked.wait()
        gate.set()

    thread = threading.Thread(target=trio.run, args=(on_trio,))
    thread.start()
    asyncio.run(on_asyncio())
    thread.join(10)
    assert not thread.is_alive()


# --- the model on asyncio ----------------------------------------------------------------------------


@on_asyncio
async def test_a_model_answers_streams_and_fails_on_asyncio() -> None:
    model = FakeModel(FakeAnswer("Par", "is.", seconds=0.001, piece_seconds=0.001)).fail(at=2)
    assert (await model.generate("Q")).content == "Paris."
    with pytest.raises(Exception, match="the test lets this call fail"):
        await model.generate("Q")
    pieces = [piece async for piece in model.stream("Q")]
    assert pieces == ["Par", "is.", Completion(content="Paris.", finish_reason="stop")]
    assert [call.outcome for call in model.calls] == ["answered", "failed", "answered"]


@on_asyncio
async def test_a_model_that_waits_or_hangs_on_asyncio_ends_when_it_is_cancelled() -> None:
    for model in (FakeModel(gated=True), FakeModel(seconds=math.inf), FakeModel(seconds=3600)):
        call = asyncio.create_task(model.generate("Q"))
        await model.asked.wait()
        assert model.running == 1
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (model.running, model.cancelled) == (0, 1)


@on_asyncio
async def test_a_gate_lets_calls_through_on_asyncio() -> None:
    model = FakeModel("Paris.", gated=True)
    call = asyncio.create_task(model.generate("Q"))
    await model.asked.wait()
    model.gate.set()
    assert (await call).content == "Paris."
