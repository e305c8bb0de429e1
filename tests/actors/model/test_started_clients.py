"""Clients that start and end with their actor, and whose death is its crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.model_actors import Asker, ask_for, assert_all_accounted, register, start
from ultra import MultiLLMOrchestrator
from ultra.actors.model.started_actor import ClientDied, StartedModelActor
from ultra.actors.model.started_clients import StartedClients
from ultra.errors import (
    ActorCrashed,
    ActorDown,
    AllAttemptsFailed,
    ClientCrashed,
    ModelError,
    QuorumNotReached,
)
from ultra.supervisor import ActorSystem
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from ultra.actors.model.registered import RegisteredModel
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion


class Hosted(FakeModel):
    """A client with a life: `log` tells of it; it is ready when the test says so, and dies when it does."""

    def __init__(
        self, answers: str = "Paris.", *, name: str = "hosted", ready: bool = True, gated: bool = False
    ) -> None:
        super().__init__(answers, name=name, gated=gated)
        self.log: list[str] = []
        self.ready = trio.Event()
        if ready:
            self.ready.set()
        self.crash: ClientCrashed | None = None
        self.refuses_to_start = 0
        self.deaths: list[Callable[[ClientCrashed], None]] = []

    async def start_with_actor(
        self, on_crash: Callable[[ClientCrashed], None]
    ) -> Callable[[], Awaitable[None]]:
        await trio.lowlevel.checkpoint()
        if self.refuses_to_start:
            self.refuses_to_start -= 1
            raise ClientCrashed("no machine")
        self.log.append("started")
        self.crash = None
        self.deaths.append(on_crash)
        return self._end

    async def _end(self) -> None:
        await trio.lowlevel.checkpoint()
        self.log.append("ended")

    async def until_ready(self) -> None:
        await self.ready.wait()

    def die(self) -> None:
        self.deaths[-1](ClientCrashed("it was killed"))

    async def respond(self, request: ModelRequest) -> Completion:
        completion = await super().respond(request)
        if self.crash is not None:
            raise self.crash
        return completion


def registered(*clients: Hosted) -> RegisteredModel:
    model = register(clients[0])
    model.started = StartedClients.among(clients)
    return model


async def test_a_client_is_started_before_the_first_call_and_ended_with_its_actor() -> None:
    client = Hosted()
    model = registered(client)

    async with ActorSystem() as system:
        response = await start(system, model, StartedModelActor).ask(ask_for())
        assert client.log == ["started"]

    assert response.content == "Paris."
    assert client.log == ["started", "ended"]


async def test_requests_wait_until_the_client_is_ready_and_the_timeouts_of_calls_begin_then(
    autojump_clock: MockClock,
) -> None:
    client = Hosted(ready=False)
    model = registered(client)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        asker = Asker(nursery, start(system, model, StartedModelActor), ask_for())
        await trio.sleep(model.timeouts.attempt * 10)
        assert client.calls == []
        client.ready.set()
    assert asker.text == "Paris."
    assert model.metrics.snapshot().attempts == 1


async def test_an_asker_that_goes_away_while_the_client_gets_ready_costs_no_call() -> None:
    client = Hosted(ready=False)
    model = registered(client)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        asker = Asker(nursery, start(system, model, StartedModelActor), ask_for())
        await wait_all_tasks_blocked()
        asker.scope.cancel()
        await wait_all_tasks_blocked()
        client.ready.set()
        await wait_all_tasks_blocked()
    assert client.calls == []
    assert model.metrics.snapshot().cancelled == 1
    assert_all_accounted(model.metrics.snapshot())


async def test_answers_from_the_cache_need_no_client() -> None:
    client = Hosted()
    model = registered(client)
    async with ActorSystem() as system:
        ref = start(system, model, StartedModelActor)
        await ref.ask(ask_for())
        client.ready = trio.Event()
        assert (await ref.ask(ask_for())).cached


async def test_the_death_of_an_idle_client_restarts_the_actor_once() -> None:
    client = Hosted()
    model = registered(client)
    async with ActorSystem() as system:
        ref = start(system, model, StartedModelActor)
        await ref.ask(ask_for())
        client.die()
        client.die()  # told twice
        await wait_all_tasks_blocked()
        assert client.log == ["started", "ended", "started"]
        snapshot = ref.snapshot()
        assert snapshot.restarts == 1
        assert snapshot.last_error == "ClientCrashed: it was killed"
        assert (await ref.ask(ask_for("again"))).content == "Paris."


async def test_the_death_of_an_earlier_incarnation_is_ignored() -> None:
    client = Hosted()
    async with ActorSystem() as system:
        ref = start(system, registered(client), StartedModelActor)
        await ref.ask(ask_for())
        ref.tell(ClientDied(incarnation=-1))
        await wait_all_tasks_blocked()
        assert ref.snapshot().restarts == 0


async def test_a_client_that_breaks_down_in_a_call_crashes_the_actor_and_the_call_is_made_again() -> None:
    client = Hosted(gated=True)
    model = registered(client)
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        ref = start(system, model, StartedModelActor)
        asker = Asker(nursery, ref, ask_for())
        await wait_all_tasks_blocked()
        client.crash = ClientCrashed("it was killed")
        client.gate.set()
        await wait_all_tasks_blocked()
        assert ref.snapshot().restarts == 1
    assert asker.text == "Paris."
    assert [call.outcome for call in client.calls] == ["answered", "answered"]
    metrics = model.metrics.snapshot()
    assert (metrics.attempts, metrics.retries) == (2, 0)
    assert_all_accounted(metrics)


async def test_a_request_that_kills_every_client_ends_with_an_error_that_says_so() -> None:
    class Fragile(Hosted):
        async def respond(self, request: ModelRequest) -> Completion:
            if request.prompt == "die":
                raise ClientCrashed("it was killed")
            return await super().respond(request)

    client = Fragile()
    async with ActorSystem() as system:
        ref = start(system, registered(client), StartedModelActor)
        with pytest.raises(ActorCrashed, match=r"2 deliveries.*it was killed"):
            await ref.ask(ask_for("die"))
        assert (await ref.ask(ask_for("live"))).content == "Paris."


async def test_any_client_may_say_that_it_has_broken_down() -> None:
    model = register(FakeModel([ClientCrashed("the library is in a bad state"), "Paris."]))
    async with ActorSystem() as system:
        ref = start(system, model)
        assert (await ref.ask(ask_for())).content == "Paris."
        assert ref.snapshot().restarts == 1
    assert model.breaker.statistics().consecutive_failures == 0


async def test_a_start_that_fails_is_a_crash_and_is_tried_again() -> None:
    client = Hosted()
    client.refuses_to_start = 2
    async with ActorSystem() as system:
        ref = start(system, registered(client), StartedModelActor)
        assert (await ref.ask(ask_for())).content == "Paris."
        assert ref.snapshot().restarts == 2


async def test_of_several_clients_those_that_were_started_are_ended_if_one_fails_to_start() -> None:
    first, second = Hosted(), Hosted()
    second.refuses_to_start = 1
    async with ActorSystem() as system:
        ref = start(system, registered(first, second), StartedModelActor)
        assert (await ref.ask(ask_for())).content == "Paris."
    assert first.log == ["started", "ended", "started", "ended"]
    assert second.log == ["started", "ended"]


async def test_objects_that_make_up_every_attribute_are_not_started() -> None:
    class Proxy:
        def __getattr__(self, name: str) -> object:
            return lambda *_: None

    assert StartedClients.among([Proxy(), FakeModel()]) is None


# --- behind an orchestrator --------------------------------------------------------------------------


@pytest.fixture
def clients() -> tuple[Hosted, Hosted]:
    return Hosted("From the slow one.", name="slow", ready=False), Hosted("From the other.", name="other")


async def test_a_client_that_takes_long_to_get_ready_holds_up_no_other_model(
    autojump_clock: MockClock,
    clients: tuple[Hosted, Hosted],
) -> None:
    slow, other = clients
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("slow", slow)
    orchestrator.register_model("other", other)
    async with orchestrator:
        with trio.fail_after(1):
            results = await orchestrator.process_responses(prompt="?", stages=["initial"], models=["other"])
        assert results["initial_responses"]["other"].content == "From the other."
        slow.ready.set()
        results = await orchestrator.process_responses(prompt="?", stages=["initial"])
        assert len(results["initial_responses"]) == 2
    assert [client.log for client in clients] == [["started", "ended"]] * 2


async def test_the_deadline_of_a_run_does_not_wait_for_a_client_to_get_ready(
    autojump_clock: MockClock,
    clients: tuple[Hosted, Hosted],
) -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("slow", clients[0])
    async with orchestrator:
        begun = trio.current_time()
        with pytest.raises((QuorumNotReached, AllAttemptsFailed, TimeoutError)):
            await orchestrator.process_responses(prompt="?", stages=["initial"], timeout=3)
        assert trio.current_time() - begun == pytest.approx(3)


async def test_a_client_that_dies_too_often_leaves_its_model_down_with_the_reason(
    autojump_clock: MockClock,
) -> None:
    client = Hosted()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("fragile", client)
    async with orchestrator:
        await orchestrator.process_responses(prompt="?", stages=["initial"])
        for _ in range(4):
            client.die()
            await trio.sleep(1)
        health = orchestrator.health()["fragile"]
        assert health.status == "down"
        assert "it was killed" in health.reasons[0]
        with pytest.raises((ActorDown, QuorumNotReached)):
            await orchestrator.process_responses(prompt="again?", stages=["initial"])
        orchestrator.revive_model("fragile")
        results = await orchestrator.process_responses(prompt="again?", stages=["initial"])
        assert results["status"] == "success"


async def test_a_failed_call_of_such_a_client_is_no_crash() -> None:
    client = Hosted(name="hosted")
    client.fail(error=ModelError("busy", kind="overloaded"))
    model = registered(client)
    async with ActorSystem() as system:
        ref = start(system, model, StartedModelActor)
        assert (await ref.ask(ask_for())).content == "Paris."
        assert ref.snapshot().restarts == 0


async def test_clients_that_were_started_for_nothing_and_do_not_end_are_given_up(
    autojump_clock: MockClock,
) -> None:
    class Endless(Hosted):
        async def _end(self) -> None:
            await trio.sleep_forever()

    broken = Hosted()
    broken.refuses_to_start = 1
    begun = trio.current_time()
    with pytest.raises(ClientCrashed, match="no machine"):
        await StartedClients((Endless(), broken)).start(lambda _: None)
    assert trio.current_time() - begun == pytest.approx(5)
