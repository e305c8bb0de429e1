"""Replicas on Ray Serve under load, or ill; models that a configuration places. Left out unless asked for."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from helpers.command_line import ended, ultra_running

pytest.importorskip("ray", reason="the extra 'ray' is not installed")

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own

PATIENCE = 60.0
"""Seconds after which a test gives up. A replica takes some to start."""

MODULE = '''
import asyncio, os, time
from pathlib import Path

import trio

from ultra import MultiLLMOrchestrator

HERE = Path(__file__).parent
MADE = []
make = MultiLLMOrchestrator.__init__


def noted(self, *arguments, **named):
    MADE.append(self)
    make(self, *arguments, **named)


MultiLLMOrchestrator.__init__ = noted


class Model:
    """Answers with the id of its process; prompts say what else it does."""

    def __init__(self, *, fine=True):
        pass

    async def generate(self, prompt):
        while "wait" in prompt and not (HERE / "go on").exists():
            await asyncio.sleep(0.02)
        return f"process {os.getpid()}"


class Ill:
    """As `Model`, on trio, in the thread of the actors, which it can end or stop."""

    async_library = "trio"

    async def generate(self, prompt):
        if "end" in prompt:
            for each in MADE:
                trio.lowlevel.spawn_system_task(each.aclose)
        elif "hang" in prompt:
            time.sleep(3600)
        await trio.lowlevel.checkpoint()
        return f"process {os.getpid()}"
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served_models.py").write_text(MODULE, "utf-8")
    return tmp_path


def configured(folder: Path, kind: str, more: str = "") -> Path:
    path = folder / "ultra.toml"
    path.write_text(
        f'[models.guide]\nclient = "served_models:{kind}"\n{more}\n'
        "[run]\ntimeout = 40\n[cache]\nenabled = false\n[serve]\njoin = false\n",
        "utf-8",
    )
    return path


@asynccontextmanager
async def served(folder: Path, path: Path, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service, as it is deployed with these options, until the end of the block."""
    from ray import serve  # noqa: PLC0415 - importing it warns

    from ultra.cluster.ray import serve_app  # noqa: PLC0415 - as above

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"env_vars": {"PYTHONPATH": str(folder)}}

    def deploy() -> None:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve_app(path, ray_actor_options={"num_cpus": 0.1, "runtime_env": variables}, **options)

    try:
        await trio.to_thread.run_sync(deploy)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
            yield client
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(serve.shutdown)


async def asked(client: httpx.AsyncClient, question: str) -> str:
    """The answer, or what went wrong."""
    body = {"model": "guide", "messages": [{"role": "user", "content": question}]}
    try:
        response = await client.post("/v1/chat/completions", json=body)
        return str(response.json()["choices"][0]["message"]["content"])
    except (httpx.HTTPError, KeyError, ValueError) as error:
        return f"no answer: {error!r}"


def replicas() -> int:
    """How many replicas run."""
    from ray import serve  # noqa: PLC0415 - importing it warns

    (deployment,) = serve.status().applications["ultra"].deployments.values()
    states: dict[str, int] = dict(deployment.replica_states)  # type: ignore[arg-type] # they are texts
    return states.get("RUNNING", 0)


def is_said_to_be_ill() -> bool:
    """Whether a health check has failed, as Serve tells it."""
    from ray import serve  # noqa: PLC0415 - importing it warns

    (deployment,) = serve.status().applications["ultra"].deployments.values()
    return deployment.status == "UNHEALTHY" and "health check failed" in deployment.message


async def until_there_are(number: int) -> None:
    while await trio.to_thread.run_sync(replicas) != number:  # noqa: ASYNC110 - another process counts
        await trio.sleep(0.05)


