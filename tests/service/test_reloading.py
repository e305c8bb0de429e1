"""Another configuration while the service runs: runs go on, and a wrong file changes nothing."""

from __future__ import annotations

import importlib
import json
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.services import CHAT, ask, chat, get, service_of, text_of, until
from ultra.config.keys import hash_of
from ultra.config.loading import load_configuration
from ultra.faults.provider import simulated_provider
from ultra.service.reloading import Reloader
from ultra.service.server import _end, listen, serve
from ultra.service.setup import make_service
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ultra.service.core import Service

PATIENCE = 20.0

MODEL = """
[models.{name}]
model = "openai:{name}"
base_url = "{url}"
api_key = "any-key-will-do"
"""


def keys(*names: str) -> str:
    return "".join(f'[[serve.keys]]\nname = "{name}"\nhash = "{hash_of(name)}"\n' for name in names)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


class Served:
    """A service of a file, and what it told."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self.told: list[str] = []

    def write(self, *models: str, more: str = "") -> None:
        text = "".join(MODEL.format(name=name, url=self.url) for name in models)
        self.path.write_text(text + more, "utf-8")

    def make(self, host: str = "127.0.0.1") -> tuple[Service, Reloader]:
        service = make_service(self.path)
        read = partial(load_configuration, self.path)
        return service, Reloader(service, read, host=host, tell=self.told.append)


def has_told(served: Served, times: int) -> bool:
    return len(served.told) == times


async def test_keys_models_and_ensembles_change_and_limits_too(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt", more=keys("alice"))
        service, reloader = served.make()
        async with service.running():
            before = await ask(service, chat("gpt"), headers=bearer("alice"))
            served.write("gpt", "other", more=f"[ensembles.pair]\n[serve]\nmax_nesting = 2\n{keys('bob')}")
            await reloader.reload()
            gone = await ask(service, chat("gpt"), headers=bearer("alice"))
            deep = await ask(service, chat("gpt", metadata={"a": {"b": {"c": 1}}}), headers=bearer("bob"))
            listed = await ask(service, b"", "/v1/models", method="GET", headers=bearer("bob"))
            after = await ask(service, chat("other"), headers=bearer("bob"))

    assert [before.status, gone.status, deep.status, after.status] == [200, 401, 400, 200]
    assert [entry["id"] for entry in listed.json["data"]] == ["pair", "ultra", "gpt", "other"]
    assert served.told == ["the configuration was reloaded"]


async def test_where_only_the_section_serve_has_changed_the_models_stay_as_they_are(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt", more=keys("alice"))
        service, reloader = served.make()
        async with service.running():
            orchestrator = service.orchestrator
            served.write("gpt", more=keys("alice", "bob"))
            await reloader.reload()
            assert service.orchestrator is orchestrator
            answer = await ask(service, chat("gpt"), headers=bearer("bob"))
            served.write("gpt", more=f"[run]\ntimeout = 9\n{keys('bob')}")
            await reloader.reload()
            assert service.orchestrator is not orchestrator

    assert answer.status == 200


async def test_kept_runs_are_still_there_after_a_reload(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt")
        service, reloader = served.make()
        async with service.running():
            body = {"prompt": "x", "model": "gpt", "background": True}
            before = (await ask(service, body, "/v1/runs")).json["id"]
            served.write("gpt", more="[run]\ntimeout = 9\n")
            await reloader.reload()
            after = (await ask(service, body, "/v1/runs")).json["id"]
            for run_id in (before, after):
                await get(service, f"/v1/runs/{run_id}/events")
            runs = (await get(service, "/v1/runs")).json["data"]

    assert [(run["id"], run["state"], run["executions"]) for run in runs] == [
        (after, "completed", 1),
        (before, "completed", 1),
    ]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("[models", "TOML"),
        ("[models.x]\nmodel = 'nobody:x'\n", "nobody"),
        (MODEL.format(name="gpt", url="http://127.0.0.1:9/v1"), "there are no keys"),
        (
            MODEL.format(name="gpt", url="http://127.0.0.1:9/v1")
            + f'[serve]\nbudgets = "sqlite:///x.db"\n{keys("bob")}',
            "only be changed by starting again",
        ),
        (
            MODEL.format(name="gpt", url="http://127.0.0.1:9/v1")
            + f'[journal]\nstore = "sqlite:///x.db"\n{keys("bob")}',
            "where runs are kept can only be changed by starting again",
        ),
        (MODEL.format(name="gpt", url="http://127.0.0.1:9/v1") + keys("bob", "bob"), "two keys of the name"),
    ],
)
async def test_a_wrong_file_changes_nothing_and_is_told(tmp_path: Path, wrong: str, told: str) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt", more=keys("alice"))
        service, reloader = served.make(host="0.0.0.0")
        async with service.running():
            served.path.write_text(wrong, "utf-8")
            with structlog.testing.capture_logs() as logs:
                await reloader.reload()
            served.path.unlink()
            await reloader.reload()
            answer = await ask(service, chat("gpt"), headers=bearer("alice"))

    assert answer.status == 200
    (entry,) = [entry for entry in logs if entry["event"] == "reload failed"]
    assert told in entry["error"]
    assert all(line.startswith("the configuration is as it was") for line in served.told)
    assert len(served.told) == 2


async def test_what_nobody_has_thought_of_changes_nothing_and_is_told() -> None:
    """Reading may call code of anybody's: strategies, clients, sources of one's own."""
    told: list[str] = []

    def read() -> Any:
        raise ZeroDivisionError("of somebody's code")

    service = service_of({"a": FakeModel("Paris.")})
    async with service.running():
        await Reloader(service, read, host="127.0.0.1", tell=told.append).reload()
        answer = await ask(service, chat("a"))

    assert len(told) == 1
    assert "of somebody's code" in told[0]
    assert answer.status == 200


async def test_fifty_streams_under_way_are_told_whole_over_several_reloads(tmp_path: Path) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt", more=keys("alice"))
        service, reloader = served.make()
        orchestrator: Any = service.orchestrator
        model = FakeModel("one two three", gated=True)
        orchestrator.register_model("slow", model)
        send, receive = trio.open_memory_channel[int](9)
        urls: list[str] = []
        announced = trio.Event()
        answers: list[httpx.Response] = []

        def announce(url: str) -> None:
            urls.append(url)
            announced.set()

        async def one(client: httpx.AsyncClient, number: int) -> None:
            body = chat("slow", text=str(number), stream=True)
            answers.append(await client.post(CHAT, json=body, headers=bearer("alice")))

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                start = partial(
                    serve,
                    service,
                    listen("127.0.0.1", 0),
                    announce=announce,
                    signals=aiter(receive),
                    reload=reloader.reload,
                )
                nursery.start_soon(start)
                await announced.wait()
                limits = httpx.Limits(max_connections=100)
                client = httpx.AsyncClient(base_url=urls[0], trust_env=False, timeout=PATIENCE, limits=limits)
                async with client, trio.open_nursery() as asking:
                    for number in range(50):
                        asking.start_soon(one, client, number)
                    await until(lambda: service._active == 50 and len(model.calls) > 0)
                    for number in range(3):
                        served.write("gpt", f"new{number}", more=keys("bob"))
                        await send.send(signal.SIGHUP)
                        await until(partial(has_told, served, number + 1))
                    refused = await client.post(CHAT, json=chat("gpt"), headers=bearer("alice"))
                    fresh = await client.post(CHAT, json=chat("new2"), headers=bearer("bob"))
                    model.gate.set()
                await send.send(signal.SIGTERM)

    assert [refused.status_code, fresh.status_code] == [401, 200]
    assert len(answers) == 50
    for answer in answers:
        chunks = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
        assert text_of(chunks) == "one two three"
        assert answer.text.endswith("data: [DONE]\n\n")


SLOW_CLIENT = """
import threading

