"""How well each model is, and why."""

from __future__ import annotations

import threading
from random import Random
from typing import TYPE_CHECKING

import pytest
import trio

from ultra import BreakerPolicy, ModelError, MultiLLMOrchestrator, OrchestratorClosed, RetryPolicy
from ultra.orchestrator.health import ModelHealth
from ultra.supervisor import RestartIntensity
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

ONCE = RetryPolicy(max_retries=0)


def orchestrator_of(*fakes: FakeModel, breaker: BreakerPolicy | None = None) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(
        cache_enabled=False,
        retry=ONCE,
        breaker=breaker,
        intensity=RestartIntensity(0, within=1),
        random=Random(1),
    )
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    return orchestrator


async def ask(orchestrator: MultiLLMOrchestrator, times: int = 1) -> ModelHealth:
    """Ask the model "fake" that often; how it is afterwards."""
    for _ in range(times):
        await orchestrator.process_responses("Q", stages=["initial"], quorum=1)
    return orchestrator.health()["fake"]


async def test_a_model_that_answers_is_up() -> None:
    async with orchestrator_of(FakeModel(), FakeModel(name="other")) as orchestrator:
        orchestrator.set_model_weight("other", 2)
        assert list(orchestrator.health()) == ["other", "fake"]
        assert await ask(orchestrator, 3) == ModelHealth(status="up")


async def test_a_model_whose_latest_request_failed_is_degraded_until_it_answers_again() -> None:
    fake = FakeModel(failures=[ConnectionError("no route to host")])
    async with orchestrator_of(fake, FakeModel(name="other")) as orchestrator:
        failed = await ask(orchestrator)
        assert failed.status == "degraded"
        assert "its latest request failed" in failed.reasons[0]
        assert "no route to host" in failed.reasons[0]

        recovered = await ask(orchestrator)
        assert (recovered.status, recovered.reasons) == ("degraded", ("1 of its latest 2 requests failed",))

        assert (await ask(orchestrator, 4)).status == "up"


@pytest.mark.parametrize("kind", ["auth", "quota"])
async def test_a_model_that_refuses_the_key_or_the_account_is_down(kind: str) -> None:
    fake = FakeModel(failures=[ModelError("not you", kind=kind)])  # type: ignore[arg-type]
    async with orchestrator_of(fake, FakeModel(name="other")) as orchestrator:
        health = await ask(orchestrator)

        assert health.status == "down"
        assert "not you" in health.reasons[0]


async def test_a_model_is_down_while_its_circuit_is_open_and_degraded_while_it_is_tried(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel(failures=[ConnectionError("away")] * 2)
    breaker = BreakerPolicy(consecutive_failures=2, cooldown=30)
    async with orchestrator_of(fake, FakeModel(name="other"), breaker=breaker) as orchestrator:
        health = await ask(orchestrator, 2)
        assert health.status == "down"
        assert health.reasons[0] == "its circuit is open for another 30.0 s"

        autojump_clock.jump(30)
        health = orchestrator.health()["fake"]
        assert health.status == "degraded"
        assert "half-open" in health.reasons[0]


async def test_requests_that_an_open_circuit_rejects_do_not_count_against_the_model(
    autojump_clock: MockClock,
) -> None:
    fake = FakeModel(
        failures=[ModelError("first words", kind="server"), ModelError("last words", kind="server")]
    )
    breaker = BreakerPolicy(consecutive_failures=2)
    async with orchestrator_of(fake, FakeModel(name="other"), breaker=breaker) as orchestrator:
        health = await ask(orchestrator, 5)

    assert "last words" in health.reasons[-1]


async def test_a_model_is_degraded_while_its_provider_asks_for_a_pause(autojump_clock: MockClock) -> None:
    fake = FakeModel(failures=[ModelError("slow down", kind="rate_limit", retry_after=20.0)])
    async with orchestrator_of(fake, FakeModel(name="other")) as orchestrator:
        health = await ask(orchestrator)

        assert health.status == "degraded"
        assert "the provider asked for a pause of another 20.0 s" in health.reasons


async def test_a_model_whose_actor_is_down_is_down_until_it_is_revived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with orchestrator_of(FakeModel(), FakeModel(name="other")) as orchestrator:
        model = orchestrator._registry.get("fake")
        monkeypatch.setattr(model.client, "call", None)  # a bug: the actor cannot call it
        health = await ask(orchestrator)
        assert health.status == "down"
        assert "crashed too often" in health.reasons[0]
        assert "NoneType" in health.reasons[0]

        monkeypatch.undo()
        orchestrator.revive_model("fake")
        assert (await ask(orchestrator)).status == "up"


async def test_health_tells_of_threads_that_still_run_though_their_calls_were_given_up() -> None:
    begun, go = threading.Event(), threading.Event()

    def client(prompt: str) -> str:
        begun.set()
        go.wait()
        return "late"

    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(orchestrator.get_model_response, "m", "Q")
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
        health = orchestrator.health()["m"]
        assert health.status == "degraded"
        assert "1 calls of its synchronous client were given up" in health.reasons[0]
        go.set()
        with trio.fail_after(5):
            while orchestrator.health()["m"].status != "up":  # noqa: ASYNC110 - the thread tells nobody else
                await trio.sleep(0.001)


async def test_an_orchestrator_that_was_closed_in_its_block_has_no_health() -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("m", FakeModel("yes"))
        await orchestrator.aclose()
        with pytest.raises(OrchestratorClosed, match="was closed"):
            orchestrator.health()


async def test_an_orchestrator_that_does_not_run_has_no_health() -> None:
    orchestrator = orchestrator_of(FakeModel())
    with pytest.raises(OrchestratorClosed, match="has no actors now"):
        orchestrator.health()


async def test_a_closed_orchestrator_is_not_advised_to_be_entered() -> None:
    async with orchestrator_of(FakeModel()) as orchestrator:
        pass
    for look in (orchestrator.health, orchestrator.tree):
        with pytest.raises(OrchestratorClosed, match=r"was closed.*make a new one"):
            look()


async def test_health_reads_as_a_mapping() -> None:
    async with orchestrator_of(FakeModel()) as orchestrator:
        assert dict(orchestrator.health()["fake"]) == {"status": "up", "reasons": ()}