async def test_replicas_come_with_the_load_and_go_with_it(cluster: str, folder: Path) -> None:
    scaling = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.1,
        "downscale_delay_s": 0.1,
        "metrics_interval_s": 0.1,
        "look_back_period_s": 0.5,
    }
    answers: list[str] = []

    async def ask(client: httpx.AsyncClient, number: int) -> None:
        answers.append(await asked(client, f"wait {number}"))

    with trio.fail_after(PATIENCE):
        async with served(folder, configured(folder, "Model"), autoscaling_config=scaling) as client:
            first = await asked(client, "?")
            assert await trio.to_thread.run_sync(replicas) == 1
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(ask, client, number)
                await until_there_are(2)
                while (other := await asked(client, "?")) == first:
                    assert other.startswith("process")
                (folder / "go on").touch()
            assert len(answers) == 6
            assert set(answers) <= {first, other}  # nobody lost an answer by it
            await until_there_are(1)


@pytest.mark.parametrize("how", ["end", "hang"])
async def test_a_replica_whose_actors_have_ended_or_hang_is_replaced(
    cluster: str, folder: Path, how: str
) -> None:
    options = {
        "num_replicas": 1,
        "health_check_period_s": 0.3,
        "health_check_timeout_s": 1.0,
        "graceful_shutdown_timeout_s": 1.0,
    }
    with trio.fail_after(PATIENCE):
        async with served(folder, configured(folder, "Ill"), **options) as client:
            ill = await asked(client, "?")
            assert ill.startswith("process")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asked, client, how)
                while not await trio.to_thread.run_sync(is_said_to_be_ill):  # noqa: ASYNC110 - as above
                    await trio.sleep(0.05)
                while (await _soon(client)).removeprefix("process ") in {ill.split()[1], ""}:
                    pass
                nursery.cancel_scope.cancel()
            process = int(ill.split()[1])
            while Path(f"/proc/{process}").exists():  # noqa: ASYNC110, ASYNC240 - it is another's
                await trio.sleep(0.05)


async def _soon(client: httpx.AsyncClient) -> str:
    """The answer of a process; nothing if it does not come in two seconds, or goes wrong."""
    answer = ""
    with trio.move_on_after(2):
        answer = await asked(client, "?")
        if not answer.startswith("process"):
            await trio.sleep(0.05)
    return answer if answer.startswith("process") else ""


PLACED = 'placement = { num_cpus = 0, runtime_env = { env_vars = { PYTHONPATH = "%s" } } }\n'


async def test_a_replica_has_its_models_in_processes_of_their_own(cluster: str, folder: Path) -> None:
    path = configured(folder, "Model", PLACED % folder)
    with trio.fail_after(PATIENCE):
        async with served(folder, path, num_replicas=1) as client:
            process = int((await asked(client, "?")).removeprefix("process "))
            command = Path(f"/proc/{process}/cmdline").read_bytes()  # noqa: ASYNC240 - it is in memory
            assert b"ModelHost" in command


async def test_the_command_serves_models_that_its_configuration_places(
    cluster: str, folder: Path, ray_settings: dict[str, str]
) -> None:
    path = configured(folder, "Model", f'{PLACED % folder}[cluster.ray]\naddress = "{cluster}"\n')
    variables = {"PYTHONPATH": str(folder), **ray_settings}
    arguments = ("serve", "--config", str(path), "--port", "0")
    with trio.fail_after(PATIENCE):
        async with ultra_running(*arguments, env=variables) as server:
            assert server.stdout is not None
            address = (await server.stdout.receive_some()).decode().split()[-1]
            async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
                process = int((await asked(client, "?")).removeprefix("process "))
            assert process != server.pid
            assert b"ModelHost" in Path(f"/proc/{process}/cmdline").read_bytes()  # noqa: ASYNC240 - as above
            server.terminate()
            assert (await ended(server))[0] == 0
    with trio.fail_after(PATIENCE):
        while Path(f"/proc/{process}").exists():  # noqa: ASYNC110, ASYNC240 - it is another's
            await trio.sleep(0.05)
