"""Starting, keeping and ending an orchestrator on trio; what is under way meanwhile."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ultra import (
    BadCall,
    ModelResponse,
    ModelUnregistered,
    MultiLLMOrchestrator,
    OrchestrationResult,
    OrchestratorClosed,
    OrchestratorInUse,
    RetryPolicy,
)
from ultra.errors import ActorStopped
from ultra.messages.events import RunFailed
from ultra.orchestrator.lifespan import Lifespan
from ultra.stores.memory import MemoryCache
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock


class Call:
    """A call in a task of its own: what it came to."""

    def __init__(self, orchestrator: MultiLLMOrchestrator, model: str) -> None:
        self.orchestrator = orchestrator
        self.model = model
        self.response: ModelResponse | None = None
        self.error: Exception | None = None

    async def run(self) -> None:
        try:
            self.response = await self.orchestrator.get_model_response(self.model, "Q")
        except OrchestratorClosed as error:
            self.error = error


def orchestrator_of(*fakes: FakeModel) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=0), random=Random(1))
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    return orchestrator


# --- closing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("entered", [True, False])
async def test_closing_refuses_new_calls_and_lets_those_under_way_end(
    *, entered: bool, autojump_clock: MockClock
) -> None:
    gated = FakeModel(name="gated", gated=True)
    orchestrator = orchestrator_of(gated, FakeModel(name="other"))
    call = Call(orchestrator, "gated")
    async with trio.open_nursery() as nursery:
        if entered:
            await nursery.start(orchestrator.run)
        nursery.start_soon(call.run)
        await gated.asked.wait()
        nursery.start_soon(orchestrator.aclose, 60)
        await wait_all_tasks_blocked()

        with pytest.raises(OrchestratorClosed):
            await orchestrator.get_model_response("other", "Q")
        with pytest.raises(OrchestratorClosed):
            orchestrator.stream_responses("Q")
        with pytest.raises(OrchestratorClosed):
            orchestrator.register_model("late", FakeModel())
        gated.gate.set()

    assert call.response is not None
    assert call.error is None


@pytest.mark.parametrize("entered", [True, False])
async def test_closing_breaks_off_what_has_not_ended_in_time(
    *, entered: bool, autojump_clock: MockClock
) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator = orchestrator_of(slow)
    call = Call(orchestrator, "slow")
    async with trio.open_nursery() as nursery:
        if entered:
            await nursery.start(orchestrator.run)
        nursery.start_soon(call.run)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        await orchestrator.aclose(grace=30)

        assert trio.current_time() - begun == pytest.approx(30)

    assert slow.cancelled == 1
    assert "was closed before this call had ended" in str(call.error)
    assert call.error is not None
    assert call.error.__cause__ is not None


async def test_a_run_that_closing_breaks_off_ends_its_stream_with_that(autojump_clock: MockClock) -> None:
    orchestrator = orchestrator_of(FakeModel(name="slow", seconds=1000))
    async with orchestrator, orchestrator.stream_responses("Q") as run, trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.aclose, 1)
        events = [event async for event in run]
        last = events[-1]
        assert isinstance(last, RunFailed)
        assert last.error == "OrchestratorClosed"
        with pytest.raises(OrchestratorClosed):
            await run.result()


async def test_a_cancelled_closing_breaks_off_at_once(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator = orchestrator_of(slow)
    call = Call(orchestrator, "slow")
    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(call.run)
        await wait_all_tasks_blocked()
        begun = trio.current_time()
        with trio.move_on_after(5):
            await orchestrator.aclose(grace=60)
        assert trio.current_time() - begun == pytest.approx(5)

    assert isinstance(call.error, OrchestratorClosed)


async def test_closing_again_and_after_the_end_does_nothing() -> None:
    orchestrator = orchestrator_of(FakeModel())
    async with orchestrator:
        await orchestrator.aclose()
        await orchestrator.aclose()
    await orchestrator.aclose()

    unused = orchestrator_of(FakeModel())
    await unused.aclose()
    with pytest.raises(OrchestratorClosed):
        await unused.process_responses("Q")


@pytest.mark.parametrize("grace", [-1, float("nan"), "5", None, True])
async def test_a_grace_that_is_no_number_of_seconds_is_refused_and_closes_nothing(grace: object) -> None:
    orchestrator = orchestrator_of(FakeModel())
    with pytest.raises(BadCall, match="grace"):
        await orchestrator.aclose(grace)  # type: ignore[arg-type]
    assert (await orchestrator.process_responses("Q")).status == "success"


class NotedCache(MemoryCache):
    """Counts how often it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        await super().aclose()


