"""What a caller's own code for a run raises ends that run with an error, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio

from ultra import MultiLLMOrchestrator, Stage
from ultra.errors import StageFailed, StrategyFailed
from ultra.strategies import Answer, BestOf, RunContext
from ultra.testing import FakeModel


class PanicError(BaseException):
    """As pyo3's PanicException is."""


async def stray_cancelled() -> BaseException:
    with trio.move_on_after(0):
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            return error
    raise AssertionError


RAISED = [
    PanicError("index out of bounds"),
    SystemExit(2),
    asyncio.CancelledError(),
    GeneratorExit(),
    trio.run(stray_cancelled),
    BaseExceptionGroup("several", [PanicError("one"), ValueError("two")]),
]


def arguments(place: str, error: BaseException) -> dict[str, Any]:
    def fail(*_: object) -> Any:
        raise error

    class Failing:
        async def run(self, context: RunContext) -> Answer:
            with context.step("initial"):
                await context.ask_all(context.request)
                raise error

    places: dict[str, dict[str, Any]] = {
        "scorer": {"scorer": fail},
        "verifier": {"strategy": BestOf(verify=fail)},
        "strategy": {"strategy": Failing()},
        "prompt": {"stages": ["initial", Stage(name="mine", reads="initial", prompt=fail)]},
    }
    return places[place]


@pytest.mark.parametrize("run", [trio.run, lambda function: asyncio.run(function())], ids=["trio", "asyncio"])
@pytest.mark.parametrize("place", ["scorer", "verifier", "strategy", "prompt"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_it_ends_its_run_alone(run: Callable[[Any], None], place: str, error: BaseException) -> None:
    async def main() -> None:
        async with MultiLLMOrchestrator(**arguments(place, error)) as orchestrator:
            orchestrator.register_model("one", FakeModel("a"))
            orchestrator.register_model("two", FakeModel("b"))
            for _ in range(6):  # more often than a crashing actor may be restarted
                with pytest.raises((StageFailed, StrategyFailed)) as caught:
                    await orchestrator.process_responses("q")
                assert caught.value.__cause__ is error
            assert (await orchestrator.get_model_response("one", "q")).content == "a"

    await trio.to_thread.run_sync(run, main)


async def test_the_cancellation_of_a_run_is_no_failure_of_its_strategy() -> None:
    class Hanging:
        async def run(self, context: RunContext) -> Answer:
            await trio.sleep_forever()
            raise AssertionError

    async with MultiLLMOrchestrator(strategy=Hanging()) as orchestrator:
        orchestrator.register_model("one", FakeModel("a"))
        with trio.move_on_after(0) as scope:
            await orchestrator.process_responses("q")
        assert scope.cancelled_caught
