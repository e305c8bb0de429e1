"""The buffer between the actors, which never wait, and a reader, who may."""

from __future__ import annotations

import sys
import tracemalloc
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra.durable.told import Told
from ultra.errors import BadCall
from ultra.messages.chat import ReasoningPart
from ultra.messages.events import (
    Chunk,
    Event,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    RunFailed,
    StageStarted,
)
from ultra.messages.results import ModelResponse
from ultra.orchestrator.event_buffer import EventBuffer

FAILED = RunFailed(error="E", message="m")

# Before Python 3.12, StringIO keeps the newest 100,000 pieces as they are.
BYTES_PER_CHARACTER = 5 if sys.version_info >= (3, 12) else 15


def buffer_with(*pieces: str) -> EventBuffer:
    buffer = EventBuffer("r")
    for number, piece in enumerate(pieces):
        tell(buffer, piece, begins=number == 0)
    return buffer


def tell(buffer: EventBuffer, text: str, *, begins: bool = False, model: str = "a", **more: Any) -> None:
    buffer.emit(Chunk(**{"stage": "initial", **more}, model_name=model, text=text, restart=begins))


async def read_one(buffer: EventBuffer) -> Event:
    event = await buffer.next()
    assert event is not None
    return event


async def read_all(buffer: EventBuffer) -> list[Event]:
    events = []
    while (event := await buffer.next()) is not None:
        events.append(event)
    return events


def texts(events: list[Event]) -> list[tuple[str, str, bool]]:
    return [(e.model_name, e.text, e.restart) for e in events if isinstance(e, Chunk)]


async def test_chunks_of_one_model_that_wait_are_joined_and_those_of_others_are_not() -> None:
    buffer = EventBuffer("r")
    for piece in "xyz":
        tell(buffer, piece, begins=piece == "x")
        tell(buffer, piece.upper(), begins=piece == "x", model="b")
        tell(buffer, "m", begins=piece == "x", stage="meta")
    buffer.emit(FAILED)
    events = await read_all(buffer)
    assert texts(events) == [("a", "xyz", False), ("b", "XYZ", False), ("a", "mmm", False)]


async def test_a_reader_that_keeps_up_gets_every_piece() -> None:
    buffer = EventBuffer("r")
    heard = []
    for piece in "xyz":
        tell(buffer, piece, begins=piece == "x")
        heard.append(await buffer.next())
    assert [event.text for event in heard if isinstance(event, Chunk)] == ["x", "y", "z"]
    assert [event.seq for event in heard if event is not None] == [0, 1, 2]


async def test_text_after_an_answer_is_not_joined_to_that_before_it() -> None:
    buffer = buffer_with("one")
    response = ModelResponse(model_name="a", stage="initial", content="one")
    buffer.emit(ModelResponded(stage="initial", model_name="a", response=response))
    tell(buffer, "two", begins=True)
    buffer.emit(FAILED)
    kinds = [type(event).__name__ for event in await read_all(buffer)]
    assert kinds == ["Chunk", "ModelResponded", "Chunk", "RunFailed"]


async def test_a_text_that_begins_for_the_first_time_is_no_restart_and_the_second_time_it_is() -> None:
    buffer = buffer_with("half")
    assert texts([await read_one(buffer)]) == [("a", "half", False)]
    tell(buffer, "whole", begins=True)
    tell(buffer, " text")
    assert texts([await read_one(buffer)]) == [("a", "whole text", True)]


async def test_a_restart_takes_the_place_of_what_nobody_has_read() -> None:
    buffer = buffer_with("half", " an")
    tell(buffer, "whole", begins=True)
    buffer.emit(FAILED)
    assert texts(await read_all(buffer)) == [("a", "whole", True)]


async def test_text_that_a_retry_made_void_is_not_read_any_more() -> None:
    buffer = buffer_with("half")
    tell(buffer, "HALF", begins=True)
    tell(buffer, "of another", begins=True, model="b")
    buffer.emit(
        ModelRetrying(stage="initial", model_name="a", attempt=1, wait=0.5, kind="connection", message="m")
    )
    tell(buffer, "whole", begins=True)
    tell(buffer, " text")
    buffer.emit(FAILED)
    events = await read_all(buffer)
    assert [type(event) for event in events] == [Chunk, ModelRetrying, Chunk, RunFailed]
    assert texts(events) == [("b", "of another", False), ("a", "whole text", True)]


async def test_after_the_last_event_nothing_comes_any_more() -> None:
    buffer = buffer_with("text")
    buffer.emit(FAILED)
    buffer.emit(FAILED)
    buffer.emit(ModelStarted(stage="initial", model_name="a"))
    tell(buffer, "late")
    events = await read_all(buffer)
    assert [type(event) for event in events] == [Chunk, RunFailed]
    assert await buffer.next() is None


