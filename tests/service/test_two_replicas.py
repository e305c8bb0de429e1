"""Two processes of `ultra serve` on one Redis, under load: one is killed, Redis dies, and freezes."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from helpers.command_line import PATIENCE, ultra_running
from helpers.redis_server import RedisProcess, redis_process
from ultra.faults.provider import simulated_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from helpers.warm_python import ForkedProcess

pytestmark = [
    pytest.mark.long,
    # A client whose server is killed leaves the body that it was reading to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("no_garbage_is_left"),
]

RATE = 120.0
LATENCY = 0.2
CONFIGURATION = """
[cache]
store = "{redis}"

[shared]
store = "{redis}"

[journal]
store = "{redis}"

[serve]
budgets = "{redis}"

[models.gpt]
model = "openai:any"
base_url = "{base_url}"
api_key = "any-key-will-do"
limits = {{ requests_per_minute = {rate} }}

[models.free]
model = "openai:free"
base_url = "{base_url}"
api_key = "any-key-will-do"
"""


class Provider:
    """Notes when each model was asked what."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, str, str]] = []

    def respond(self, request: Any) -> str:
        self.calls.append((trio.current_time(), request.model, request.prompt))
        return f"answer to {request.prompt}"

    def times(self, model: str) -> list[float]:
        return sorted(time for time, asked, _ in self.calls if asked == model)


class Replica:
    """One `ultra serve`."""

    def __init__(self, process: ForkedProcess, url: str) -> None:
        self.process = process
        self.client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=PATIENCE)

    async def ask(self, model: str, question: str) -> httpx.Response:
        messages = [{"role": "user", "content": question}]
        return await self.client.post("/v1/chat/completions", json={"model": model, "messages": messages})


