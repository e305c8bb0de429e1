"""Reasoning reaches the reader of a run while it is written, before the text, in every dialect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.dialect_clients import DIALECTS, dialect_client
from helpers.run_events import AT_ONCE, assert_well_formed, orchestrator_of, read_all, text_of, thoughts_of
from ultra import Completion, Hedge, MultiLLMOrchestrator, RetryPolicy, Timeouts
from ultra.clients import ReasoningDelta
from ultra.events import Chunk, Event, ModelFailed, ModelResponded, ModelRetrying, ReasoningChunk
from ultra.faults.provider import Failure, Reply, SimulatedProvider, simulated_provider
from ultra.messages.chat import ReasoningPart
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ultra.clients import HTTPClient
    from ultra.messages.request import ModelRequest

THOUGHT = "Let me count to four and then stop there."
ANSWER = "It is 4."

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
streamed_or_not = pytest.mark.parametrize("streams", [False, True], ids=["plain", "streamed"])


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with simulated_provider() as running:
        yield running


class Whole:
    """A client that does not stream."""

    stream_response = None

    def __init__(self, client: Any) -> None:
        self._client = client

    async def respond(self, request: ModelRequest) -> Completion:
        completion: Completion = await self._client.respond(request)
        return completion


class Clients:
    """Clients of dialects, which are closed when the test ends."""

    def __init__(self) -> None:
        self._made: list[HTTPClient] = []

    def __call__(
        self, provider: SimulatedProvider, dialect: str, *, streams: bool = True, model: str = "any"
    ) -> Any:
        client = dialect_client(provider, dialect, model=model)
        self._made.append(client)
        return client if streams else Whole(client)

    async def aclose(self) -> None:
        for client in self._made:
            await client.aclose()


@pytest.fixture
async def client_of() -> AsyncIterator[Clients]:
    clients = Clients()
    yield clients
    await clients.aclose()


async def events_of(
    *clients: Any, retries: int = 0, hedge: Hedge | None = None, **settings: Any
) -> list[Event]:
    """The events of one step of a run with one model, `m`."""
    policy = RetryPolicy(max_retries=retries, initial=0, maximum=0)
    orchestrator = MultiLLMOrchestrator(retry=policy, cache_enabled=False, **settings)
    orchestrator.register_model("m", clients[0] if len(clients) == 1 else clients, hedge=hedge)
    async with orchestrator, orchestrator.stream_responses("2+2?", stages=["initial"]) as run:
        return await read_all(run)


def kinds(events: list[Event]) -> list[str]:
    """What came, each kind once for as long as it goes on."""
    found: list[str] = []
    for event in events:
        name = type(event).__name__
        if isinstance(event, (Chunk, ReasoningChunk, ModelRetrying)) and found[-1:] != [name]:
            found.append(name)
    return found


def response_of(events: list[Event]) -> Any:
    return next(event.response for event in events if isinstance(event, ModelResponded))


# --- every dialect ---------------------------------------------------------------------------------------


@every_dialect
@streamed_or_not
async def test_reasoning_then_text(
    provider: SimulatedProvider, client_of: Clients, dialect: str, *, streams: bool
) -> None:
    provider.script(Reply(ANSWER, reasoning=THOUGHT))
    events = await events_of(client_of(provider, dialect, streams=streams))
    assert_well_formed(events)
    assert kinds(events) == ["ReasoningChunk", "Chunk"]
    assert thoughts_of(events, "initial", "m") == THOUGHT
    assert text_of(events, "initial", "m") == response_of(events).content == ANSWER


@every_dialect
@streamed_or_not
async def test_reasoning_in_tags(
    provider: SimulatedProvider, client_of: Clients, dialect: str, *, streams: bool
) -> None:
    pieces = (f"<think>{THOUGHT}</think>{ANSWER}"[at : at + 3] for at in range(0, 80, 3))
    provider.script(Reply(tuple(filter(None, pieces))))
    events = await events_of(client_of(provider, dialect, streams=streams))
    assert_well_formed(events)
    assert kinds(events) == ["ReasoningChunk", "Chunk"]
    assert thoughts_of(events, "initial", "m") == THOUGHT
    assert text_of(events, "initial", "m") == ANSWER


@every_dialect
@streamed_or_not
async def test_reasoning_only_is_no_answer(
    provider: SimulatedProvider, client_of: Clients, dialect: str, *, streams: bool
) -> None:
    provider.script(Reply("", reasoning=THOUGHT), Reply(ANSWER, reasoning="Four."))
    events = await events_of(client_of(provider, dialect, streams=streams), retries=1)
    assert_well_formed(events)
    before = ["ReasoningChunk"] if streams else []
    assert kinds(events) == [*before, "ModelRetrying", "ReasoningChunk", "Chunk"]
    assert thoughts_of(events, "initial", "m") == "Four."
    assert text_of(events, "initial", "m") == ANSWER


@every_dialect
async def test_a_stream_that_breaks_in_the_reasoning(
    provider: SimulatedProvider, client_of: Clients, dialect: str
) -> None:
    broken = Reply("", reasoning=THOUGHT, failure=Failure(status=500))
    provider.script(broken, Reply(ANSWER, reasoning="Four."))
    events = await events_of(client_of(provider, dialect), retries=1)
    assert_well_formed(events)
    assert kinds(events) == ["ReasoningChunk", "ModelRetrying", "ReasoningChunk", "Chunk"]
    again = [event for event in events if isinstance(event, ReasoningChunk) and event.restart]
    assert len(again) == 1
    assert thoughts_of(events, "initial", "m") == "Four."


@every_dialect
async def test_a_deployment_that_breaks_in_the_reasoning(
    provider: SimulatedProvider, client_of: Clients, dialect: str
) -> None:
    broken = Reply("", reasoning=THOUGHT, failure=Failure(status=500))
    provider.script(broken, Reply(ANSWER, reasoning="Four."))
    clients = [client_of(provider, dialect, model=name) for name in "ab"]
    events = await events_of(*clients)
    assert kinds(events) == ["ReasoningChunk", "Chunk"]
    assert thoughts_of(events, "initial", "m") == "Four."


@every_dialect
async def test_a_hedge_that_loses_leaves_no_reasoning(
    provider: SimulatedProvider, client_of: Clients, dialect: str
) -> None:
    provider.script(Reply("It is 5.", reasoning=THOUGHT, hold=trio.Event()))
    async with simulated_provider() as other:
        other.script(Reply(ANSWER, reasoning="Four."))
        clients = [client_of(each, dialect) for each in (provider, other)]
        events = await events_of(*clients, hedge=Hedge(after=0.05))
    assert_well_formed(events)
    assert thoughts_of(events, "initial", "m") == "Four."
    assert text_of(events, "initial", "m") == ANSWER


# --- what comes with it ----------------------------------------------------------------------------------


async def test_signatures_come_with_the_block_that_they_seal(
    provider: SimulatedProvider, client_of: Clients
) -> None:
    provider.script(Reply(ANSWER, reasoning=THOUGHT))
    events = await events_of(client_of(provider, "anthropic"))
    (part,) = response_of(events).reasoning_parts
    assert part.signature
    sealed = [event.part for event in events if isinstance(event, ReasoningChunk) and event.part.signature]
    assert [each.signature for each in sealed] == [part.signature]


async def test_reasoning_is_no_part_of_prompts_results_and_texts() -> None:
    secret = "Between you and me"
    thinker = FakeModel(FakeAnswer("It is ", "4.", reasoning=secret), name="thinker")
    other = FakeModel("It is four.", name="other")
    async with (
        orchestrator_of(thinker, other, judge="other") as orchestrator,
        orchestrator.stream_responses("2+2?") as run,
    ):
        events = await read_all(run)
        result = await run.result()
    assert any("grade" in message.text for call in other.calls for message in call.request.messages)
    assert thoughts_of(events, "initial", "thinker") == secret
    prompts = [message.text for call in (*thinker.calls, *other.calls) for message in call.request.messages]
    assert not any(secret in prompt for prompt in prompts)
    assert secret not in str(result.final_synthesis)
    assert all(secret not in response.content for step in result.steps for response in step.responses)


async def test_an_answer_from_the_cache_tells_its_reasoning_first() -> None:
    thinker = FakeModel(FakeAnswer(ANSWER, reasoning=THOUGHT), name="m")
    async with orchestrator_of(thinker) as orchestrator:
        for _ in range(2):
            async with orchestrator.stream_responses("2+2?", stages=["initial"]) as run:
                events = await read_all(run)
            assert kinds(events) == ["ReasoningChunk", "Chunk"]
            assert thoughts_of(events, "initial", "m") == THOUGHT
    assert len(thinker.calls) == 1


async def test_who_joins_a_call_gets_the_reasoning_so_far(autojump_clock: MockClock) -> None:
    thinker = FakeModel(FakeAnswer(ANSWER, reasoning=THOUGHT, piece_seconds=5), name="m")
    found: list[list[Event]] = []

    async def read(orchestrator: MultiLLMOrchestrator, after: float) -> None:
        await trio.sleep(after)
        async with orchestrator.stream_responses("2+2?", stages=["initial"]) as run:
            found.append(await read_all(run))

    async with orchestrator_of(thinker) as orchestrator, trio.open_nursery() as nursery:
        for after in (0, 2, 7):
            nursery.start_soon(read, orchestrator, after)
    assert len(thinker.calls) == 1
    assert [kinds(events) for events in found] == [["ReasoningChunk", "Chunk"]] * 3
    assert [thoughts_of(events, "initial", "m") for events in found] == [THOUGHT] * 3


async def test_a_plain_answer_is_the_same_whether_it_reasons_or_not(
    provider: SimulatedProvider, client_of: Clients
) -> None:
    provider.script(Reply(ANSWER, reasoning=THOUGHT))
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE)
    orchestrator.register_model("m", client_of(provider, "openai"))
    async with orchestrator:
        results = await orchestrator.process_responses("2+2?", stages=["initial"])
    assert str(results["initial_responses"]["m"]) == ANSWER


# --- clients of others -----------------------------------------------------------------------------------


class Streaming:
    """Somebody's client, which streams these pieces."""

    def __init__(self, *pieces: Any, seconds: float = 0.0) -> None:
        self.pieces, self.seconds = pieces, seconds

    async def generate(self, prompt: str) -> str:
        return ANSWER

    async def stream(self, prompt: str) -> AsyncIterator[Any]:
        for piece in self.pieces:
            await trio.sleep(self.seconds)
            yield piece