async def test_a_cache_that_the_caller_made_is_not_closed() -> None:
    cache = NotedCache()
    orchestrator = MultiLLMOrchestrator(cache=cache)
    orchestrator.register_model("one", FakeModel())
    async with orchestrator:
        await orchestrator.process_responses("Q")
        await orchestrator.aclose()

    assert cache.closed == 0


# --- entering ---------------------------------------------------------------------------------------


async def test_an_orchestrator_whose_entering_was_cancelled_can_be_entered() -> None:
    orchestrator = orchestrator_of(FakeModel())
    with trio.CancelScope() as scope:
        scope.cancel()
        async with orchestrator:
            await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught

    fresh = orchestrator_of(FakeModel())
    async with fresh:
        with pytest.raises(OrchestratorInUse):
            await fresh.__aenter__()


async def test_entering_that_is_cancelled_while_stores_begin_leaves_nothing_behind() -> None:
    class NeverBegins(MemoryCache):
        async def keep_connected(self, *, task_status: object = None) -> None:
            del task_status
            began.set()
            try:
                await trio.sleep_forever()
            finally:
                ended.append(self)

    began, ended = trio.Event(), list[object]()
    orchestrator = MultiLLMOrchestrator(cache=NeverBegins())
    orchestrator.register_model("one", FakeModel())
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when, began, scope)
            async with orchestrator:
                pytest.fail("it was entered")
    assert scope.cancelled_caught
    assert len(ended) == 1

    async with orchestrator:
        assert (await orchestrator.process_responses("Q")).status == "success"


async def _cancel_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def test_a_cache_that_fails_to_close_keeps_no_trio_run_from_using_the_orchestrator() -> None:
    class BrokenCache(MemoryCache):
        async def aclose(self) -> None:
            raise OSError("disk full")

    orchestrator = orchestrator_of()
    lifespan = Lifespan(orchestrator._make_tree, BrokenCache())
    for _ in range(2):  # the second run would be refused if the first one still counted
        with pytest.raises(OSError, match="disk full"):
            trio.run(lifespan.stop, 0)


def test_an_orchestrator_serves_one_trio_run_after_the_other() -> None:
    fake = FakeModel()
    orchestrator = orchestrator_of(fake)

    first = trio.run(orchestrator.process_responses, "Q")
    second = trio.run(orchestrator.process_responses, "Q")

    assert (first.status, second.status) == ("success", "success")
    assert second.initial_responses["fake"].cached


async def test_an_orchestrator_in_use_is_refused_to_another_trio_run() -> None:
    orchestrator = orchestrator_of(FakeModel())

    async def ask() -> OrchestrationResult:
        return await orchestrator.process_responses("Q")

    async def look() -> None:
        orchestrator.tree()

    async with orchestrator:
        with pytest.raises(OrchestratorInUse, match="another thread's trio run"):
            await trio.to_thread.run_sync(trio.run, ask)
        with pytest.raises(OrchestratorInUse, match="another thread's trio run"):
            await trio.to_thread.run_sync(trio.run, look)
        assert "coordinator" in await trio.to_thread.run_sync(lambda: str(orchestrator.tree()))


# --- busy -------------------------------------------------------------------------------------------