begun, released = threading.Event(), threading.Event()

class Slow:
    def __init__(self):
        begun.set()
        released.wait(20)

    async def generate(self, prompt):
        return "slow"
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module with a client whose constructor takes as long as the test lets it."""
    (tmp_path / "slow_client.py").write_text(SLOW_CLIENT, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("slow_client")
    yield module
    module.released.set()
    sys.modules.pop("slow_client", None)


WITH_SLOW = '[models.slow]\nclient = "slow_client:Slow"\n'


async def test_a_client_that_takes_long_to_be_made_stalls_nobody(tmp_path: Path, slow: Any) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt")
        service, reloader = served.make()
        with trio.fail_after(PATIENCE):
            async with service.running(), trio.open_nursery() as nursery:
                served.write("gpt", more=WITH_SLOW)
                nursery.start_soon(reloader.reload)
                await until(slow.begun.is_set)
                meanwhile = await ask(service, chat("gpt"))
                before = await ask(service, chat("slow"))
                slow.released.set()
                await until(partial(has_told, served, 1))
                after = await ask(service, chat("slow"))

    assert (meanwhile.status, before.status, after.status) == (200, 404, 200)
    assert served.told == ["the configuration was reloaded"]


async def test_a_reload_that_takes_long_does_not_hold_up_the_end(tmp_path: Path, slow: Any) -> None:
    async with simulated_provider() as provider:
        served = Served(tmp_path / "ultra.toml", provider.base_url("openai"))
        served.write("gpt")
        service, reloader = served.make()
        send, receive = trio.open_memory_channel[int](9)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                serving = partial(
                    serve, announce=lambda _: None, signals=aiter(receive), reload=reloader.reload
                )
                nursery.start_soon(serving, service, listen("127.0.0.1", 0))
                served.write("gpt", more=WITH_SLOW)
                await send.send(signal.SIGHUP)
                await until(slow.begun.is_set)
                await send.send(signal.SIGTERM)

    assert not slow.released.is_set()
    assert served.told == []


async def test_signals_that_come_during_a_reload_are_one_more_reload() -> None:
    send, receive = trio.open_memory_channel[int](9)
    reloads: list[int] = []
    gate, begun = trio.Event(), trio.Event()

    async def reload() -> None:
        reloads.append(len(reloads))
        begun.set()
        await gate.wait()

    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end, aiter(receive), reload)
            await send.send(signal.SIGHUP)
            await begun.wait()
            for _ in range(3):
                await send.send(signal.SIGHUP)
            await wait_all_tasks_blocked()
            gate.set()
            await wait_all_tasks_blocked()
            await send.send(signal.SIGTERM)

    assert len(reloads) == 2