class Service:
    """Two replicas behind a load balancer, which leaves out one that is gone."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self._next = 0
        self.longest = 0.0

    async def ask(self, model: str, question: str) -> str:
        while True:
            self._next += 1
            replica = self.replicas[self._next % len(self.replicas)]
            started = trio.current_time()
            try:
                reply = await replica.ask(model, question)
            except httpx.TransportError:
                if replica in self.replicas:
                    assert len(self.replicas) > 1, "the last replica is gone"
                    self.replicas.remove(replica)
                continue
            if model == "free":
                self.longest = max(self.longest, trio.current_time() - started)
            assert reply.status_code == 200, reply.text
            return str(reply.json()["choices"][0]["message"]["content"])


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisProcess]:
    (folder := tmp_path / "redis").mkdir()
    with redis_process(folder, durable=True) as server:
        yield server


async def replica_of(held: AsyncExitStack, file: Path) -> Replica:
    process = await held.enter_async_context(ultra_running("serve", "--config", str(file), "--port", "0"))
    assert process.stdout is not None
    data = b""
    with trio.fail_after(PATIENCE):
        while b"\n" not in data:
            piece = await process.stdout.receive_some()
            assert piece
            data += piece
    replica = Replica(process, data.partition(b"\n")[0].decode())
    await held.enter_async_context(replica.client)
    return replica


def over_the_limit(times: list[float]) -> list[tuple[float, int]]:
    """Return the windows in which there were more calls than the rate allows, and one more."""
    found = []
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            seconds, calls = times[last] - start, last - first + 1
            if calls > RATE * (1 + seconds / 60) + 1:
                found.append((seconds, calls))
    return found


async def test_a_killed_replica_a_dead_and_a_frozen_redis_lose_nothing_and_keep_the_limits(
    tmp_path: Path, redis: RedisProcess
) -> None:
    provider, file = Provider(), tmp_path / "ultra.toml"
    answered: list[int] = []
    asked = 0

    async with AsyncExitStack() as held:
        simulated = await held.enter_async_context(
            simulated_provider(latency=LATENCY, respond=provider.respond)
        )
        base_url = simulated.base_url("openai")
        file.write_text(CONFIGURATION.format(redis=redis.url, base_url=base_url, rate=RATE), "utf-8")
        service = Service([await replica_of(held, file), await replica_of(held, file)])
        first = service.replicas[0]
        over = trio.Event()

        async def client(model: str) -> None:
            nonlocal asked
            while not over.is_set():
                asked += 1
                number = asked
                assert await service.ask(model, f"Question {number}?") == f"answer to Question {number}?"
                answered.append(number)

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(client, "gpt")
                nursery.start_soon(client, "free")
                await trio.sleep(3)
                first.process.send_signal(signal.SIGKILL)
                await trio.sleep(2)
                redis.kill()
                await trio.sleep(2)
                await trio.to_thread.run_sync(redis.start)
                await trio.sleep(6)
                redis.freeze()
                await trio.sleep(2)
                redis.thaw()
                await trio.sleep(6)
                over.set()

    assert sorted(answered) == list(range(1, asked + 1))
    assert len(service.replicas) == 1
    limited = provider.times("any")
    assert len(limited) > RATE, "the limit was not reached"
    assert over_the_limit(limited) == []
    # Whoever is not limited waits for Redis no longer than a bound: a lookup, a lease, and a write.
    assert service.longest < LATENCY + 10


async def test_the_same_request_to_two_replicas_is_asked_once(tmp_path: Path, redis: RedisProcess) -> None:
    provider, file = Provider(), tmp_path / "ultra.toml"
    answers: list[str] = []
    async with AsyncExitStack() as held:
        simulated = await held.enter_async_context(simulated_provider(latency=2.0, respond=provider.respond))
        base_url = simulated.base_url("openai")
        file.write_text(CONFIGURATION.format(redis=redis.url, base_url=base_url, rate=RATE), "utf-8")
        replicas = [await replica_of(held, file), await replica_of(held, file)]

        async def ask(replica: Replica) -> None:
            reply = await replica.ask("free", "The same?")
            answers.append(reply.json()["choices"][0]["message"]["content"])

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                for replica in replicas:
                    nursery.start_soon(ask, replica)
            # The one that asks dies, and the other asks.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lost, replicas[0])
                await until_asked(provider, 2)
                nursery.start_soon(ask_another, replicas[1], answers)
                await trio.sleep(0.3)
                replicas[0].process.send_signal(signal.SIGKILL)
    assert answers == ["answer to The same?", "answer to The same?", "answer to Another?"]
    assert [prompt for _, _, prompt in provider.calls] == ["The same?", "Another?", "Another?"]


async def lost(replica: Replica) -> None:
    with pytest.raises(httpx.TransportError):
        await replica.ask("free", "Another?")


async def ask_another(replica: Replica, answers: list[str]) -> None:
    reply = await replica.ask("free", "Another?")
    answers.append(reply.json()["choices"][0]["message"]["content"])


async def until_asked(provider: Provider, count: int) -> None:
    while len(provider.calls) < count:  # noqa: ASYNC110 - there is no event
        await trio.sleep(0.01)


async def test_a_run_in_the_background_outlives_its_replica_and_any_other_answers_for_it(
    tmp_path: Path, redis: RedisProcess
) -> None:
    provider, file = Provider(), tmp_path / "ultra.toml"
    async with AsyncExitStack() as held:
        simulated = await held.enter_async_context(simulated_provider(latency=1.0, respond=provider.respond))
        base_url = simulated.base_url("openai")
        file.write_text(CONFIGURATION.format(redis=redis.url, base_url=base_url, rate=RATE), "utf-8")
        one, other = [await replica_of(held, file), await replica_of(held, file)]
        request = {"model": "free", "input": "Where?", "background": True}
        accepted = (await one.client.post("/v1/responses", json=request)).json()
        await until_asked(provider, 1)
        one.process.send_signal(signal.SIGKILL)
        with trio.fail_after(PATIENCE):
            while True:
                found = (await other.client.get(f"/v1/responses/{accepted['id']}")).json()
                if found["status"] not in {"queued", "in_progress"}:
                    break
                await trio.sleep(0.1)
    assert accepted["status"] in {"queued", "in_progress"}
    assert found["status"] == "completed"
    assert found["output"][0]["content"][0]["text"] == "answer to Where?"
    assert len(provider.calls) == 2  # the one in flight at the kill, and the one of the other replica
