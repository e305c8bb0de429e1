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
from structlog.contextvars import bound_contextvars

import ultra
from ultra import BreakerPolicy, Limits, MultiLLMOrchestrator, Price, QuorumNotReached, Timeouts
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


def city(name: str) -> str:
    """Tell about a city."""
    return name


RUNS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "all settings": {"system": "S", "timeout": 60, "quorum": "all", "grace": 1, "samples": 2, "max_cost": 1},
    "a scope, without the cache": {"scope": "tenant", "use_cache": False},
    "tools": {"tools": [city], "tool_choice": "auto"},
    "a vote": {"strategy": "vote"},
    "the best of": {"strategy": "best_of"},
}

POLICIES: dict[str, Any] = {
    "limits": Limits(concurrency=2, requests_per_minute=60),
    "timeouts": Timeouts(attempt=9, first_token=5, idle=5),
    "breaker": BreakerPolicy(),
    "price": Price(input=1, output=1),
}


@pytest.mark.parametrize("policies", [{}, POLICIES], ids=["default policies", "all policies"])
@pytest.mark.parametrize("arguments", RUNS.values(), ids=[*RUNS])
@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_run_of_one_model(
    arguments: dict[str, Any], policies: dict[str, Any], *, streamed: bool
) -> None:
    probe = Probe(trio.lowlevel.current_task())
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("one", probe.client, **policies)
    with bound_contextvars(of="the caller"):  # which the lines of the log have, too
        async with orchestrator:
            if streamed:
                async with orchestrator.stream_responses("Q", **arguments) as run:
                    async for _ in run:
                        pass
            else:
                with pytest.raises(QuorumNotReached, match="the payload was written"):
                    await orchestrator.process_responses("Q", **arguments)
    assert 0 < len(probe.frames) <= MOST_FRAMES, "\n".join(probe.frames)
    assert any("ClientAdapter" in frame for frame in probe.frames)
    assert any(frame.startswith("strategies/") for frame in probe.frames)
