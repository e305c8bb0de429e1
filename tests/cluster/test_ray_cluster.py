"""Placed models, and the service, on a Ray cluster of this machine. Left out unless asked for: `-m ray`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

from helpers.paths import EXAMPLES
from helpers.placed_clients import Guide, NoSuchCity, TrioGuide, Unmakeable
from ultra import MultiLLMOrchestrator
from ultra.cluster.ray import place
from ultra.errors import ActorCrashed, AllAttemptsFailed, BadCall, ConfigError, ModelError
from ultra.events import Chunk
from ultra.faults.provider import simulated_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.cluster.ray import PlacedModel
    from ultra.faults.provider import SimulatedProvider
    from ultra.messages.results import ModelResponse

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own

PATIENCE = 60.0
"""Seconds after which a test gives up. A process takes one or two to start."""


@pytest.fixture
def guide(cluster: str, tmp_path: Path) -> PlacedModel:
    return place(partial(Guide, str(tmp_path)), num_cpus=0)


@pytest.fixture
async def orchestrator(guide: PlacedModel) -> AsyncIterator[MultiLLMOrchestrator]:
    orchestrator = MultiLLMOrchestrator(max_retries=0, cache_enabled=False)
    orchestrator.register_model("guide", guide)
    with trio.fail_after(PATIENCE):
        async with orchestrator:
            yield orchestrator


async def ask(orchestrator: MultiLLMOrchestrator, prompt: str, **more: Any) -> ModelResponse:
    results = await orchestrator.process_responses(prompt, stages=["initial"], **more)
    response: ModelResponse = results["initial_responses"]["guide"]
    return response


def process_of(response: ModelResponse) -> int:
    return int(response.content.rpartition(" ")[2])


def restarts(orchestrator: MultiLLMOrchestrator) -> int:
    return orchestrator.tree().find("/models/guide").restarts


async def until(condition: Any) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - another process does it
            await trio.sleep(0.01)


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- placed models -----------------------------------------------------------------------------------


async def test_text_comes_while_the_process_writes_it(
    orchestrator: MultiLLMOrchestrator, tmp_path: Path
) -> None:
    text: list[str] = []
    async with orchestrator.stream_responses("in two parts", stages=["initial"]) as stream:
        async for event in stream:
            if isinstance(event, Chunk):
                if not text:
                    (tmp_path / "go on").touch()  # the process waits for it
                text.append(event.text)
    assert len(text) == 2
    assert text[0] == "Paris, "
    assert text[1].startswith("by ")


async def test_the_model_is_in_another_process_which_ends_with_the_orchestrator(
    guide: PlacedModel,
) -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("guide", guide)
    async with orchestrator:
        process = process_of(await ask(orchestrator, "?"))
        assert process != os.getpid()
        assert is_alive(process)
    await until(lambda: not is_alive(process))


async def test_a_cancelled_run_has_stopped_the_work_in_the_process(
    orchestrator: MultiLLMOrchestrator, tmp_path: Path
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, orchestrator, "never")
            await until((tmp_path / "begun").exists)
            scope.cancel()
    await until((tmp_path / "cancelled").exists)
    assert process_of(await ask(orchestrator, "?")) == int((tmp_path / "made").read_text())
    assert restarts(orchestrator) == 0


async def test_the_deadline_of_a_run_ends_the_work_in_the_process(
    orchestrator: MultiLLMOrchestrator, tmp_path: Path
) -> None:
    await ask(orchestrator, "?")  # so that the time is that of the call
    with pytest.raises(Exception, match=r"in time|over"):
        await ask(orchestrator, "never", timeout=0.5)
    await until((tmp_path / "cancelled").exists)
    assert restarts(orchestrator) == 0


async def test_an_error_of_the_client_arrives_as_the_same_class(
    orchestrator: MultiLLMOrchestrator, guide: PlacedModel
) -> None:
    with pytest.raises(AllAttemptsFailed) as caught:
        await orchestrator.get_model_response(model=guide, prompt="fail", stage="initial")

    failure = caught.value.__cause__
    assert isinstance(failure, ModelError)
    assert type(failure.__cause__) is NoSuchCity
    assert str(failure.__cause__) == "Atlantis"
    assert restarts(orchestrator) == 0


async def test_a_process_that_is_killed_is_a_crash_and_the_next_call_works(
    orchestrator: MultiLLMOrchestrator,
) -> None:
    process = process_of(await ask(orchestrator, "?"))

    os.kill(process, signal.SIGKILL)

    await until(lambda: restarts(orchestrator) == 1)  # though nobody asks
    assert process_of(await ask(orchestrator, "?")) != process
    assert restarts(orchestrator) == 1


async def test_what_was_in_flight_when_the_process_died_is_asked_again(
    orchestrator: MultiLLMOrchestrator, tmp_path: Path
) -> None:
    response = await ask(orchestrator, "die once")

    assert (tmp_path / "died").exists()
    assert is_alive(process_of(response))
    assert restarts(orchestrator) == 1


async def test_a_request_that_kills_every_process_fails_and_others_do_not(
    orchestrator: MultiLLMOrchestrator, guide: PlacedModel
) -> None:
    with pytest.raises(ActorCrashed, match=r"2 deliveries.*the process of the model has died"):
        await orchestrator.get_model_response(model=guide, prompt="die", stage="initial")

    assert (await ask(orchestrator, "?")).content.startswith("Paris, ")
    assert restarts(orchestrator) == 2


async def test_a_client_on_trio_is_cancelled_and_its_errors_say_all_that_they_say(
    cluster: str, tmp_path: Path
) -> None:
    placed = place(partial(TrioGuide, str(tmp_path)), num_cpus=0)
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("guide", placed)
    with trio.fail_after(PATIENCE):
        async with orchestrator:
            with pytest.raises(AllAttemptsFailed) as caught:
                await orchestrator.get_model_response(model=placed, prompt="fail", stage="initial")
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    (tmp_path / "begun").unlink()
                    nursery.start_soon(ask, orchestrator, "never")
                    await until((tmp_path / "begun").exists)
                    scope.cancel()
            await until((tmp_path / "cancelled").exists)
    error = caught.value.__cause__
    assert isinstance(error, ModelError)
    assert (error.kind, error.retry_after, error.message) == ("overloaded", 7.0, "busy")


async def test_many_calls_at_once_share_one_process(orchestrator: MultiLLMOrchestrator) -> None:
    processes: set[int] = set()

    async def call(number: int) -> None:
        processes.add(process_of(await ask(orchestrator, f"question {number}")))

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(call, number)
    assert len(processes) == 1


async def test_a_request_to_a_client_that_cannot_be_made_says_why(cluster: str, tmp_path: Path) -> None:
    orchestrator = MultiLLMOrchestrator()
    placed = place(partial(Unmakeable, str(tmp_path)), num_cpus=0)
    orchestrator.register_model("guide", placed)
    with trio.fail_after(PATIENCE):
        async with orchestrator:
            with pytest.raises(ActorCrashed, match=r"cannot be made: FileNotFoundError: no weights in"):
                await orchestrator.get_model_response(model=placed, prompt="?", stage="initial")


def test_from_asyncio_a_placed_model_answers_as_any_other(cluster: str, guide: PlacedModel) -> None:
    async def main() -> ModelResponse:
        orchestrator = MultiLLMOrchestrator()
        orchestrator.register_model("guide", guide)
        async with orchestrator:
            return await ask(orchestrator, "?")

    assert asyncio.run(main()).content.startswith("Paris, ")


# --- the service on Ray Serve ------------------------------------------------------------------------


@pytest.fixture
async def provider() -> AsyncIterator[SimulatedProvider]:
    async with simulated_provider(tokens_per_second=50) as provider:
        yield provider


@pytest.fixture
def configuration(provider: SimulatedProvider, tmp_path: Path) -> Path:
    path = tmp_path / "ultra.toml"
    path.write_text(
        '[models.guide]\nmodel = "openai:any"\napi_key = "sk-none-of-anybody"\n'
        f'base_url = "{provider.base_url("openai")}"\n[cache]\nenabled = false\n'
    )
    return path


def chat(question: str) -> dict[str, Any]:
    message = {"role": "user", "content": question}
    return {"model": "guide", "stream": True, "messages": [message]}


async def test_replicas_stream_over_http_and_finish_what_they_began_when_they_are_deleted(
    cluster: str, configuration: Path, provider: SimulatedProvider
) -> None:
    from ray import serve  # noqa: PLC0415 - importing it warns

    from ultra.cluster.ray import serve_app  # noqa: PLC0415 - as above

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def deploy() -> None:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve_app(configuration, num_replicas=2, ray_actor_options={"num_cpus": 0.1}, route_prefix="/council")

    with trio.fail_after(PATIENCE):
        await trio.to_thread.run_sync(deploy)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/council", timeout=PATIENCE) as client:
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["models"]) == (200, {"guide": "up"})

            async with client.stream("POST", "/v1/chat/completions", json=chat("Hang up")) as response:
                assert await anext(response.aiter_lines())
            assert await provider.requests[-1].wait_ended() == "abandoned"

            async with client.stream("POST", "/v1/chat/completions", json=chat("Why?")) as response:
                lines = response.aiter_lines()
                assert response.status_code == 200
                assert (await anext(lines)).startswith("data: ")
                assert provider.requests[-1].outcome == "open"  # it still writes
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.to_thread.run_sync, partial(serve.delete, "ultra"))
                    rest = [line async for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert await provider.requests[-1].wait_ended() == "answered"
        await trio.to_thread.run_sync(serve.shutdown)


def test_a_wrong_configuration_is_told_before_anything_is_deployed(tmp_path: Path) -> None:
    from ultra.cluster.ray import serve_app  # noqa: PLC0415 - importing it warns

    wrong = tmp_path / "ultra.toml"
    wrong.write_text("[models.guide]\nmodle = 'openai:any'\n")

    with pytest.raises(ConfigError, match="modle"):
        serve_app(wrong)
    with pytest.raises(BadCall, match="config is of type dict"):
        serve_app({})  # type: ignore[arg-type]
    wrong.write_text("[models.guide]\nmodel = 'openai:any'\napi_key = 'sk-none-of-anybody'\n")
    with pytest.raises(BadCall, match="num_replicaz"):
        serve_app(wrong, num_replicaz=2)


def test_the_example_runs_on_two_raylets_and_ends_by_itself() -> None:
    example = [sys.executable, str(EXAMPLES / "ray_cluster.py")]
    done = subprocess.run(example, capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 0, done.stderr
    assert "a cluster of 2 machines" in done.stdout
    assert "success: (left) Question: And now? - merged by process" in done.stdout
