"""The guide's code, and what it promises, in programs on asyncio."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest
import trio

from helpers.asyncio_clients import AsyncioClient, HangingClient, three, trio_threads
from helpers.event_loops import LOOPS, interrupt, on_asyncio, run_on
from ultra import (
    AllAttemptsFailed,
    BadCall,
    MultiLLMOrchestrator,
    OrchestrationResult,
    OrchestratorClosed,
    OrchestratorInUse,
    QuorumNotReached,
    StageFailed,
    StageResponses,
)
from ultra.messages.events import Chunk, Event, RunCompleted, RunFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence


colour: ContextVar[str] = ContextVar("colour", default="none")


class StreamingClient(AsyncioClient):
    """An asyncio client that streams `pieces`."""

    def __init__(self, name: str, pieces: Iterable[str]) -> None:
        super().__init__(name)
        self.pieces = tuple(pieces)

    async def generate(self, prompt: str) -> str:
        return "".join(self.pieces)

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        for piece in self.pieces:
            await asyncio.sleep(0)
            yield piece


# --- the guide --------------------------------------------------------------------------------------


@on_asyncio
async def test_the_guides_basic_usage_runs_as_written() -> None:
    llama_client, chatgpt_client, gemini_client = (
        AsyncioClient("llama"),
        AsyncioClient("chatgpt"),
        AsyncioClient("gemini"),
    )
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("llama", llama_client)
    orchestrator.register_model("chatgpt", chatgpt_client)
    orchestrator.register_model("gemini", gemini_client)

    results = await orchestrator.process_responses("Your prompt here")

    assert list(results["initial_responses"]) == ["llama", "chatgpt", "gemini"]
    assert str(results["initial_responses"]["llama"]) == "llama: Your prompt here"
    assert list(results["meta_responses"]) == ["llama", "chatgpt", "gemini"]
    assert str(results["final_synthesis"]).startswith("llama: ")
    assert results["status"] == "success"
    assert llama_client.loops == {asyncio.get_running_loop()}


@pytest.mark.parametrize("loop", LOOPS)
def test_an_orchestrator_that_was_made_before_any_loop_runs_serves_several_in_turn(loop: str) -> None:
    orchestrator, llama, *_ = three()

    async def ask() -> None:
        results = await orchestrator.process_responses("Q", stages=["initial"])
        assert results.status == "success"

    run_on(loop, ask)
    run_on(loop, ask)

    assert len(llama.prompts) == 1
    assert orchestrator.get_metrics()["llama"].cache_hits == 1


@on_asyncio
async def test_a_client_is_asked_by_its_name_and_as_itself() -> None:
    orchestrator, llama, *_ = three()
    stranger = AsyncioClient("stranger")

    async with orchestrator:
        by_name = await orchestrator.get_model_response("llama", "Q")
        again = await orchestrator.get_model_response(
            model=llama, prompt="Q", stage="initial", use_cache=True
        )
        unknown = await orchestrator.get_model_response(stranger, "Q")

    assert (by_name.content, again.content, again.cached) == ("llama: Q", "llama: Q", True)
    assert (unknown.content, stranger.loops) == ("stranger: Q", {asyncio.get_running_loop()})


@on_asyncio
async def test_an_entered_orchestrator_is_changed_and_looked_at_while_it_runs() -> None:
    orchestrator, *_ = three()
    async with orchestrator:
        assert trio_threads() == 1
        orchestrator.register_model("late", AsyncioClient("late"), weight=9)
        results = await orchestrator.process_responses("Q")
        assert str(results.final_synthesis).startswith("late: ")

        await orchestrator.unregister_model("late")
        orchestrator.set_model_weight("llama", 9)
        results = await orchestrator.process_responses("Q", use_cache=False)
        assert str(results.final_synthesis).startswith("llama: ")
        assert orchestrator.get_prioritized_models() == ["llama", "chatgpt", "gemini"]

        assert orchestrator.get_metrics()["llama"].success_rate == 1.0
        assert "coordinator running" in str(orchestrator.tree())
        assert {name: health.status for name, health in orchestrator.health().items()} == {
            "llama": "up",
            "chatgpt": "up",
            "gemini": "up",
        }
        orchestrator.revive_model("llama")

    assert trio_threads() == 0
    with pytest.raises(OrchestratorClosed):
        await orchestrator.process_responses("Q")


@on_asyncio
async def test_subclasses_override_what_the_guide_says() -> None:
    class CustomOrchestrator(MultiLLMOrchestrator):
        async def process_responses(  # type: ignore[override]
            self, prompt: str, stages: Sequence[str] | None = None, models: Sequence[str] | None = None
        ) -> OrchestrationResult:
            await asyncio.sleep(0)
            return await super().process_responses(prompt.upper(), stages or ["initial", "custom"], models)

        def _create_custom_prompt(self, responses: StageResponses) -> str:
            return f"{responses.prompt}|{responses.stage('initial')[0].content}"

    orchestrator = CustomOrchestrator()
    orchestrator.register_model("one", AsyncioClient("one"))

    results = await orchestrator.process_responses("q")

    assert results["custom_responses"]["one"].content == "one: Q|one: Q"


@on_asyncio
async def test_bad_calls_and_failed_runs_raise_what_they_raise_on_trio() -> None:
    orchestrator, *clients = three()
    async with orchestrator:
        with pytest.raises(BadCall, match="prompt is empty"):
            await orchestrator.process_responses("")
        with pytest.raises(OrchestratorInUse):
            await orchestrator.__aenter__()
        for client in clients:
            client.failures += [ConnectionError(f"{client.name} is away")] * 3
        with pytest.raises(QuorumNotReached, match="All attempts failed for model 'llama'"):
            await orchestrator.process_responses("Q")


@on_asyncio
async def test_an_error_shows_the_way_to_the_line_where_it_began() -> None:
    orchestrator, llama, *_ = three()
    llama.failures += [ZeroDivisionError("in the client")] * 3

    with pytest.raises(AllAttemptsFailed, match=r"3 attempts\).*in the client") as caught:
        await orchestrator.get_model_response("llama", "Q")

    model_error = caught.value.__cause__
    assert model_error is not None
    original = model_error.__cause__
    assert isinstance(original, ZeroDivisionError)
    trace = original.__traceback__
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "generate"


@on_asyncio
async def test_an_exception_in_a_prompt_method_reaches_the_caller() -> None:
    class Custom(MultiLLMOrchestrator):
        def _create_custom_prompt(self, responses: StageResponses) -> str:
            raise ZeroDivisionError("mine")

    orchestrator = Custom()
    orchestrator.register_model("one", AsyncioClient())

    with pytest.raises(StageFailed, match="mine") as caught:
        await orchestrator.process_responses("Q", stages=["initial", "custom"])

    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_program_on_trio_loads_nothing_that_is_for_asyncio() -> None:
    program = """