async def test_a_client_may_tell_what_its_model_thinks() -> None:
    pieces = [ReasoningDelta("One ", "mine"), ReasoningDelta("and one.", "mine", signature="s"), "It is 2."]
    events = await events_of(Streaming(*pieces))
    assert kinds(events) == ["ReasoningChunk", "Chunk"]
    assert thoughts_of(events, "initial", "m") == "One and one."
    sealed = ReasoningPart("One and one.", "mine", signature="s")
    assert response_of(events).reasoning_parts == (sealed,)


async def test_code_that_knows_only_text_takes_reasoning_for_a_sign_of_life() -> None:
    said = ""
    async for piece in FakeModel(FakeAnswer(ANSWER, reasoning=THOUGHT)).stream("2+2?"):
        if isinstance(piece, str):
            said += piece
    assert said == ANSWER


async def test_half_characters_of_reasoning_are_joined() -> None:
    events = await events_of(Streaming(ReasoningDelta("four \ud83d"), ReasoningDelta("\ude00"), "4"))
    assert thoughts_of(events, "initial", "m") == "four \N{GRINNING FACE}"
    cut = await events_of(Streaming(ReasoningDelta("four \ud83d"), "4"))
    assert "\ud83d" not in thoughts_of(cut, "initial", "m")


@pytest.mark.parametrize("part", ["no part", ReasoningPart(text=b"bytes")])  # type: ignore[arg-type]
async def test_a_piece_that_tells_nothing_readable_is_an_error_of_the_client(part: Any) -> None:
    delta = ReasoningDelta("x")
    delta.part = part
    events = await events_of(Streaming(delta, "4"))
    (failed,) = [event for event in events if isinstance(event, ModelFailed)]
    assert failed.failure.kind == "protocol"
    assert "ReasoningDelta" in failed.failure.message


async def test_reasoning_moves_the_clocks_of_a_stream(autojump_clock: MockClock) -> None:
    thoughts = [ReasoningDelta(f"{number} ") for number in range(20)]
    timeouts = Timeouts(first_token=3, idle=3)
    events = await events_of(Streaming(*thoughts, "4", seconds=2), timeouts=timeouts)
    assert text_of(events, "initial", "m") == "4"
    assert response_of(events).time_to_first_token == pytest.approx(42)
