"""Several orchestrators, loops and threads, and the end of an orchestrator on asyncio."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.asyncio_clients import AT_ONCE, AsyncioClient, HangingClient, three, trio_threads
from helpers.event_loops import on_asyncio
from ultra import (
    MultiLLMOrchestrator,
    OrchestrationResult,
    OrchestratorClosed,
    OrchestratorInUse,
)

if TYPE_CHECKING:
    pass


# --- several orchestrators, loops and threads -------------------------------------------------------


@on_asyncio
async def test_two_orchestrators_live_on_one_loop() -> None:
    first, *_ = three()
    second, *_ = three()
    async with first, second:
        results = await asyncio.gather(first.process_responses("Q"), second.process_responses("Q"))
    assert [result.status for result in results] == ["success", "success"]


@on_asyncio
async def test_calls_without_an_entered_orchestrator_share_a_thread_and_their_limits() -> None:
    orchestrator, *_ = three()

    results = await asyncio.gather(
        *(orchestrator.process_responses(f"Q{n % 5}", stages=["initial"]) for n in range(20))
    )

    assert {result.status for result in results} == {"success"}
    assert orchestrator.get_metrics()["llama"].successes == 20
    assert trio_threads() == 0


def test_one_orchestrator_serves_the_loops_of_two_threads_and_each_client_its_own() -> None:
    orchestrator = MultiLLMOrchestrator()
    together = threading.Barrier(2)
    everywhere = AsyncioClient("everywhere")
    orchestrator.register_model("everywhere", everywhere)
    homes: dict[str, asyncio.AbstractEventLoop] = {}
    clients = {"one": AsyncioClient("one"), "two": AsyncioClient("two")}

    async def main(name: str) -> None:
        homes[name] = asyncio.get_running_loop()
        orchestrator.register_model(name, clients[name])
        await asyncio.to_thread(together.wait)
        for number in range(10):
            results = await orchestrator.process_responses(f"{name} {number}")
            assert len(results.initial_responses) == 3
        await asyncio.to_thread(together.wait)

    threads = [threading.Thread(target=asyncio.run, args=[main(name)]) for name in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert everywhere.loops == set(homes.values())
    assert {name: client.loops for name, client in clients.items()} == {n: {h} for n, h in homes.items()}
    assert orchestrator.get_metrics()["everywhere"].failures == 0
    assert trio_threads() == 0


@on_asyncio
async def test_who_joined_a_call_of_another_threads_loop_gets_an_answer_when_that_loop_ends() -> None:
    asked, joined = threading.Event(), threading.Event()
    threads: list[str] = []

    async def generate(prompt: str) -> str:
        threads.append(threading.current_thread().name)
        if len(threads) == 1:
            asked.set()
            await asyncio.sleep(3600)
        return "answer"

    async def lead() -> None:
        call = asyncio.create_task(orchestrator.get_model_response("one", "Q"))
        await asyncio.to_thread(joined.wait)
        call.cancel()
        await asyncio.wait([call])

    async def join() -> str:
        call = asyncio.create_task(orchestrator.get_model_response("one", "Q"))
        while orchestrator.get_metrics()["one"].joined == 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        joined.set()
        return (await call).content

    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE)
    await asyncio.to_thread(orchestrator.register_model, "one", generate)  # so it belongs to no loop
    async with orchestrator:
        thread = threading.Thread(target=lambda: asyncio.run(lead()), name="leader")
        thread.start()
        await asyncio.to_thread(asked.wait)
        assert await join() == "answer"
        await asyncio.to_thread(thread.join)

    assert threads == ["leader", threading.current_thread().name]


@on_asyncio
async def test_an_orchestrator_in_use_on_asyncio_is_refused_to_another_trio_run() -> None:
    orchestrator, *_ = three()

    async with orchestrator:
        with pytest.raises(OrchestratorInUse, match="in use in another thread's trio run"):
            await asyncio.to_thread(_ask_on_trio, orchestrator)
        assert (await orchestrator.process_responses("Q")).status == "success"


def _ask_on_trio(orchestrator: MultiLLMOrchestrator) -> OrchestrationResult:
    async def ask() -> OrchestrationResult:
        return await orchestrator.process_responses("Q", stages=["initial"])

    return trio.run(ask)


@on_asyncio
async def test_clients_that_belong_to_a_loop_answer_to_a_trio_run_in_another_thread() -> None:
    orchestrator, llama, *_ = three()

    results = await asyncio.to_thread(_ask_on_trio, orchestrator)

    assert results.status == "success"
    assert llama.loops == {asyncio.get_running_loop()}


async def test_an_orchestrator_in_use_on_trio_is_refused_to_asyncio() -> None:
    orchestrator = MultiLLMOrchestrator()

    async def ask() -> None:
        with pytest.raises(OrchestratorInUse, match="in use in another thread's trio run"):
            await orchestrator.process_responses("Q")
        assert "coordinator" in str(orchestrator.tree())
        orchestrator.register_model("two", AsyncioClient("two"))

    async with orchestrator:
        orchestrator.register_model("one", AsyncioClient("one"))
        await trio.to_thread.run_sync(asyncio.run, ask())
        assert list(orchestrator.health()) == ["one", "two"]


# --- the end ----------------------------------------------------------------------------------------


async def _ask_until_refused(orchestrator: MultiLLMOrchestrator) -> None:
    while True:
        await orchestrator.process_responses("Q", stages=["initial"], models=["other"])


@on_asyncio
async def test_closing_lets_calls_end_and_refuses_new_ones() -> None:
    gate, asked = asyncio.Event(), asyncio.Event()

    async def answer(prompt: str) -> str:
        asked.set()
        await gate.wait()
        return "late"

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("gated", answer)
    orchestrator.register_model("other", AsyncioClient())
    async with orchestrator:
        call = asyncio.create_task(orchestrator.get_model_response("gated", "Q"))
        await asked.wait()
        closing = asyncio.create_task(orchestrator.aclose(grace=60))
        with pytest.raises(OrchestratorClosed):
            await _ask_until_refused(orchestrator)
        assert not closing.done()
        gate.set()

        assert (await call).content == "late"
        await closing
        await orchestrator.aclose()


@on_asyncio
async def test_closing_breaks_off_what_does_not_end_in_time() -> None:
    orchestrator = MultiLLMOrchestrator()
    hanging = HangingClient()
    orchestrator.register_model("hanging", hanging)

    async with orchestrator:
        run = asyncio.create_task(orchestrator.process_responses("Q"))
        await hanging.asked.wait()
        await orchestrator.aclose(grace=0.01)
        with pytest.raises(OrchestratorClosed, match="before this call had ended"):
            await run

    assert hanging.story == ["cancelled", "ended"]


@on_asyncio
async def test_run_keeps_the_orchestrator_until_it_is_closed() -> None:
    orchestrator, *_ = three()
    started = asyncio.Event()

    class Status:
        def started(self, value: object = None) -> None:
            assert value is orchestrator
            started.set()

    running = asyncio.create_task(orchestrator.run(task_status=Status()))  # as anyio's task groups do
    await started.wait()
    assert (await orchestrator.process_responses("Q")).status == "success"

    await orchestrator.aclose()
    await running

    assert trio_threads() == 0
