"""The processes of placed models, from their start to their end, with a thread in the place of each."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.lowlevel

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from helpers.fake_ray import FakeRay
from helpers.thread_clients import Asyncio, Events, Running, start_and_end
from ultra.cluster.ray import place
from ultra.errors import ClientCrashed
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


async def test_ray_restarts_and_retries_nothing_by_itself(ray: FakeRay) -> None:
    async with Running(place(Asyncio, num_gpus=2, resources={"a100": 1})):
        assert ray.given["max_restarts"] == ray.given["max_task_retries"] == 0
        assert (ray.given["num_gpus"], ray.given["resources"]) == (2, {"a100": 1})


async def test_the_end_of_the_process_in_a_call_is_raised_and_not_told_besides(ray: FakeRay) -> None:
    running = Running(place(Asyncio))
    async with running as placed:

        async def ask() -> None:
            with pytest.raises(ClientCrashed, match="the process of the model has died"):
                await placed.respond(ModelRequest.of("never"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            assert await Events.happened("begun")
            ray.actors[0].die()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ClientCrashed):
            await placed.respond(ModelRequest.of("?"))
    assert running.crashes == []


async def test_the_end_of_an_idle_process_is_told(ray: FakeRay) -> None:
    running = Running(place(Asyncio))
    async with running as placed:
        await placed.respond(ModelRequest.of("?"))
        ray.actors[0].die()
        await trio.testing.wait_all_tasks_blocked()
        assert len(running.crashes) == 1


async def test_the_end_of_the_process_is_told_if_the_call_that_would_hear_of_it_is_cancelled(
    ray: FakeRay,
) -> None:
    running = Running(place(Asyncio))
    async with running as placed:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(placed.respond, ModelRequest.of("never"))
                assert await Events.happened("begun")
                scope.cancel()
                ray.actors[0].die()
        await trio.testing.wait_all_tasks_blocked()
        assert len(running.crashes) == 1


async def test_a_process_that_was_to_end_is_no_crash_and_its_client_is_closed(ray: FakeRay) -> None:
    class Closing(Asyncio):
        async def aclose(self) -> None:
            Events.of("closed").set()

    running = Running(place(Closing))
    async with running:
        pass
    await trio.testing.wait_all_tasks_blocked()
    assert Events.of("closed").is_set()
    assert running.crashes == []


async def test_a_client_that_cannot_be_made_says_why(ray: FakeRay) -> None:
    class Broken(Asyncio):
        def __init__(self) -> None:
            raise FileNotFoundError("no weights")

    running = Running(place(Broken))
    with pytest.raises(ClientCrashed, match="cannot be made: FileNotFoundError: no weights") as caught:
        await running.__aenter__()
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    await running.__aexit__()


async def test_a_process_that_is_not_ready_in_time_says_what_it_was_asked_for(ray: FakeRay) -> None:
    class Slow(Asyncio):
        def __init__(self) -> None:
            super().__init__()
            Events.of("go on").wait()

    placed = place(Slow, resources={"a100": 1}, start_timeout=0.01)
    running = Running(placed)
    try:
        with pytest.raises(ClientCrashed, match=r"not ready within 0.01 s .*a100"):
            await running.__aenter__()
    finally:
        Events.of("go on").set()
        await running.__aexit__()


async def test_a_program_that_is_not_connected_is_told_to_connect(ray: FakeRay) -> None:
    ray.connected = False
    with pytest.raises(ClientCrashed, match=r"call ray.init\(\) first"):
        await place(Asyncio).start_with_actor(lambda _: None)


class Connecting:
    """`ray.init` of a cluster that answers when the test says so."""

    def __init__(self, ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ray = ray
        self.addresses: list[str] = []
        self.answers = threading.Event()
        self.error: Exception | None = None
        ray.connected = False
        monkeypatch.setattr("ray.init", self.init)

    def init(self, *, address: str, **_: object) -> None:
        self.addresses.append(address)
        self.answers.wait(20)
        if self.error is not None:
            raise self.error
        self.ray.connected = True


@pytest.fixture
def connecting(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connecting]:
    found = Connecting(ray, monkeypatch)
    yield found
    found.answers.set()


async def test_many_models_that_start_at_once_hold_one_thread_until_the_program_is_connected(
    connecting: Connecting,
) -> None:
    limiter = trio.to_thread.current_default_thread_limiter()
    placed = [place(Asyncio, connect_to="head:6379") for _ in range(20)]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for each in placed:
                nursery.start_soon(start_and_end, each)
            await trio.testing.wait_all_tasks_blocked()
            assert limiter.borrowed_tokens == 0
            connecting.answers.set()

    assert connecting.addresses == ["head:6379"]
    assert len(connecting.ray.actors) == 20


async def test_a_cluster_that_cannot_be_reached_is_told_to_all_who_waited_after_one_attempt(
    connecting: Connecting,
) -> None:
    heard: list[str] = []

    async def start(address: str) -> None:
        with pytest.raises(ClientCrashed) as caught:
            await place(Asyncio, connect_to=address).start_with_actor(lambda _: None)
        heard.append(str(caught.value))

    connecting.error = ConnectionError("nobody answers")
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start, "one:1")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(start, "two:2")  # which is tried afterwards
            await trio.testing.wait_all_tasks_blocked()
            connecting.answers.set()
        assert sorted(connecting.addresses) == ["one:1", "two:2"]
        assert heard == ["Ray starts no process for the model: nobody answers"] * 4
        connecting.error = None
        await start_and_end(place(Asyncio, connect_to="one:1"))  # is tried again


async def test_a_connection_for_which_no_thread_can_be_started_is_tried_again(
    connecting: Connecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    connecting.answers.set()
    placed = place(Asyncio, connect_to="head:6379")
    with trio.fail_after(5):
        with monkeypatch.context() as patched:
            patched.setattr("ultra.cluster.ray.connecting.start_thread_soon", refused)
            with pytest.raises(ClientCrashed, match="can't start new thread"):
                await placed.start_with_actor(lambda _: None)
        await start_and_end(placed)
    assert connecting.addresses == ["head:6379"]


async def test_who_is_cancelled_while_the_program_is_connected_waits_no_longer(
    connecting: Connecting,
) -> None:
    with trio.fail_after(20):
        with trio.move_on_after(0.01) as scope:
            await place(Asyncio, connect_to="head:6379").start_with_actor(lambda _: None)
        assert scope.cancelled_caught
        assert not connecting.answers.is_set()
        connecting.answers.set()
        await start_and_end(place(Asyncio, connect_to="head:6379"))
    assert connecting.addresses == ["head:6379"]


async def test_ray_that_refuses_to_start_a_process_is_a_crash_for_all_who_wait(ray: FakeRay) -> None:
    ray.refuses = ConnectionError("no cluster")
    ray.slow_from = 0
    placed = place(Asyncio)
    heard: list[BaseException] = []

    async def start() -> None:
        try:
            end = await placed.start_with_actor(lambda _: None)
        except ClientCrashed as error:
            heard.append(error)
            return
        try:
            await placed.until_ready()
        except ClientCrashed as error:
            heard.append(error)
        await end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(start)
        nursery.start_soon(start)
        await trio.testing.wait_all_tasks_blocked()
        ray.go_on.set()

    assert [str(error) for error in heard] == ["Ray starts no process for the model: no cluster"] * 2


async def test_actors_of_the_same_model_share_the_process_until_the_last_has_ended(ray: FakeRay) -> None:
    placed = place(Asyncio)
    async with Running(placed):
        async with Running(placed):
            assert len(ray.actors) == 1
        assert "stop" not in ray.actors[0].calls
        assert (await placed.respond(ModelRequest.of("?"))).content == "Paris."
    assert "stop" in ray.actors[0].calls
    async with Running(placed):
        assert len(ray.actors) == 2