async def test_an_event_has_the_time_since_the_run_began(autojump_clock: MockClock) -> None:
    buffer = EventBuffer("r")
    await trio.sleep(2)
    buffer.emit(StageStarted(stage="initial", models=(), asks="all"))
    tell(buffer, "x", begins=True)
    await trio.sleep(3)
    tell(buffer, "y")
    buffer.emit(FAILED)
    assert [event.time for event in await read_all(buffer)] == pytest.approx([2, 2, 5])


async def test_a_waiting_reader_is_woken_by_the_next_event() -> None:
    buffer = EventBuffer("r")
    events: list[Event | None] = []

    async def read() -> None:
        events.append(await buffer.next())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        tell(buffer, "x", begins=True)
        tell(buffer, "y")
    assert texts([event for event in events if event is not None]) == [("a", "xy", False)]


async def test_a_cancelled_reader_has_taken_nothing(autojump_clock: MockClock) -> None:
    buffer = EventBuffer("r")
    with trio.move_on_after(1):
        await buffer.next()
    tell(buffer, "x", begins=True)
    with trio.CancelScope() as scope:
        scope.cancel()
        await buffer.next()
    assert scope.cancelled_caught
    event = await buffer.next()
    assert isinstance(event, Chunk)
    assert (event.seq, event.text) == (0, "x")


@pytest.mark.parametrize("pieces", [(), ("x",)])
async def test_a_second_reader_is_refused_and_the_first_reads_on(pieces: tuple[str, ...]) -> None:
    buffer = buffer_with(*pieces)
    events: list[Event | None] = []
    refused = []

    async def read() -> None:
        try:
            events.append(await buffer.next())
        except BadCall:
            refused.append(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        tell(buffer, "y", begins=not pieces)
    assert (len(events), len(refused)) == (1, 1)
    await buffer.next() if pieces else None


async def test_every_read_is_a_checkpoint() -> None:
    buffer = buffer_with("x")
    buffer.emit(FAILED)
    for _ in range(3):
        with trio.testing.assert_checkpoints():
            await buffer.next()


async def test_closing_lets_a_waiting_reader_go() -> None:
    buffer = EventBuffer("r")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, buffer)
        await wait_all_tasks_blocked()
        buffer.close()
    tell(buffer, "late", begins=True)
    assert await buffer.next() is None


