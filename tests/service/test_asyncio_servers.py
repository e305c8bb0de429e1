"""The same application under uvicorn and Granian, on asyncio."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import uvicorn

from helpers.command_line import environment, programs
from helpers.event_loops import on_asyncio
from helpers.services import CHAT, chat, service_of, until
from ultra.config.serving import ServeConfig
from ultra.service.app import make_app
from ultra.service.server import listen
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from ultra.service.core import Service

PATIENCE = 60.0
MESSAGES: Any = [{"role": "user", "content": "Which city?"}]


@asynccontextmanager
async def under_uvicorn(service: Service) -> AsyncIterator[str]:
    listener = listen("127.0.0.1", 0)
    config = uvicorn.Config(make_app(service), log_level="warning", timeout_graceful_shutdown=5, ws="none")
    server = uvicorn.Server(config)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True


@on_asyncio
async def test_uvicorn_answers_the_official_async_client() -> None:
    models = {"a": FakeModel(FakeAnswer("It ", "is ", "Paris.")), "b": FakeModel("Lyon.")}
    async with under_uvicorn(service_of(models)) as url:
        http: Any = httpx.AsyncClient(trust_env=False)  # its own types want a fork of httpx
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", http_client=http) as client:
            whole = await client.chat.completions.create(model="council", messages=MESSAGES)
            stream = await client.chat.completions.create(model="council", messages=MESSAGES, stream=True)
            async with stream:
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert whole.choices[0].message.content == text == "It is Paris."


@on_asyncio
async def test_under_uvicorn_runs_go_on_in_the_background_alone_and_in_batches(tmp_path: Path) -> None:
    models = {"a": FakeModel(FakeAnswer("It ", "is ", "Paris.")), "slow": FakeModel(seconds=inf)}
    service = service_of(models, journal=f"sqlite:///{tmp_path}/runs.db", ensemble={"models": ("a",)})
    lines = "\n".join(
        f'{{"custom_id": "{number}", "body": {{"prompt": "Q{number}", "model": "a"}}}}' for number in range(4)
    )
    async with under_uvicorn(service) as url:
        http: Any = httpx.AsyncClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", http_client=http) as client:
            stream = await client.responses.create(model="a", input="Q", background=True, stream=True)
            async with stream:
                events: Any = [event async for event in stream]
            name = events[0].response.id
            rest = await client.responses.retrieve(name, stream=True, starting_after=2)
            async with rest:
                again = [event async for event in rest]
            slow = await client.responses.create(model="slow", input="Q", background=True)
            cancelled = await client.responses.cancel(slow.id)
            await client.responses.delete(slow.id)
            batch = (await http.post(f"{url}/v1/runs/batch", content=lines)).json()
            while batch["ended_at"] is None:
                batch = (await http.get(f"{url}/v1/runs/batch/{batch['id']}")).json()
            results = (await http.get(f"{url}/v1/runs/batch/{batch['id']}/results")).text

    assert events[-1].response.output_text == "It is Paris."
    assert again == events[3:]
    assert cancelled.status == "cancelled"
    assert (batch["state"], batch["completed"]) == ("completed", 4)
    assert len(results.splitlines()) == 4


@on_asyncio
async def test_uvicorn_streams_the_text_as_it_is_written_and_a_hang_up_cancels() -> None:
    model = FakeModel([FakeAnswer("It ", "is ", piece_seconds=inf)])
    service = service_of({"a": model}, settings=ServeConfig(linger=0))
    async with (
        under_uvicorn(service) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        async with client.stream("POST", CHAT, json=chat("a", stream=True)) as response:
            async for line in response.aiter_lines():
                if "It " in line:
                    break
        await until(lambda: not model.running)

    assert model.cancelled == 1


@on_asyncio
async def test_uvicorn_cancels_a_plain_request_that_is_given_up() -> None:
    model = FakeModel(seconds=inf)
    service = service_of({"a": model}, settings=ServeConfig(linger=0))
    async with under_uvicorn(service) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(CHAT, json=chat("a"), timeout=0.3)
        await until(lambda: not model.running)

    assert model.cancelled == 1


@on_asyncio
async def test_uvicorn_streams_the_events_of_a_run() -> None:
    async with (
        under_uvicorn(service_of({"a": FakeModel("Paris.")})) as url,
        httpx.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        answer = await client.post("/v1/runs", json={"prompt": "x", "stream": True, "format": "jsonl"})

    assert answer.text.rstrip().rpartition("\n")[2].startswith('{"type":"run_completed"')


CONFIGURATION = """
[models.a]
model = "openai:any"
base_url = "{base_url}"
api_key = "any-key-will-do"

[ensembles.council]
models = ["a"]
strategy = "best_of"
"""


@contextmanager
def process(*command: str, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(command, env=environment(env), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_granian_serves_the_application_of_a_configuration(tmp_path: Path) -> None:
    pytest.importorskip("granian")
    reserved = listen("127.0.0.1", 0)
    port = reserved.getsockname()[1]
    reserved.close()
    with process(str(programs() / "ultra"), "provider", env={}) as provider:
        assert provider.stdout is not None
        first = provider.stdout.readline().decode()
        base_url = first.rpartition(" ")[2].strip() + "/openai/v1"
        exports = [first]
        while "ULTRA_PROVIDER_PID" not in exports[-1]:
            exports.append(provider.stdout.readline().decode())
        found = [line for line in exports if "OPENAI_BASE_URL" in line]
        base_url = found[0].partition("=")[2].strip().strip("'\"") if found else base_url
        file = tmp_path / "ultra.toml"
        file.write_text(CONFIGURATION.format(base_url=base_url), "utf-8")
        granian = (sys.executable, "-m", "granian", "--interface", "asgi", "--factory", "--no-ws")
        env = {"ULTRA_CONFIG": str(file)}
        with process(*granian, "--port", str(port), "ultra.service:app_from_config", env=env) as server:
            url = f"http://127.0.0.1:{port}"
            with httpx.Client(base_url=url, trust_env=False, timeout=PATIENCE) as client:
                wait_for(client, server)
                whole = client.post(CHAT, json=chat())
                streamed = client.post(CHAT, json=chat("a", stream=True))
            os.kill(server.pid, signal.SIGTERM)
            server.wait(PATIENCE)

    assert whole.status_code == 200
    assert whole.json()["choices"][0]["message"]["content"]
    assert streamed.text.endswith("data: [DONE]\n\n")


def wait_for(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        assert server.poll() is None, server.communicate()
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the server does not answer")
