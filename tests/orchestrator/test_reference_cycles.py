"""A run that has ended is freed at once: it waits for no garbage collector, and neither does its question."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from ultra import BestOf, MultiLLMOrchestrator, Tool, Vote
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra import Answer, RunContext, Strategy


class Watching:
    """Lets a strategy run, and the test see whether its run is still in memory."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self.seen: list[weakref.ref[RunContext]] = []

    async def run(self, context: RunContext) -> Answer:
        self.seen.append(weakref.ref(context))
        return await self._strategy.run(context)


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


TOOL = Tool("weather")


@pytest.mark.parametrize("tools", [None, [TOOL]])
@pytest.mark.parametrize("strategy", [Vote(), BestOf()])
async def test_a_run_that_ended_is_in_no_cycle(strategy: Strategy, tools: list[Tool] | None) -> None:
    watching = Watching(strategy)
    orchestrator = MultiLLMOrchestrator(strategy=watching, judge="a")
    for name in "ab":
        orchestrator.register_model(name, FakeModel("Paris"))
    async with orchestrator:
        for number in range(5):
            await orchestrator.process_responses(f"Question {number}?", tools=tools)
        assert [each() is None for each in watching.seen[:-1]] == [True] * 4
