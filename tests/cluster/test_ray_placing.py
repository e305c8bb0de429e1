"""Models in processes of their own, with a thread in the place of each process, and without a cluster."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

import trio.lowlevel

from helpers.fake_ray import FakeRay
from helpers.thread_clients import Asyncio, Events, OnTrio, Running, pieces_of, synchronous
from ultra import MultiLLMOrchestrator
from ultra.actors.model.started_clients import StartedClients
from ultra.clients.adapter import ClientAdapter
from ultra.cluster.ray import place
from ultra.cluster.ray.host import DEADLINE_ALLOWANCE, MOST_UNREAD
from ultra.errors import AllAttemptsFailed, BadCall, ModelError
from ultra.events import Chunk
from ultra.messages.chat import ReasoningPart
from ultra.messages.reasoning import ReasoningDelta, joined_reasoning
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion, Usage
from ultra.messages.schema import JsonSchema

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.cluster.ray.remote_call import RemoteCall


# --- clients of any shape ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "client", [Asyncio, Asyncio(), partial(Asyncio, "Paris"), OnTrio, OnTrio(), synchronous]
)
async def test_a_client_of_any_shape_answers(ray: FakeRay, client: object) -> None:
    async with Running(place(client)) as placed:
        assert (await placed.respond(ModelRequest.of("?"))).content == "Paris."


async def test_a_class_is_made_in_the_process_with_the_arguments_that_belong_to_it(ray: FakeRay) -> None:
    placed = place(partial(Asyncio, city="Lyon"))

    async with Running(placed):
        answer = await placed.respond(ModelRequest.of("?"))

    assert (answer.content, answer.usage, answer.finish_reason) == ("Lyon.", Usage(3, 4), "stop")


async def test_text_comes_while_it_is_written(ray: FakeRay) -> None:
    async with Running(place(Asyncio)) as placed:
        assert placed.stream_response is not None
        call = placed.stream_response(ModelRequest.of("later"))
        assert await anext(call) == "Pa"
        Events.of("go on").set()
        rest = [piece async for piece in call]
        await call.aclose()

    *pieces, last = rest
    assert "".join(map(str, pieces)) == "ris."
    assert isinstance(last, Completion)
    assert last.content == "Paris."


def test_what_a_client_says_of_itself_is_known_without_the_process() -> None:
    placed = place(Asyncio, num_gpus=0.5)

    assert placed.context_window == 4096
    assert placed.stream_response is not None
    assert not placed.takes_conversations
    assert repr(placed) == "<PlacedModel Asyncio num_gpus=0.5>"
    assert place(OnTrio).stream_response is None
    assert place(OnTrio).takes_conversations


def test_the_answers_of_models_that_are_made_in_another_way_are_kept_apart() -> None:
    one, other = (place(partial(Asyncio, city)).cache_identity for city in ("Paris", "Lyon"))

    assert one != other
    assert one == place(partial(Asyncio, "Paris")).cache_identity


async def test_the_schema_of_an_answer_is_told_in_words_once(ray: FakeRay) -> None:
    class Reader(OnTrio):
        async def respond(self, request: ModelRequest) -> Completion:
            return Completion(request.messages[-1].text)

    request = replace(ModelRequest.of("Which city?"), output=JsonSchema("city", {"type": "object"}))
    async with Running(place(Reader)) as placed:
        told = await ClientAdapter(placed).call(request)

    alone = await ClientAdapter(Reader()).call(request)
    assert told.content == alone.content
    assert told.content.startswith("Which city?")
    assert len(told.content) > len("Which city?")


async def test_of_several_clients_those_that_were_started_are_ended_if_the_start_is_cancelled(
    ray: FakeRay,
) -> None:
    first, second = place(Asyncio), place(OnTrio)
    ray.slow_from = 1
    clients = StartedClients.among([first, second])
    assert clients is not None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def start() -> None:
                assert clients is not None
                await clients.start(lambda _: None)

            nursery.start_soon(start)
            assert await trio.to_thread.run_sync(ray.is_slow.wait, 5)
            scope.cancel()
    ray.go_on.set()
    assert first._process is None
    assert second._process is None
    assert "stop" in ray.actors[0].calls
    with trio.fail_after(5):
        while len(ray.actors) < 2:  # noqa: ASYNC110 - a thread that was given up makes it
            await trio.sleep(0.001)
        assert await trio.to_thread.run_sync(ray.actors[1].died.wait, 5)


# --- what is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_restarts": 3}, "max_restarts is no option of a placed model: the supervisor of the model"),
        ({"max_task_retries": 3}, "the retry policy of the model decides"),
        ({"lifetime": "detached"}, "it ends with the model's actor"),
        ({"nmu_gpus": 1}, "nmu_gpus"),
        ({"num_gpus": -1}, "num_gpus"),
        ({"start_timeout": 0}, "start_timeout is 0"),
    ],
)
def test_options_that_are_not_allowed_are_refused_by_name(options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadCall, match=says):
        place(Asyncio, **options)


def test_a_client_that_cannot_be_pickled_is_refused_with_the_way_out() -> None:
    class Locked:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def generate(self, prompt: str) -> str:
            return prompt

    with pytest.raises(BadCall, match=r"cannot be sent.*place its class, or a functools.partial"):
        place(Locked())
    assert place(Locked).cache_identity


def test_what_is_no_client_is_refused() -> None:
    with pytest.raises(BadCall, match="a client must have `generate"):
        place(7)
    with pytest.raises(BadCall, match="a client must have `generate"):
        place(partial(dict, a=1))


async def test_a_model_that_does_not_run_says_how_to_use_it(ray: FakeRay) -> None:
    with pytest.raises(BadCall, match="does not run: register it"):
        await place(Asyncio).respond(ModelRequest.of("?"))


# --- errors ------------------------------------------------------------------------------------------


async def test_an_error_of_the_client_arrives_as_the_same_class_with_the_place_where_it_was_raised(
    ray: FakeRay,
) -> None:
    async with Running(place(Asyncio)) as placed:
        with pytest.raises(ModelError) as caught:
            await placed.respond(ModelRequest.of("fail"))

    cause = caught.value.__cause__
    assert type(cause) is ZeroDivisionError
    assert str(cause) == "a bug"
    assert "in _do" in cause.__notes__[0]
    assert caught.value.unexpected


async def test_a_model_error_arrives_with_all_that_it_says(ray: FakeRay) -> None:
    async with Running(place(OnTrio)) as placed:
        with pytest.raises(ModelError) as caught:
            await placed.respond(ModelRequest.of("fail"))

    assert (caught.value.kind, caught.value.retry_after, caught.value.message) == ("overloaded", 7.0, "busy")
    assert not caught.value.unexpected


async def test_text_before_an_error_is_heard(ray: FakeRay) -> None:
    heard: list[str | Completion] = []
    async with Running(place(Asyncio)) as placed:
        assert placed.stream_response is not None
        call = placed.stream_response(ModelRequest.of("fail"))
        with pytest.raises(ModelError):
            heard.extend([piece async for piece in call] or ["nothing"])
        await call.aclose()
        call = placed.stream_response(ModelRequest.of("fail"))
        assert await anext(call) == "Pa"
        with pytest.raises(ModelError):
            await anext(call)
        await call.aclose()


async def test_more_text_than_anybody_reads_ends_the_call(ray: FakeRay) -> None:
    class Endless:
        async def generate(self, prompt: str) -> str:
            return prompt

        async def stream(self, prompt: str) -> AsyncIterator[str]:
            while True:
                yield "x" * (MOST_UNREAD // 4)
                await asyncio.sleep(0)

    async with Running(place(Endless)) as placed:
        actor = ray.actors[0]
        actor.holds.add("read")
        assert placed.stream_response is not None
        call = placed.stream_response(ModelRequest.of("?"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_to_its_error, call)
            assert await trio.to_thread.run_sync(actor.held.wait, 5)
            (hosted,) = actor.host._calls.values()
            await actor.until_done(hosted.task)
            actor.release()


async def read_to_its_error(call: RemoteCall) -> None:
    with pytest.raises(ModelError, match="characters of the answer wait to be read"):
        await anext(call)
    await call.aclose()


# --- cancellation and deadlines ----------------------------------------------------------------------


@pytest.mark.parametrize("client", [Asyncio, OnTrio])
async def test_a_cancelled_call_has_stopped_the_work_of_the_client_when_it_returns(
    ray: FakeRay, client: object
) -> None:
    async with Running(place(client)) as placed:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(placed.respond, ModelRequest.of("never"))
                assert await Events.happened("begun")
                scope.cancel()
        assert Events.of("cancelled").is_set()
        assert ray.actors[0].host._calls == {}


async def test_a_call_that_is_cancelled_before_it_has_begun_is_cancelled_when_it_has(ray: FakeRay) -> None:
    async with Running(place(Asyncio)) as placed:
        actor = ray.actors[0]
        actor.holds.add("begin")
        scope = trio.CancelScope()

        async def ask() -> None:
            with scope:
                await placed.respond(ModelRequest.of("never"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert "cancel" not in actor.calls  # nobody knows in which order they would arrive
            actor.release()
        assert actor.calls[-2:] == ["begin", "cancel"]
        assert actor.host._calls == {}


async def test_a_stream_that_is_closed_early_stops_the_work_of_the_client(ray: FakeRay) -> None:
    async with Running(place(Asyncio)) as placed:
        assert placed.stream_response is not None
        call = placed.stream_response(ModelRequest.of("never"))
        assert await anext(call) == "Pa"
        await call.aclose()
        assert Events.of("cancelled").is_set()
        with pytest.raises(StopAsyncIteration):
            await anext(call)


async def test_a_deadline_crosses_and_ends_the_work_even_if_nobody_cancels_it(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultra.cluster.ray.host.DEADLINE_ALLOWANCE", 0.0)
    async with Running(place(Asyncio)) as placed:
        actor = ray.actors[0]
        with trio.CancelScope(deadline=trio.current_time() + 3600) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(placed.respond, ModelRequest.of("never"))
                assert await Events.happened("begun")
                scope.cancel()
    assert DEADLINE_ALLOWANCE > 0
    assert actor.calls.count("cancel") == 1


async def test_the_process_cancels_what_nobody_asks_for_any_more(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ultra.cluster.ray.host.DEADLINE_ALLOWANCE", 0.0)
    monkeypatch.setattr("ultra.cluster.ray.remote_call._time_left", lambda: 0.01)
    async with Running(place(Asyncio)) as placed:
        with pytest.raises(ModelError, match="the time of the call was over") as caught:
            await placed.respond(ModelRequest.of("never"))
    assert caught.value.kind == "timeout"
    assert Events.of("cancelled").is_set()


# --- behind an orchestrator --------------------------------------------------------------------------


async def test_an_orchestrator_restarts_a_model_whose_process_died_and_asks_it_again(ray: FakeRay) -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("llama", place(Asyncio))
    async with orchestrator:
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                results = await orchestrator.process_responses(prompt="later", stages=["initial"])
                assert results["initial_responses"]["llama"].content == "Paris."

            nursery.start_soon(ask)
            assert await Events.happened("begun")
            ray.actors[0].die()
            Events.of("go on").set()
        assert len(ray.actors) == 2
        assert orchestrator.get_metrics()["llama"].attempts == 2


async def test_an_orchestrator_streams_what_the_process_writes(ray: FakeRay) -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("llama", place(Asyncio))
    async with orchestrator, orchestrator.stream_responses("?", stages=["initial"]) as stream:
        text = "".join([event.text async for event in stream if isinstance(event, Chunk)])
    assert text == "Paris."


class Thinker:
    """Thinks, in two blocks, and then writes."""

    async def generate(self, prompt: str) -> str:
        return "Paris."

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        yield ReasoningDelta("One ", "mine")
        yield ReasoningDelta("block.", "mine", signature="s")
        yield ReasoningDelta("Another.", "mine")
        yield "Paris."


async def test_what_a_model_thinks_comes_out_of_its_process_before_the_text(ray: FakeRay) -> None:
    async with Running(place(Thinker)) as placed:
        pieces = await pieces_of(placed, "?")
    thoughts = [piece.part for piece in pieces if isinstance(piece, ReasoningDelta)]
    assert joined_reasoning(thoughts) == [
        ReasoningPart("One block.", "mine", signature="s"),
        ReasoningPart("Another.", "mine"),
    ]
    told = [piece for piece in pieces if isinstance(piece, ReasoningDelta) or piece == "Paris."]
    assert told[-1] == "Paris."


async def test_a_call_that_fails_is_retried_as_that_of_any_client(ray: FakeRay) -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=1)
    placed = place(synchronous)
    orchestrator.register_model("llama", placed, retry=None)
    async with orchestrator:
        with pytest.raises(AllAttemptsFailed, match="2 attempts") as caught:
            await orchestrator.get_model_response(model=placed, prompt="fail", stage="initial")
    assert isinstance(caught.value.__cause__, ModelError)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)


def test_from_asyncio_a_placed_model_is_used_as_any_other(ray: FakeRay) -> None:
    async def main() -> str:
        orchestrator = MultiLLMOrchestrator()
        orchestrator.register_model("llama", place(Asyncio))
        async with orchestrator:
            results = await orchestrator.process_responses(prompt="?", stages=["initial"])
        text: str = results["initial_responses"]["llama"].content
        return text

    assert asyncio.run(main()) == "Paris."


def test_without_the_extra_the_import_says_which_one_is_missing() -> None:
    code = "import sys; sys.modules['ray'] = None; import ultra.cluster.ray"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "MissingExtra: ultra.cluster.ray needs the extra 'ray', which is not installed" in done.stderr
