"""Clients that are asked without having been registered."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra import BadCall, MultiLLMOrchestrator
from ultra.orchestrator.unregistered_clients import MOST_KEPT
from ultra.testing import FakeModel


def actors(orchestrator: MultiLLMOrchestrator) -> int:
    return str(orchestrator.tree()).count("unregistered-")


async def test_a_client_is_remembered_with_its_answers() -> None:
    fake = FakeModel()
    async with MultiLLMOrchestrator() as orchestrator:
        assert not (await orchestrator.get_model_response(fake, "Q")).cached
        response = await orchestrator.get_model_response(fake, "Q")
        assert (response.cached, response.model_name) == (True, "unregistered-1")
        assert actors(orchestrator) == 1
    assert len(fake.calls) == 1


async def test_clients_that_look_alike_are_told_apart() -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        answers = [await orchestrator.get_model_response(FakeModel(name=str(n)), "Q") for n in range(3)]
    assert [answer.content for answer in answers] == ["0: Q", "1: Q", "2: Q"]


async def test_a_client_that_is_registered_is_asked_under_its_name() -> None:
    fake = FakeModel()
    async with MultiLLMOrchestrator() as orchestrator:
        await orchestrator.get_model_response(fake, "Q")
        orchestrator.register_model("known", fake)
        assert (await orchestrator.get_model_response(fake, "Q")).model_name == "known"


async def test_a_bounded_number_is_remembered_and_the_actors_of_the_others_end() -> None:
    fakes = [FakeModel(name=str(n)) for n in range(MOST_KEPT + 5)]
    async with MultiLLMOrchestrator() as orchestrator:
        for fake in fakes:
            await orchestrator.get_model_response(fake, "Q")
        assert actors(orchestrator) == MOST_KEPT
        assert len(orchestrator._registry.unregistered) == MOST_KEPT
        await orchestrator.get_model_response(fakes[-1], "Q")
        await orchestrator.get_model_response(fakes[0], "Q")
        assert actors(orchestrator) == MOST_KEPT
    assert (len(fakes[-1].calls), len(fakes[0].calls)) == (1, 2)


async def test_those_that_are_being_asked_are_not_forgotten() -> None:
    gated = FakeModel(gated=True)
    async with MultiLLMOrchestrator() as orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.get_model_response, gated, "Q")
        await wait_all_tasks_blocked()
        for number in range(MOST_KEPT + 5):
            await orchestrator.get_model_response(FakeModel(name=str(number)), "Q")
        assert actors(orchestrator) == MOST_KEPT + 1
        assert gated.cancelled == 0
        gated.gate.set()
        await wait_all_tasks_blocked()
        assert actors(orchestrator) == MOST_KEPT


async def test_after_a_rush_only_as_many_stay_as_are_remembered(autojump_clock: MockClock) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        async with trio.open_nursery() as nursery:
            for number in range(3 * MOST_KEPT):
                nursery.start_soon(
                    orchestrator.get_model_response, FakeModel(name=str(number), seconds=1), "Q"
                )
        assert actors(orchestrator) == MOST_KEPT


async def test_a_call_that_is_cancelled_counts_no_longer(autojump_clock: MockClock) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        for number in range(MOST_KEPT + 5):
            with trio.move_on_after(1):
                await orchestrator.get_model_response(FakeModel(name=str(number), seconds=10), "Q")
        await wait_all_tasks_blocked()
        assert actors(orchestrator) == MOST_KEPT
        assert len(orchestrator._registry.unregistered) == MOST_KEPT


async def test_without_a_running_tree_they_are_remembered_too() -> None:
    fake = FakeModel()
    orchestrator = MultiLLMOrchestrator()
    await orchestrator.get_model_response(fake, "Q")
    assert (await orchestrator.get_model_response(fake, "Q")).cached


@pytest.mark.parametrize("client", [None, 7, object(), FakeModel])
async def test_what_cannot_be_asked_is_refused_and_not_remembered(client: Any) -> None:
    orchestrator = MultiLLMOrchestrator()
    with pytest.raises(BadCall, match="a client must"):
        await orchestrator.get_model_response(client, "Q")
    assert len(orchestrator._registry.unregistered) == 0