async def test_models_come_and_go_and_change_weight_while_runs_go_on(autojump_clock: MockClock) -> None:
    orchestrator = orchestrator_of(FakeModel(name="steady", seconds=0.3))
    random = Random(7)
    results: list[OrchestrationResult] = []

    async def run(number: int) -> None:
        await trio.sleep(number * 0.05)
        results.append(await orchestrator.process_responses(f"Q{number}"))

    async def change() -> None:
        for number in range(60):
            name = f"guest {number % 4}"
            await trio.sleep(0.07)
            if name in orchestrator.get_prioritized_models():
                await orchestrator.unregister_model(name, drain=random.random() < 0.5)
            else:
                orchestrator.register_model(
                    name, FakeModel(name=name, seconds=0.2), weight=random.random() * 3
                )
            orchestrator.set_model_weight("steady", random.random() * 3)
            orchestrator.revive_model("steady")
            assert orchestrator.health()["steady"].status == "up"

    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(change)
        for number in range(80):
            nursery.start_soon(partial(run, number))

    assert len(results) == 80
    assert all(result.final_synthesis is not None for result in results)
    assert all("steady" in result.initial_responses for result in results)
    failures = {failure.error for result in results for failure in result.failures}
    assert failures <= {"ModelUnregistered"}


async def test_a_guest_that_left_has_no_actor_any_more() -> None:
    orchestrator = orchestrator_of(FakeModel())
    async with orchestrator:
        for _ in range(10):
            orchestrator.register_model("guest", FakeModel(name="guest"))
            await orchestrator.process_responses("Q")
            await orchestrator.unregister_model("guest")
        assert str(orchestrator.tree()).count("actor ") == 1


async def test_a_request_whose_model_is_unregistered_meanwhile_is_told_so() -> None:
    guest = FakeModel(name="guest", gated=True)
    orchestrator = orchestrator_of(FakeModel(name="steady"))
    failed: list[ModelUnregistered] = []

    async def ask() -> None:
        with pytest.raises(ModelUnregistered, match="Model 'guest' was unregistered before it had") as caught:
            await orchestrator.get_model_response("guest", "Q")
        failed.append(caught.value)

    async with orchestrator, trio.open_nursery() as nursery:
        orchestrator.register_model("guest", guest)
        nursery.start_soon(ask)
        async with orchestrator.stream_responses("Q") as run:
            await guest.asked.wait()
            await wait_all_tasks_blocked()
            await orchestrator.unregister_model("guest", drain=False, grace=0)
            result = await run.result()
    assert isinstance(failed[0].__cause__, ActorStopped)
    assert [(failure.stage, failure.error, failure.message) for failure in result.failures] == [
        ("initial", "ModelUnregistered", "Model 'guest' was unregistered before it had answered")
    ]
    assert result.final_synthesis == result.initial_responses["steady"]


async def test_a_request_that_comes_when_another_thread_has_unregistered_the_model_starts_no_actor() -> None:
    orchestrator = orchestrator_of(FakeModel(name="steady"), FakeModel(name="guest"))
    async with orchestrator:
        model = orchestrator._registry.get("guest")
        await orchestrator.unregister_model("guest")
        with pytest.raises(ModelUnregistered):
            orchestrator._lifespan.call_with_tree(lambda tree: tree.target(model))
        assert list(orchestrator.health()) == ["steady"]
        assert str(orchestrator.tree()).count("actor ") == 1


async def test_clients_that_do_not_close_are_given_up_together(autojump_clock: MockClock) -> None:
    class NeverCloses:
        reopens = True

        async def generate(self, prompt: str) -> str:
            return prompt

        async def aclose(self) -> None:
            await trio.sleep_forever()

    async with MultiLLMOrchestrator() as orchestrator:
        for number in range(20):
            orchestrator.register_model(f"one {number}", NeverCloses())
        orchestrator.register_model("several", [NeverCloses(), NeverCloses()])
        started = trio.current_time()
    assert trio.current_time() - started <= 5.0