import sys, trio
from ultra import MultiLLMOrchestrator

async def answer(prompt):
    return "answer"

async def main():
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("one", answer)
        async with orchestrator.stream_responses("Q") as run:
            print((await run.result()).status)

trio.run(main)
of_asyncio = {f"ultra.bridge.{name}" for name in ("portal", "asyncio_loop", "call_queue")}
print(sorted(of_asyncio & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "success\n[]\n"


# --- streaming --------------------------------------------------------------------------------------


@on_asyncio
async def test_a_stream_tells_all_and_agrees_with_the_plain_result() -> None:
    orchestrator, *_ = three()
    orchestrator.register_model("stream", StreamingClient("stream", ["to", "ken", "s"]), weight=5)
    async with orchestrator:
        async with orchestrator.stream_responses("Q", stages=["initial", "synthesis"]) as run:
            events = [event async for event in run]
            streamed = await run.result()
        plain = await orchestrator.process_responses("Q", stages=["initial", "synthesis"])

    assert [event.seq for event in events] == list(range(len(events)))
    assert isinstance(events[-1], RunCompleted)
    assert _text_of("stream", events) == "tokens"
    assert str(streamed.final_synthesis) == str(plain.final_synthesis)
    assert list(streamed.initial_responses) == list(plain.initial_responses)


def _text_of(model: str, events: Iterable[Event]) -> str:
    """What the initial stage streamed of one model."""
    chunks = [event for event in events if isinstance(event, Chunk)]
    return "".join(chunk.text for chunk in chunks if (chunk.stage, chunk.model_name) == ("initial", model))


@on_asyncio
async def test_a_stream_needs_no_entered_orchestrator_and_leaves_nothing() -> None:
    orchestrator, *_ = three()

    async with orchestrator.stream_responses("Q", stages=["initial"]) as run:
        events = [event async for event in run]

    assert isinstance(events[-1], RunCompleted)
    assert trio_threads() == 0
    with pytest.raises(BadCall, match="only once"):
        await run.__aenter__()


@on_asyncio
async def test_leaving_a_stream_early_cancels_the_calls_and_ends_the_iteration() -> None:
    orchestrator = MultiLLMOrchestrator()
    hanging = HangingClient()
    orchestrator.register_model("hanging", hanging)

    async with orchestrator:
        async with orchestrator.stream_responses("Q") as run:
            await hanging.asked.wait()
        with pytest.raises(BadCall, match="left before the run had ended"):
            await run.result()
        with pytest.raises(BadCall, match="left before the run had ended"):
            [event async for event in run]

    assert hanging.story == ["cancelled", "ended"]


@on_asyncio
async def test_a_failed_run_ends_its_stream_and_its_result_raises() -> None:
    orchestrator, *clients = three()
    for client in clients:
        client.failures += [RuntimeError("down")] * 3

    async with orchestrator, orchestrator.stream_responses("Q") as run:
        events = [event async for event in run]
        with pytest.raises(QuorumNotReached):
            await run.result()

    assert isinstance(events[-1], RunFailed)


@on_asyncio
async def test_a_slow_reader_loses_no_text_and_gets_it_joined() -> None:
    orchestrator = MultiLLMOrchestrator()
    pieces = [f"{number} " for number in range(2000)]
    orchestrator.register_model("fast", StreamingClient("fast", pieces))

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        await run.result()
        chunks = [event async for event in run if isinstance(event, Chunk)]

    assert "".join(chunk.text for chunk in chunks) == "".join(pieces)
    assert len(chunks) == 1


@on_asyncio
async def test_a_reader_that_keeps_up_hears_each_piece_before_the_next_is_said() -> None:
    heard, said = asyncio.Event(), list[str]()

    class Patient(StreamingClient):
        async def stream(self, prompt: str) -> AsyncIterator[str]:
            for piece in self.pieces:
                said.append(piece)
                yield piece
                await heard.wait()
                heard.clear()

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("patient", Patient("patient", ["one", "two", "three"]))

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        async for event in run:
            if isinstance(event, Chunk):
                assert event.text == said[-1]
                heard.set()

    assert said == ["one", "two", "three"]


@on_asyncio
async def test_a_cancelled_reader_has_taken_no_event() -> None:
    gate = asyncio.Event()

    class Gated(StreamingClient):
        async def stream(self, prompt: str) -> AsyncIterator[str]:
            await gate.wait()
            yield "text"

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("gated", Gated("gated", []))

    events: list[Event] = []

    async def read(run: AsyncIterator[Event]) -> None:
        async for event in run:
            events.append(event)  # noqa: PERF401 - kept even when this is cancelled

    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        for _ in range(5):
            with suppress(TimeoutError):
                await asyncio.wait_for(read(run), 0.005)
        gate.set()
        await read(run)

    assert "".join(event.text for event in events if isinstance(event, Chunk)) == "text"
    assert [event.seq for event in events] == list(range(len(events)))


@on_asyncio
async def test_two_readers_of_one_run_are_refused() -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("hanging", HangingClient())

    async def read(run: AsyncIterator[Event]) -> None:
        async for _ in run:
            pass

    async with orchestrator, orchestrator.stream_responses("Q") as run:
        first = asyncio.create_task(read(run))
        await asyncio.sleep(0.01)
        with pytest.raises(BadCall, match="another task is reading"):
            await anext(run)
        first.cancel()


# --- cancellation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("entered", [True, False])
@on_asyncio
async def test_cancelling_a_task_cancels_its_run_and_waits_for_the_end_of_the_clients(
    *, entered: bool
) -> None:
    orchestrator = MultiLLMOrchestrator()
    hanging = HangingClient()
    orchestrator.register_model("hanging", hanging)
    if entered:
        await orchestrator.__aenter__()

    task = asyncio.create_task(orchestrator.process_responses("Q"))
    await hanging.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    if entered:
        await orchestrator.__aexit__(None, None, None)
    assert hanging.story == ["cancelled", "ended"]
    assert trio_threads() == 0


@on_asyncio
async def test_a_timeout_of_the_run_cancels_the_coroutine_of_a_client() -> None:
    orchestrator, *_ = three()
    hanging = HangingClient()
    orchestrator.register_model("hanging", hanging, weight=9)

    async with orchestrator:
        results = await orchestrator.process_responses("Q", timeout=0.3)

    assert results.status == "degraded"
    assert "hanging" not in results.initial_responses
    assert hanging.story[:2] == ["cancelled", "ended"]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("entered", [True, False])
def test_ctrl_c_ends_runs_and_thread(loop: str, *, entered: bool) -> None:
    story: list[str] = []

    class Interrupting:
        async def generate(self, prompt: str) -> str:
            interrupt()
            try:
                await asyncio.sleep(3600)
            finally:
                story.append("ended")
            return "?"

    async def main() -> None:
        orchestrator = MultiLLMOrchestrator()
        orchestrator.register_model("interrupting", Interrupting())
        if entered:
            async with orchestrator:
                await orchestrator.process_responses("Q")
        else:
            await orchestrator.process_responses("Q")

    with pytest.raises(KeyboardInterrupt):
        run_on(loop, main)

    assert story == ["ended"]
    assert trio_threads() == 0


# --- which thread runs what -------------------------------------------------------------------------


@on_asyncio
async def test_each_kind_of_client_runs_where_it_belongs() -> None:
    class OnTrio:
        async_library = "trio"

        async def generate(self, prompt: str) -> str:
            await trio.sleep(0)  # noqa: ASYNC115
            return threading.current_thread().name

    class Synchronous:
        def generate(self, prompt: str) -> str:
            return threading.current_thread().name

    class OnAsyncio:
        async def generate(self, prompt: str) -> str:
            await asyncio.sleep(0)
            return threading.current_thread().name

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("trio", OnTrio())
    orchestrator.register_model("sync", Synchronous())
    orchestrator.register_model("asyncio", OnAsyncio())

    async with orchestrator:
        results = await orchestrator.process_responses("Q", stages=["initial"])

    where = {name: response.content for name, response in results.initial_responses.items()}
    assert where["trio"] == "ultra"
    assert where["asyncio"] == threading.current_thread().name
    assert where["sync"] not in {"ultra", threading.current_thread().name}


class Telling(MultiLLMOrchestrator):
    """Tells which context its prompt method sees."""

    def _create_custom_prompt(self, responses: StageResponses) -> str:
        return f"prompt method: {colour.get()}"


async def tell_colour(prompt: str) -> str:
    return f"{prompt}, client: {colour.get()}"


def tell_colour_synchronously(prompt: str) -> str:
    return f"{prompt}, client: {colour.get()}"


async def _check_contexts(orchestrator: MultiLLMOrchestrator) -> None:
    stages = ["initial", "custom"]
    for value in ("blue", "red"):
        token = colour.set(value)
        plain = await orchestrator.process_responses("Q", stages=stages, use_cache=False)
        async with orchestrator.stream_responses("Q", stages=stages, use_cache=False) as run:
            streamed = await run.result()
        colour.reset(token)
        for results in (plain, streamed):
            texts = {stage: [str(r) for r in answers.values()] for stage, answers in results.stages.items()}
            assert texts == {
                "initial": [f"Q, client: {value}"] * 2,
                "custom": [f"prompt method: {value}, client: {value}"] * 2,
            }


def _telling() -> Telling:
    orchestrator = Telling(scorer=None)
    orchestrator.register_model("async", tell_colour)
    orchestrator.register_model("sync", tell_colour_synchronously)
    return orchestrator


@on_asyncio
async def test_context_variables_reach_clients_and_prompt_methods() -> None:
    async with _telling() as orchestrator:
        await _check_contexts(orchestrator)


async def test_context_variables_reach_clients_and_prompt_methods_on_trio() -> None:
    async with _telling() as orchestrator:
        await _check_contexts(orchestrator)


@on_asyncio
async def test_a_prompt_method_that_takes_long_does_not_hold_up_the_loop() -> None:
    class Slow(MultiLLMOrchestrator):
        def _create_slow_prompt(self, responses: StageResponses) -> str:
            time.sleep(0.5)
            return "slow"

    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    async with Slow() as orchestrator:
        orchestrator.register_model("one", AsyncioClient())
        begun = time.perf_counter()
        await orchestrator.process_responses("Q", stages=["slow"])
        ended = time.perf_counter()
    ticking.cancel()

    assert sum(begun < at < ended for at in ticks) >= 5
