"""Runs whose coordinator does not answer end all the same, a little after their deadline."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from helpers.run_events import assert_well_formed, read_all
from ultra import MultiLLMOrchestrator
from ultra.actors.coordinator.messages import GIVEN_UP_AFTER
from ultra.errors import DeadlineExceeded
from ultra.faults import FaultPlan
from ultra.messages.events import RunFailed
from ultra.testing import FakeModel

UNHEARD = ["hang", "drop"]


def orchestrator_of(fault: str) -> MultiLLMOrchestrator:
    plan = FaultPlan().add(fault, "/coordinator", times=1)
    orchestrator = MultiLLMOrchestrator(faults=plan)
    orchestrator.register_model("a", FakeModel(name="a"))
    return orchestrator


@pytest.mark.parametrize("fault", UNHEARD)
async def test_a_run_of_which_nothing_is_heard_is_given_up_after_its_deadline(
    fault: str, autojump_clock: MockClock
) -> None:
    async with orchestrator_of(fault) as orchestrator:
        began = trio.current_time()
        with pytest.raises(DeadlineExceeded, match="The run has 5 s in all, and nothing was heard of it"):
            await orchestrator.process_responses("Q", timeout=5)

        assert trio.current_time() - began == pytest.approx(5 + GIVEN_UP_AFTER)
        assert (await orchestrator.process_responses("Q", timeout=5))["status"] == "success"


@pytest.mark.parametrize("fault", UNHEARD)
async def test_actors_that_were_started_for_a_run_end_with_it_when_it_is_given_up(
    fault: str, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(DeadlineExceeded):
        await orchestrator_of(fault).process_responses("Q", timeout=5)
    assert trio.current_time() - began == pytest.approx(5 + GIVEN_UP_AFTER)


@pytest.mark.parametrize("fault", UNHEARD)
async def test_a_stream_of_which_nothing_is_heard_has_a_last_event_too(
    fault: str, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with orchestrator_of(fault) as orchestrator:
        async with orchestrator.stream_responses("Q", timeout=5) as run:
            events = await read_all(run)
            with pytest.raises(DeadlineExceeded, match="nothing was heard"):
                await run.result()
        assert trio.current_time() - began == pytest.approx(5 + GIVEN_UP_AFTER)
        [last] = events
        assert isinstance(last, RunFailed)
        assert last.error == "DeadlineExceeded"

        async with orchestrator.stream_responses("Q", timeout=5) as run:
            assert_well_formed(await read_all(run))


@pytest.mark.parametrize("fault", UNHEARD)
async def test_an_orchestrator_does_not_wait_for_the_deadline_of_a_stream_that_was_left(
    fault: str, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    async with orchestrator_of(fault) as orchestrator, orchestrator.stream_responses("Q", timeout=500):
        await trio.sleep(1)
    assert trio.current_time() - began == pytest.approx(1)
