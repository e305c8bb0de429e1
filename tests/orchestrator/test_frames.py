"""How many frames of Ultra's own a question passes, from `process_responses` to the dialect that encodes it.

Each frame is something that a reader of a traceback has to understand. What is counted are the frames that
are there at once when the payload is written: of the caller, of the coordinator's handler, and of the model
actor's, each in a task of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

import ultra
from ultra import MultiLLMOrchestrator, QuorumNotReached
from ultra.clients import connect
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from trio.lowlevel import Task

MOST_FRAMES = 20

SOURCE = str(Path(ultra.__file__).parent)


def running() -> Iterator[FrameType]:
    """The frames of the current task, the innermost first; those of its loop belong to trio."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def waiting(task: Task) -> Iterator[FrameType]:
    """The frames of a task that waits, the outermost first."""
    awaited: Any = task.coro
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            yield frame
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)


def tasks(of: Task) -> Iterator[Task]:
    """A task, and all that run in nurseries below it."""
    yield of
    for nursery in of.child_nurseries:
        for child in nursery.child_tasks:
            yield from tasks(child)


def ours(frames: Iterator[FrameType]) -> list[str]:
    return [
        f"{Path(frame.f_code.co_filename).relative_to(SOURCE)}:{frame.f_lineno} {frame.f_code.co_qualname}"
        for frame in frames
        if frame.f_code.co_filename.startswith(SOURCE)
    ]


class Probe:
    """A client whose dialect tells, when it writes its payload, which frames there are.

    Args:
        caller: the task that waits for the run, or reads its events.
    """

    def __init__(self, caller: Task) -> None:
        self.client: Any = connect("openai:probe", api_key="none", base_url="http://localhost:1/v1")
        dialect: Any = self.client.dialect
        vars(dialect)["encode"] = self._write
        self.frames: list[str] = []
        self._caller = caller

    def _write(self, *_arguments: Any, **_options: Any) -> dict[str, Any]:
        root = trio.lowlevel.current_root_task()
        assert root is not None
        others = [ours(waiting(task)) for task in tasks(root)]
        (coordinator,) = [
            frames for frames in others if any("Coordinator.receive" in each for each in frames)
        ]
        self.frames = [*ours(waiting(self._caller)), *coordinator, *reversed(ours(running()))]
        raise ModelError("the payload was written", kind="bad_request")


def orchestrator_of(probe: Probe) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("one", probe.client)
    return orchestrator


async def test_a_plain_run() -> None:
    probe = Probe(trio.lowlevel.current_task())
    async with orchestrator_of(probe) as orchestrator:
        with pytest.raises(QuorumNotReached, match="the payload was written"):
            await orchestrator.process_responses("Q")
    assert 0 < len(probe.frames) <= MOST_FRAMES, "\n".join(probe.frames)


async def test_a_streamed_run() -> None:
    probe = Probe(trio.lowlevel.current_task())
    async with orchestrator_of(probe) as orchestrator, orchestrator.stream_responses("Q") as run:
        async for _ in run:
            pass
    assert 0 < len(probe.frames) <= MOST_FRAMES, "\n".join(probe.frames)
