"""Several orchestrators that share their models, as the processes of one service do."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from ultra import BreakerPolicy, Hedge, Limits, ModelError, MultiLLMOrchestrator, RetryPolicy
from ultra.errors import AllAttemptsFailed
from ultra.messages.results import Completion, Usage
from ultra.stores import MemorySharedModels
from ultra.stores.shared_contract import SharedUnavailable
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ultra.stores import SharedModels


class Model:
    """Answers after `seconds`, and notes when it was called by whom; it fails while `failing` says how."""

    def __init__(self, seconds: float = 0.1, tokens: int = 0) -> None:
        self.seconds = seconds
        self.tokens = tokens
        self.calls: list[tuple[float, int]] = []
        self.failing: ModelError | None = None

    def for_replica(self, number: int) -> Any:
        async def generate(prompt: str) -> Completion:
            self.calls.append((trio.current_time(), number))
            await trio.sleep(self.seconds)
            if self.failing is not None:
                raise self.failing
            usage = Usage(self.tokens, 0) if self.tokens else None
            return Completion(f"of {prompt}", usage=usage, finish_reason="stop")

        return generate


@asynccontextmanager
async def replicas_of(
    model: Model, stores: list[Any], *, cache: bool = False, **policies: Any
) -> AsyncIterator[list[MultiLLMOrchestrator]]:
    orchestrators = []
    for number, store in enumerate(stores):
        orchestrator = MultiLLMOrchestrator(
            shared=store, cache_enabled=cache, retry=RetryPolicy(max_retries=0)
        )
        orchestrator.register_model("m", model.for_replica(number), **policies)
        orchestrators.append(orchestrator)
    async with trio.open_nursery() as nursery:
        for orchestrator in orchestrators:
            await nursery.start(orchestrator.run)
        yield orchestrators
        nursery.cancel_scope.cancel()


def shared(count: int) -> list[MemorySharedModels]:
    first = MemorySharedModels()
    return [first, *(MemorySharedModels(first) for _ in range(count - 1))]


async def ask(orchestrator: MultiLLMOrchestrator, prompt: str = "?", **given: Any) -> str:
    return str(await orchestrator.get_model_response("m", prompt, **given))


async def ask_often(orchestrators: list[MultiLLMOrchestrator], counts: list[int]) -> None:
    async with trio.open_nursery() as nursery:
        for orchestrator, count in zip(orchestrators, counts, strict=True):
            for number in range(count):
                nursery.start_soon(ask, orchestrator, f"{id(orchestrator)} {number}")


def most_within(calls: list[tuple[float, int]], seconds: float) -> int:
    times = sorted(time for time, _ in calls)
    return max(sum(start <= time < start + seconds for time in times) for start in times)


async def test_replicas_keep_to_one_rate_together_and_none_is_served_less(autojump_clock: MockClock) -> None:
    model = Model()
    limits = Limits(requests_per_minute=60, concurrency=None)
    async with replicas_of(model, shared(3), limits=limits) as orchestrators:
        await ask_often(orchestrators, [100, 40, 40])
    assert len(model.calls) == 180
    assert most_within(model.calls, 60) <= 2 * 60 + 1
    assert most_within(model.calls[60:], 30) <= 30 + 1
    served = Counter(number for _, number in model.calls[60:114])
    assert max(served.values()) - min(served.values()) <= 3, served


async def test_tokens_that_were_used_more_count_for_all(autojump_clock: MockClock) -> None:
    model = Model(tokens=1000)
    limits = Limits(tokens_per_minute=6000)
    async with replicas_of(model, shared(2), limits=limits) as [one, other]:
        for _ in range(3):
            await ask(one)
        started = trio.current_time()
        for _ in range(5):
            await ask(other)
        waited = trio.current_time() - started
    assert waited >= 10  # without the first three, it would take no time


async def test_who_waits_for_its_turn_and_leaves_gives_it_back(autojump_clock: MockClock) -> None:
    model = Model(seconds=0)
    limits = Limits(requests_per_minute=1)
    async with replicas_of(model, shared(2), limits=limits) as [one, other]:
        await ask(one)
        with trio.move_on_after(1):
            await ask(one, "another")
        started = trio.current_time()
        await ask(other)
        assert trio.current_time() - started == pytest.approx(59, abs=0.1)


async def test_a_call_that_would_wait_for_too_long_is_refused_and_takes_nothing(
    autojump_clock: MockClock,
) -> None:
    model = Model(seconds=0)
    limits = Limits(requests_per_minute=1, max_wait=5)
    async with replicas_of(model, shared(2), limits=limits) as [one, other]:
        await ask(one)
        for _ in range(3):
            with pytest.raises(AllAttemptsFailed, match="its turn would come in 60"):
                await ask(other)
        await trio.sleep(56)
        await ask(other)
    assert len(model.calls) == 2


class Failing(MemorySharedModels):
    """A view that can be out of order: it raises, or does not answer at all."""

    fails = False
    hangs = False

    async def reserve(self, *given: Any, **owed: Any) -> Any:
        await self._try()
        return await super().reserve(*given, **owed)

    async def begin(self, key: bytes) -> bool:
        await self._try()
        return await super().begin(key)

    async def _try(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        if self.fails:
            raise SharedUnavailable("it does not work")


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_without_the_store_each_keeps_to_its_part_of_the_rate_and_the_log_says_so(
    how: str, autojump_clock: MockClock
) -> None:
    model = Model(seconds=0)
    stores = [Failing()]
    stores.append(Failing(stores[0]))
    limits = Limits(requests_per_minute=60, concurrency=None)
    async with replicas_of(model, stores, limits=limits) as orchestrators:
        await ask_often(orchestrators, [30, 30])
        await trio.sleep(70)  # all is refilled
        for store in stores:
            setattr(store, how, True)
        before = len(model.calls)
        with structlog.testing.capture_logs() as logs:
            await ask_often(orchestrators, [60, 60])
            for store in stores:
                setattr(store, how, False)
            await ask_often(orchestrators, [90, 90])
    for seconds in (1, 5, 20, 60, 120):
        assert most_within(model.calls[before:], seconds) <= 60 + seconds + 1
    told = [entry for entry in logs if entry["event"].startswith("shared limits")]
    assert {entry["event"] for entry in told} == {
        "shared limits unavailable",
        "shared limits available again",
    }
    assert {entry["replicas"] for entry in told if "replicas" in entry} == {2}


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_no_answer_waits_for_the_store_longer_than_a_bound(how: str, autojump_clock: MockClock) -> None:
    model = Model(seconds=0)
    store = Failing()
    setattr(store, how, True)
    async with replicas_of(model, [store], cache=True, limits=Limits(requests_per_minute=6000)) as [one]:
        started = trio.current_time()
        for number in range(20):
            await ask(one, f"{number}")
        assert trio.current_time() - started <= 2.1  # once, and then it is not asked for a while


async def test_a_pause_that_a_provider_wants_holds_for_all(autojump_clock: MockClock) -> None:
    model = Model(seconds=0)
    async with replicas_of(model, shared(2)) as [one, other]:
        model.failing = ModelError("slow down", kind="rate_limit", retryable=True, retry_after=20.0)
        with pytest.raises(AllAttemptsFailed):
            await ask(one)
        model.failing = None
        started = trio.current_time()
        await ask(other)
        assert 20 <= trio.current_time() - started < 26


async def test_a_replica_that_comes_later_keeps_to_a_pause_that_still_holds(
    autojump_clock: MockClock,
) -> None:
    model = Model(seconds=0)
    stores = shared(2)
    async with replicas_of(model, stores[:1]) as [one]:
        model.failing = ModelError("slow down", kind="rate_limit", retryable=True, retry_after=20.0)
        with pytest.raises(AllAttemptsFailed):
            await ask(one)
        model.failing = None
        await trio.sleep(5)
        async with replicas_of(model, stores[1:]) as [late]:
            started = trio.current_time()
            await ask(late)
            assert 15 <= trio.current_time() - started < 21


async def test_a_circuit_that_opens_is_open_for_all_and_closes_for_all(autojump_clock: MockClock) -> None:
    model = Model(seconds=0)
    breaker = BreakerPolicy(consecutive_failures=2, cooldown=10.0)
    async with replicas_of(model, shared(3), breaker=breaker) as [one, other, third]:
        model.failing = ModelError("down", kind="server", retryable=False)
        for _ in range(2):
            with pytest.raises(AllAttemptsFailed):
                await ask(one)
        for replica in (other, third):
            with pytest.raises(AllAttemptsFailed, match="circuit"):
                await ask(replica)
        assert len(model.calls) == 2
        await trio.sleep(10.1)
        with pytest.raises(AllAttemptsFailed, match="down"):  # the probe
            await ask(other)
        with pytest.raises(AllAttemptsFailed, match="circuit"):
            await ask(one)
        await trio.sleep(10.1)
        with pytest.raises(AllAttemptsFailed, match="circuit"):  # after a failed probe, twice as long
            await ask(one)
        model.failing = None
        await trio.sleep(10)
        await ask(third)
        assert one._registry.get("m").breaker.state == "closed"
        await ask(one)
        await ask(other)


async def test_the_same_request_is_asked_once_while_it_is_under_way(autojump_clock: MockClock) -> None:
    model = Model(seconds=5)
    answers: list[str] = []
    async with replicas_of(model, shared(3), cache=True) as orchestrators:

        async def one(orchestrator: MultiLLMOrchestrator) -> None:
            answers.append(await ask(orchestrator))

        async with trio.open_nursery() as nursery:
            for orchestrator in orchestrators:
                nursery.start_soon(one, orchestrator)
        assert len(model.calls) == 1
        for orchestrator in orchestrators:  # each has kept the answer
            await ask(orchestrator)
    assert answers == ["of ?"] * 3
    assert len(model.calls) == 1


async def test_other_tenants_other_samples_and_requests_without_the_cache_are_asked_anew(
    autojump_clock: MockClock,
) -> None:
    model = Model(seconds=5)
    async with replicas_of(model, shared(2), cache=True) as [one, other], trio.open_nursery() as nursery:

        async def ask_as(orchestrator: MultiLLMOrchestrator, **given: Any) -> None:
            await ask(orchestrator, **given)

        nursery.start_soon(lambda: ask_as(one, scope="a"))
        nursery.start_soon(lambda: ask_as(other, scope="b"))
        nursery.start_soon(lambda: ask_as(one, scope="a", use_cache=False))
        nursery.start_soon(lambda: ask_as(other, scope="a", use_cache=False))
    assert len(model.calls) == 4


async def test_when_the_one_that_asks_dies_another_asks(autojump_clock: MockClock) -> None:
    model = Model(seconds=5)
    stores = shared(2)
    async with replicas_of(model, stores[1:], cache=True) as [other], trio.open_nursery() as nursery:
        async with replicas_of(model, stores[:1], cache=True) as [one], trio.open_nursery() as asking:
            asking.start_soon(ask, one)
            await trio.sleep(1)
            nursery.start_soon(ask, other)
            await trio.sleep(1)
            assert len(model.calls) == 1
            asking.cancel_scope.cancel()
        await trio.sleep(0.1)
        assert len(model.calls) == 2


async def test_a_call_that_fails_is_made_again_by_the_one_that_waited(autojump_clock: MockClock) -> None:
    model = Model(seconds=1)
    model.failing = ModelError("down", kind="server", retryable=False)
    failed: list[str] = []
    async with replicas_of(model, shared(3), cache=True) as orchestrators:

        async def one(orchestrator: MultiLLMOrchestrator) -> None:
            try:
                await ask(orchestrator)
            except AllAttemptsFailed as error:
                failed.append(str(error))

        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for orchestrator in orchestrators:
                nursery.start_soon(one, orchestrator)
    assert len(failed) == 3
    assert len(model.calls) == 3
    assert trio.current_time() - started <= 3.5  # nobody waits for more than two others


async def test_who_leaves_while_another_makes_its_call_leaves_at_once(autojump_clock: MockClock) -> None:
    model = Model(seconds=100)
    async with replicas_of(model, shared(2), cache=True) as [one, other], trio.open_nursery() as nursery:
        nursery.start_soon(ask, one)
        await trio.sleep(1)
        started = trio.current_time()
        with trio.move_on_after(2):
            await ask(other)
        assert trio.current_time() - started <= 2.1
        nursery.cancel_scope.cancel()


async def test_a_hedge_takes_its_part_of_the_shared_rate(autojump_clock: MockClock) -> None:
    slow, model = Model(seconds=10), Model(seconds=0)
    limits = Limits(requests_per_minute=3)
    stores = shared(2)
    orchestrator = MultiLLMOrchestrator(shared=stores[0], cache_enabled=False)
    orchestrator.register_model(
        "m", [slow.for_replica(0), model.for_replica(0)], limits=limits, hedge=Hedge(1.0)
    )
    async with orchestrator:
        started = trio.current_time()
        assert await ask(orchestrator) == "of ?"
        assert trio.current_time() - started <= 1.1
        async with replicas_of(model, stores[1:], limits=limits) as [_]:
            reserved = await stores[1].reserve("m", _rates(limits), 0, -1.0)
        assert reserved.wait == pytest.approx(0, abs=0.1)
        assert len(slow.calls) == len(model.calls) == 1
        await ask(orchestrator)  # the third: for its hedge there is nothing left
        assert (len(slow.calls), len(model.calls)) == (2, 1)


def _rates(limits: Limits) -> Any:
    from ultra.stores.shared_contract import ModelRates  # noqa: PLC0415 - for one test

    return ModelRates(limits.requests_per_minute, limits.tokens_per_minute)


async def test_a_model_that_is_unregistered_hears_nothing_more(autojump_clock: MockClock) -> None:
    store: SharedModels = MemorySharedModels()
    orchestrator = MultiLLMOrchestrator(shared=store)
    orchestrator.register_model("m", FakeModel("yes"))
    async with orchestrator:
        await orchestrator.unregister_model("m")
        assert store._listeners._listeners == {}  # type: ignore[attr-defined]