async def test_what_waits_takes_the_room_of_the_text_and_not_of_its_pieces() -> None:
    buffer = EventBuffer("r")
    text = "".join(map(str, range(10_000, 30_000)))
    tracemalloc.start()
    try:
        for number in range(10_000, 30_000):
            tell(buffer, str(number), begins=number == 10_000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < BYTES_PER_CHARACTER * len(text)
    event = await buffer.next()
    assert isinstance(event, Chunk)
    assert event.text == text


async def test_text_of_other_samples_and_rounds_is_kept_apart() -> None:
    buffer = EventBuffer("r")
    places: list[dict[str, Any]] = [{}, {"sample": 1}, {"round": 1}]
    for more in places:
        tell(buffer, "x", begins=True, **more)
        tell(buffer, "y", **more)
    assert [
        (e.text, e.restart) for e in [await read_one(buffer) for _ in range(3)] if isinstance(e, Chunk)
    ] == [("xy", False)] * 3


writes = st.tuples(st.sampled_from("ab"), st.text("xyz", min_size=1, max_size=3), st.booleans())


@given(st.lists(st.one_of(writes, st.none()), max_size=40))
def test_whatever_the_reader_misses_its_texts_are_those_that_were_written(script: list[Any]) -> None:
    async def go() -> None:
        buffer = EventBuffer("r")
        written: dict[str, str] = {}
        read: list[Event] = []
        waiting = 0
        for step in script:
            if step is None:
                if buffer._events:
                    read.append(await read_one(buffer))
                continue
            name, text, begins = step
            written[name] = text if begins or name not in written else written[name] + text
            tell(buffer, text, begins=begins or name not in written, model=name)
            waiting = max(waiting, len(buffer._events))
        buffer.emit(FAILED)
        read += await read_all(buffer)
        assert [event.seq for event in read] == list(range(len(read)))
        assert waiting <= 2
        told: dict[str, str] = {}
        for event in read:
            if isinstance(event, Chunk):
                before = "" if event.restart else told.get(event.model_name, "")
                told[event.model_name] = before + event.text
        assert told == written

    trio.run(go)


# --- reasoning -------------------------------------------------------------------------------------------


def think(buffer: EventBuffer, words: str, *, begins: bool = False, **about: Any) -> None:
    part = ReasoningPart(words, "anthropic", **about)
    buffer.emit(ReasoningChunk(stage="initial", model_name="a", part=part, restart=begins))


def told(events: list[Event]) -> list[tuple[str, str, bool]]:
    return [
        (type(event).__name__, event.text, event.restart)
        for event in events
        if isinstance(event, (Chunk, ReasoningChunk))
    ]


async def told_by(buffer: EventBuffer) -> list[tuple[str, str, bool]]:
    buffer.emit(FAILED)
    return told(await read_all(buffer))


async def test_reasoning_that_waits_is_joined_to_reasoning_and_text_to_text() -> None:
    buffer = EventBuffer("r")
    think(buffer, "One ", begins=True)
    think(buffer, "and ")
    tell(buffer, "2", begins=True)
    think(buffer, "one.")
    tell(buffer, ".")
    assert await told_by(buffer) == [("ReasoningChunk", "One and one.", False), ("Chunk", "2.", False)]


async def test_blocks_of_reasoning_are_not_joined() -> None:
    buffer = EventBuffer("r")
    think(buffer, "One", begins=True)
    think(buffer, "", signature="s1")
    think(buffer, "Two")
    think(buffer, "", encrypted="x1")
    think(buffer, "Three")
    buffer.emit(FAILED)
    assert [event.part for event in await read_all(buffer) if isinstance(event, ReasoningChunk)] == [
        ReasoningPart("One", "anthropic", signature="s1"),
        ReasoningPart("Two", "anthropic", encrypted="x1"),
        ReasoningPart("Three", "anthropic"),
    ]


async def test_a_reader_that_keeps_up_gets_every_piece_of_the_reasoning() -> None:
    buffer = EventBuffer("r")
    heard = []
    for words in ("One ", "and one."):
        think(buffer, words, begins=words == "One ")
        heard.append(await read_one(buffer))
    assert told(heard) == [("ReasoningChunk", "One ", False), ("ReasoningChunk", "and one.", False)]


async def test_reasoning_begins_anew_after_reasoning_and_the_text_after_text() -> None:
    buffer = EventBuffer("r")
    think(buffer, "Wrong", begins=True)
    first = await read_one(buffer)
    think(buffer, "Right", begins=True)
    tell(buffer, "2", begins=True)
    assert told([first]) + await told_by(buffer) == [
        ("ReasoningChunk", "Wrong", False),
        ("ReasoningChunk", "Right", True),
        ("Chunk", "2", False),
    ]


async def test_a_restart_takes_the_place_of_reasoning_that_nobody_has_read() -> None:
    buffer = EventBuffer("r")
    think(buffer, "Wrong", begins=True)
    think(buffer, "Right", begins=True)
    assert await told_by(buffer) == [("ReasoningChunk", "Right", True)]


async def test_reasoning_that_a_retry_made_void_is_not_read_any_more() -> None:
    buffer = EventBuffer("r")
    think(buffer, "Wrong", begins=True)
    buffer.emit(
        ModelRetrying(stage="initial", model_name="a", attempt=1, wait=0.5, kind="connection", message="m")
    )
    think(buffer, "Right", begins=True)
    assert await told_by(buffer) == [("ReasoningChunk", "Right", True)]


async def test_an_empty_piece_of_reasoning_is_an_event_only_where_it_makes_others_void() -> None:
    buffer = EventBuffer("r")
    think(buffer, "", begins=True)
    think(buffer, "")
    assert not buffer.has_unread
    think(buffer, "Wrong", begins=True)
    await read_one(buffer)
    think(buffer, "", begins=True)
    assert await told_by(buffer) == [("ReasoningChunk", "", True)]


async def test_when_a_model_is_asked_again_its_reasoning_of_before_is_void() -> None:
    buffer = EventBuffer("r")
    started = ModelStarted(stage="initial", model_name="a")
    buffer.emit(started)
    think(buffer, "Wrong", begins=True)
    buffer.emit(started)  # the coordinator crashed, and the run began again
    tell(buffer, "2", begins=True)
    assert await told_by(buffer) == [("ReasoningChunk", "", True), ("Chunk", "2", False)]


async def test_what_an_earlier_execution_told_is_void_or_stays() -> None:
    before: list[Event] = [
        ReasoningChunk(stage="initial", model_name="a", part=ReasoningPart("Hm.")),
        Chunk(stage="initial", model_name="a", text="2"),
    ]
    same = EventBuffer("r", told=Told(before))
    same.emit(ModelStarted(stage="initial", model_name="a"))
    tell(same, "2", begins=True)
    assert await told_by(same) == []
    other = EventBuffer("r", told=Told(before))
    other.emit(ModelStarted(stage="initial", model_name="a"))
    tell(other, "3", begins=True)
    assert await told_by(other) == [("ReasoningChunk", "", True), ("Chunk", "3", True)]


async def test_reasoning_that_waits_takes_the_room_of_its_text() -> None:
    buffer = EventBuffer("r")
    think(buffer, "x", begins=True)
    for _ in range(100_000):
        think(buffer, "x")
    assert len(buffer._events) == 1
    assert await told_by(buffer) == [("ReasoningChunk", "x" * 100_001, False)]
