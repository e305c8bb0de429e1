"""Models by name: what belongs to a registration, and what becomes of it while runs go on."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra import (
    AllAttemptsFailed,
    BadCall,
    BreakerPolicy,
    Limits,
    ModelError,
    ModelUnregistered,
    MultiLLMOrchestrator,
    RetryPolicy,
    Timeouts,
)
from ultra.messages.request import ModelRequest
from ultra.orchestrator.registry import ModelRegistry, Policies
from ultra.stores.memory import MemoryCache
from ultra.testing import FakeModel

AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)


def registry_of(**policies: Any) -> ModelRegistry:
    return ModelRegistry(MemoryCache(), Policies(**policies))


# --- registration -----------------------------------------------------------------------------------


def test_what_a_registration_leaves_open_is_as_for_all() -> None:
    common = RetryPolicy(max_retries=7)
    own = Limits(concurrency=1)
    registry = registry_of(retry=common, limits=Limits(concurrency=9))
    first = registry.register("first", FakeModel(), 1, Policies())
    second = registry.register("second", FakeModel(), 1, Policies(limits=own, timeouts=Timeouts(attempt=5)))
    assert (first.policy, second.policy) == (common, common)
    assert (first.limiter.limits.concurrency, second.limiter.limits) == (9, own)
    assert (first.timeouts.attempt, second.timeouts.attempt) == (120, 5)


def test_weights_order_models_and_ties_keep_the_order_of_registration() -> None:
    registry = registry_of()
    for name, weight in (("a", 1), ("b", 2.5), ("c", 1), ("d", 0)):
        registry.register(name, FakeModel(), weight, Policies())
    assert [model.name for model in registry.prioritized()] == ["b", "a", "c", "d"]
    assert [model.name for model in registry.prioritized(name for name in "dca")] == ["a", "c", "d"]
    registry.set_weight("d", 9)
    assert registry.prioritized()[0].name == "d"


def test_a_model_that_is_registered_once_more_takes_the_weight_and_keeps_all_else() -> None:
    registry = registry_of()
    client, own = FakeModel(), Policies(limits=Limits(concurrency=1))
    first = registry.register("a", client, 1, own)
    registry.register("b", FakeModel(), 2, Policies())
    assert registry.register("a", client, 3, Policies(limits=Limits(concurrency=1))) is first
    assert [(model.name, model.weight) for model in registry.prioritized()] == [("a", 3.0), ("b", 2.0)]


@pytest.mark.parametrize("policies", [Policies(), Policies(limits=Limits(concurrency=2))])
def test_a_name_is_taken_by_the_same_client_with_other_policies(policies: Policies) -> None:
    registry, client = registry_of(), FakeModel()
    registry.register("a", client, 1, Policies(limits=Limits(concurrency=1)))
    with pytest.raises(BadCall, match="'a' is already registered with another client or other policies"):
        registry.register("a", client, 2, policies)
    assert registry.get("a").weight == 1


@pytest.mark.parametrize("names", ["a", b"bytes", 7, [], ["a", "a"], ["x"], [7], [None]])
def test_a_list_of_models_that_makes_no_sense_is_refused_with_the_choices(names: Any) -> None:
    registry = registry_of()
    registry.register("a", FakeModel(), 1, Policies())
    with pytest.raises(BadCall, match="a"):
        registry.chosen(names)


@pytest.mark.parametrize("name", ["", " ", None, 7])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(BadCall, match="must be text"):
        registry_of().register(name, FakeModel(), 1, Policies())


def test_a_registration_that_is_refused_leaves_nothing_behind() -> None:
    registry = registry_of()
    for arguments in (("a", object(), 1), ("a", FakeModel(), -1)):
        with pytest.raises(BadCall):
            registry.register(*arguments, Policies())
    assert registry.prioritized() == []
    registry.register("a", FakeModel(), 1, Policies())


async def test_the_cache_of_a_name_belongs_to_what_the_client_says_it_is() -> None:
    class Named(FakeModel):
        provider = "openai"

        def __init__(self, model: str) -> None:
            super().__init__(name=model)
            self.model = model

    cache = MemoryCache()
    for model in ("small", "large"):
        async with MultiLLMOrchestrator(cache=cache) as orchestrator:
            orchestrator.register_model("gpt", Named(model))
            response = await orchestrator.get_model_response("gpt", "Q")
            assert (response.cached, response.content) == (False, f"{model}: Q")
    async with MultiLLMOrchestrator(cache=cache) as orchestrator:
        orchestrator.register_model("gpt", Named("small"))
        assert (await orchestrator.get_model_response("gpt", "Q")).cached


# --- while it runs ----------------------------------------------------------------------------------


async def test_a_model_that_comes_during_a_run_is_asked_by_the_next() -> None:
    gated, late = FakeModel(name="gated", gated=True), FakeModel(name="late")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("gated", gated)
    results = []

    async def go() -> None:
        results.append(await orchestrator.process_responses("Q", stages=["initial"]))

    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(go)
        await gated.asked.wait()
        orchestrator.register_model("late", late)
        gated.gate.set()
        await wait_all_tasks_blocked()
        await go()
    assert [list(result.initial_responses) for result in results] == [["gated"], ["gated", "late"]]


async def test_a_weight_counts_from_the_next_run_on() -> None:
    first, second = FakeModel(name="first", gated=True), FakeModel(name="second")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("first", first, weight=2)
    orchestrator.register_model("second", second, weight=1)
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        await first.asked.wait()
        orchestrator.set_model_weight("second", 3)
        first.gate.set()
        assert list((await run.result()).initial_responses) == ["first", "second"]
        again = await orchestrator.process_responses("Q", stages=["initial"])
        assert list(again.initial_responses) == ["second", "first"]


async def test_unregistering_lets_accepted_requests_be_answered() -> None:
    gated = FakeModel(name="gated", gated=True)
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("gated", gated)
    async with orchestrator, trio.open_nursery() as nursery:
        async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
            await gated.asked.wait()
            nursery.start_soon(orchestrator.unregister_model, "gated")
            await wait_all_tasks_blocked()
            assert orchestrator.get_prioritized_models() == []
            gated.gate.set()
            assert (await run.result()).status == "success"
        await wait_all_tasks_blocked()
        assert "gated" not in str(orchestrator.tree())


async def test_unregistering_takes_no_longer_than_its_grace(autojump_clock: MockClock) -> None:
    slow = FakeModel(name="slow", seconds=1000)
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("slow", slow)
    failures = []

    async def ask() -> None:
        try:
            await orchestrator.get_model_response("slow", "Q")
        except ModelUnregistered as error:
            failures.append(error)

    async with orchestrator, trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        begun = trio.current_time()
        await orchestrator.unregister_model("slow", grace=3)
        assert trio.current_time() == pytest.approx(begun + 3)
    assert slow.cancelled == len(failures) == 1


async def test_a_name_can_be_used_again_while_its_old_actor_still_drains() -> None:
    old, new = FakeModel(name="old", gated=True), FakeModel(name="new")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", old)
    async with orchestrator, trio.open_nursery() as nursery:
        async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
            await old.asked.wait()
            nursery.start_soon(orchestrator.unregister_model, "a")
            await wait_all_tasks_blocked()
            orchestrator.register_model("a", new)
            assert (await orchestrator.get_model_response("a", "Q")).content == "new: Q"
            old.gate.set()
            assert (await run.result()).initial_responses["a"].content == "old: Q"
        await wait_all_tasks_blocked()
        assert (await orchestrator.get_model_response("a", "Q")).content == "new: Q"


async def test_the_next_model_of_a_name_gets_no_answers_of_the_last_one() -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        for name in ("first", "second"):
            orchestrator.register_model("a", FakeModel(name=name))
            response = await orchestrator.get_model_response("a", "Q")
            assert (response.content, response.cached) == (f"{name}: Q", False)
            assert orchestrator.get_metrics()["a"].requests == 1
            await orchestrator.unregister_model("a")


async def test_unregistering_an_unknown_model_is_refused() -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        with pytest.raises(BadCall, match="unknown model 'a'; registered: none"):
            await orchestrator.unregister_model("a")


async def test_reviving_closes_the_circuit_too() -> None:
    fake = FakeModel(failures=[ModelError("down")] * 9)
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, breaker=BreakerPolicy(consecutive_failures=1))
    orchestrator.register_model("a", fake)
    async with orchestrator:
        for _ in range(2):
            with pytest.raises(AllAttemptsFailed):
                await orchestrator.get_model_response("a", "Q")
        assert len(fake.calls) == 3
        fake.recover()
        orchestrator.revive_model("a")
        assert (await orchestrator.get_model_response("a", "Q")).content == "fake: Q"
        with pytest.raises(BadCall, match="unknown model"):
            orchestrator.revive_model("b")


@pytest.mark.parametrize("seed", range(5))
async def test_models_come_and_go_while_runs_go_on_and_every_run_ends(
    seed: int, autojump_clock: MockClock
) -> None:
    random = Random(seed)
    orchestrator = MultiLLMOrchestrator(random=random, retry=AT_ONCE)
    ends = []

    async def answer(request: ModelRequest) -> str:
        await trio.sleep(random.choice([0, 0.01, 0.1, 2]))
        if random.random() < 0.2:
            raise ModelError("fickle")
        return f"I read {request.prompt}"

    async def come_and_go() -> None:
        for number in range(60):
            name, drain = random.choice("abcd"), random.random() < 0.5
            if name in orchestrator.get_prioritized_models():
                orchestrator.set_model_weight(name, number)
                await orchestrator.unregister_model(name, drain=drain, grace=1)
            else:
                orchestrator.register_model(name, FakeModel(answer), weight=random.random())
            await trio.sleep(random.random() * 0.1)

    async def go(number: int) -> None:
        await trio.sleep(random.random() * 5)
        try:
            result = await orchestrator.process_responses(f"Q{number % 5}", timeout=20)
        except (BadCall, RuntimeError) as error:
            ends.append(type(error).__name__)
        else:
            ends.append(result.status)

    orchestrator.register_model("always", FakeModel(answer))
    async with orchestrator:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_and_go)
            for number in range(40):
                nursery.start_soon(go, number)
        await wait_all_tasks_blocked()
        assert len(str(orchestrator.tree()).splitlines()) <= 3 + 2 * 5
    assert len(ends) == 40
    assert set(ends) <= {"success", "degraded", "QuorumNotReached"}


# --- connections ------------------------------------------------------------------------------------


class Connected(FakeModel):
    """Has connections that can be closed and opened again."""

    reopens = True

    def __init__(self, name: str = "connected", *, failure: Exception | None = None) -> None:
        super().__init__(name=name)
        self.closes = 0
        self.failure = failure

    async def aclose(self) -> None:
        self.closes += 1
        await trio.lowlevel.checkpoint()
        if self.failure is not None:
            raise self.failure


async def test_connections_are_closed_when_the_last_actor_that_uses_them_has_ended() -> None:
    client = Connected()
    orchestrator = MultiLLMOrchestrator(cache_enabled=False)
    orchestrator.register_model("a", client)
    await orchestrator.get_model_response("a", "Q")
    await orchestrator.get_model_response("a", "Q")
    assert client.closes == 2
    client.gate.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(orchestrator.get_model_response, "a", "slow")
        await wait_all_tasks_blocked()
        await orchestrator.get_model_response(FakeModel(), "Q")  # a tree of its own, with an actor for "a"
        assert client.closes == 2
        client.gate.set()
    assert client.closes == 3


async def test_connections_are_closed_with_the_registration_and_with_the_tree() -> None:
    first, second = Connected("first"), Connected("second")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("first", first)
    orchestrator.register_model("second", second)
    async with orchestrator:
        await orchestrator.process_responses("Q")
        await orchestrator.unregister_model("first")
        assert (first.closes, second.closes) == (1, 0)
    assert (first.closes, second.closes) == (1, 1)


async def test_connections_are_closed_though_the_orchestrator_is_cancelled() -> None:
    client = Connected()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", client)
    with trio.CancelScope() as scope:
        async with orchestrator:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert client.closes == 1


async def test_a_client_that_fails_to_close_or_never_does_stops_nobody(autojump_clock: MockClock) -> None:
    class Hanging(Connected):
        async def aclose(self) -> None:
            self.closes += 1
            await trio.sleep_forever()

    broken, hanging = Connected("broken", failure=OSError("gone")), Hanging("hanging")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("broken", broken)
    orchestrator.register_model("hanging", hanging)
    assert (await orchestrator.process_responses("Q")).status == "success"
    assert (broken.closes, hanging.closes) == (1, 1)


async def test_a_client_that_cannot_be_used_again_is_left_open_to_its_owner() -> None:
    class Once(Connected):
        reopens = False

    client = Once()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", client)
    await orchestrator.process_responses("Q")
    assert client.closes == 0


async def test_connections_are_closed_though_nobody_waited_for_the_end_of_their_model() -> None:
    clients = [Connected(name) for name in "abc"]
    orchestrator = MultiLLMOrchestrator()
    async with orchestrator, trio.open_nursery() as nursery:
        for client in clients:
            orchestrator.register_model(client.name, client)
            client.gate.clear()
        nursery.start_soon(orchestrator.get_model_response, "a", "Q")
        nursery.start_soon(orchestrator.get_model_response, "b", "Q")
        await wait_all_tasks_blocked()
        for name in "ab":
            with trio.CancelScope() as scope:
                scope.cancel()
                await orchestrator.unregister_model(name)
        clients[0].gate.set()
        await wait_all_tasks_blocked()
        await orchestrator.unregister_model("c")
        assert [client.closes for client in clients] == [1, 0, 1]
        clients[1].gate.set()
    assert [client.closes for client in clients] == [1, 1, 1]
