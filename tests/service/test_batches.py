"""Batches of runs: accepted as a whole or not at all, carried out within limits, and across a restart."""

from __future__ import annotations

import json
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.service_batches import BATCH, body_of, ended, results_of
from helpers.services import ask, broken_off, get, service_of, until
from ultra import ModelError
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.stores.journal_memory import MemoryJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


async def test_the_runs_of_a_batch_are_carried_out_some_at_a_time(autojump_clock: MockClock) -> None:
    model = FakeModel(seconds=3)
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        accepted = await ask(service, body_of(10), f"{BATCH}?concurrency=4")
        await trio.sleep(5)
        early = results_of(await get(service, f"{BATCH}/{accepted.json['id']}/results"))
        batch = await ended(service, accepted.json["id"])
        results = results_of(await get(service, f"{BATCH}/{batch.id}/results"))

    assert (accepted.json["state"], accepted.json["total"]) == ("running", 10)
    assert model.most_running == 4
    assert [line.line for line in early] == [0, 1, 2, 3]
    assert (batch.state, batch.completed, batch.failed, batch.cancelled) == ("completed", 10, 0, 0)
    assert [line.custom_id for line in results] == [f"c{number}" for number in range(10)]
    for line in results:
        assert line.run
        assert line.run.result
        assert f"Question {line.line}?" in str(line.run.result.final_synthesis)
        assert line.run.model == "a"


async def test_a_run_that_fails_is_one_line_of_the_results() -> None:
    def answer(request: Any) -> Any:
        return ModelError("no", kind="bad_request") if "Question 1?" in request.prompt else "Yes."

    service = service_of({"a": FakeModel(answer)}, journal="memory")
    async with service.running():
        batch = await ended(service, (await ask(service, body_of(3), BATCH)).json["id"])
        results = results_of(await get(service, f"{BATCH}/{batch.id}/results"))

    assert (batch.completed, batch.failed) == (2, 1)
    states = [line.run.state for line in results if line.run]
    assert states == ["completed", "failed", "completed"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (b"", "1 to 10,000"),
        (b"\n".join([b"{}"] * 10_001), "1 to 10,000"),
        (b"nonsense", "line 1"),
        (body_of(1) + b'{"custom_id": "x"}', "line 2"),
        (body_of(1) + body_of(1), "line 2: custom_id"),
        (body_of(1) + b'{"custom_id": "x", "body": {"prompt": "x", "model": "nobody"}}', "line 2"),
        (body_of(1) + b'{"custom_id": "x", "body": {"prompt": "x", "quorum": 9}}', "line 2"),
        (body_of(1) + b'{"custom_id": "x", "body": {"prompt": "x", "stream": true}}', "line 2"),
        (body_of(1) + b'{"custom_id": "x", "url": "/v1/messages", "body": {"prompt": "x"}}', "line 2"),
    ],
)
async def test_a_batch_with_a_wrong_line_is_refused_as_a_whole(lines: bytes, told: str) -> None:
    model = FakeModel("x")
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        answer = await ask(service, lines, BATCH)
        await trio.sleep(0.05)

    assert answer.status in {400, 404}
    assert told in answer.error["message"]
    assert model.calls == []


async def test_a_batch_that_is_cancelled_begins_no_more_runs(autojump_clock: MockClock) -> None:
    model = FakeModel("x", seconds=inf)
    service = service_of({"a": model}, journal="memory")
    async with service.running():
        batch_id = (await ask(service, body_of(9), f"{BATCH}?concurrency=2")).json["id"]
        await trio.sleep(3)
        once = await ask(service, b"", f"{BATCH}/{batch_id}/cancel")
        batch = await ended(service, batch_id)
        twice = await ask(service, b"", f"{BATCH}/{batch_id}/cancel")
        results = results_of(await get(service, f"{BATCH}/{batch_id}/results"))

    assert once.json["state"] == "cancelling"
    assert twice.json["state"] == batch.state == "cancelled"
    assert (batch.completed, batch.cancelled) == (0, 9)
    assert len(model.calls) == model.cancelled == 2
    assert [line.run is not None for line in results] == [True, True, *([False] * 7)]


async def test_a_batch_goes_on_after_a_restart_and_asks_nothing_twice(tmp_path: Path) -> None:
    journal = f"sqlite:///{tmp_path}/runs.db"
    slow = FakeModel("x", seconds=inf)
    first = service_of({"a": FakeModel("x"), "b": slow}, journal=journal)
    lines = body_of(2) + b"".join(
        json.dumps({"custom_id": f"s{number}", "body": {"prompt": f"Slow {number}?", "model": "b"}}).encode()
        + b"\n"
        for number in range(4)
    )
    async with broken_off(first):
        batch_id = (await ask(first, lines, f"{BATCH}?concurrency=2")).json["id"]
        await until(lambda: len(slow.calls) == 2)
    again, quick = FakeModel("again"), FakeModel("y")
    second = service_of({"a": again, "b": quick}, journal=journal)
    async with second.running():
        batch = await ended(second, batch_id)
        results = results_of(await get(second, f"{BATCH}/{batch_id}/results"))

    assert (batch.state, batch.completed) == ("completed", 6)
    assert len(results) == 6
    assert again.calls == []
    assert len(quick.calls) == 4


async def test_an_idempotency_key_finds_the_batch_again() -> None:
    service = service_of({"a": FakeModel("x")}, journal="memory")
    named = {"idempotency-key": "k"}
    async with service.running():
        first = (await ask(service, body_of(2), BATCH, headers=named)).json["id"]
        await ended(service, first)
        again = (await ask(service, body_of(2), BATCH, headers=named)).json
        other = await ask(service, body_of(3), BATCH, headers=named)

    assert (again["id"], again["state"]) == (first, "completed")
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")


def keyed(**limits: Any) -> ServeConfig:
    keys = tuple(KeyConfig(name=name, hash=hash_of(f"sk-{name}"), **limits) for name in ("alice", "bob"))
    return ServeConfig(keys=keys)


def of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


async def test_a_key_sees_its_own_batches_only() -> None:
    service = service_of({"a": FakeModel("x")}, journal="memory", settings=keyed())
    async with service.running():
        batch_id = (await ask(service, body_of(1), BATCH, headers=of("alice"))).json["id"]
        await ended(service, batch_id, headers=of("alice"))
        runs = (await get(service, "/v1/runs", headers=of("alice"))).json["data"]
        refused = [
            await get(service, f"{BATCH}/{batch_id}", headers=of("bob")),
            await get(service, f"{BATCH}/{batch_id}/results", headers=of("bob")),
            await ask(service, b"", f"{BATCH}/{batch_id}/cancel", headers=of("bob")),
        ]

    assert len(runs) == 1
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(404, "batch_not_found")}


async def test_a_batch_keeps_to_the_limits_of_its_key(autojump_clock: MockClock) -> None:
    model = FakeModel("x", seconds=1)
    service = service_of({"a": model}, journal="memory", settings=keyed(concurrency=2))
    async with service.running():
        batch_id = (await ask(service, body_of(6), BATCH, headers=of("alice"))).json["id"]
        batch = await ended(service, batch_id, headers=of("alice"))

    assert batch.completed == 6
    assert model.most_running <= 2


async def test_a_service_whose_journal_keeps_no_batches_says_so() -> None:
    class Plain(MemoryJournal):
        batches = None  # type: ignore[assignment]

        def __setattr__(self, name: str, value: object) -> None:
            if name != "batches":
                super().__setattr__(name, value)

    for service in (service_of({"a": FakeModel("x")}), service_of({"a": FakeModel("x")}, journal=Plain())):
        async with service.running():
            answer = await ask(service, body_of(1), BATCH)
        assert (answer.status, answer.error["code"]) == (400, "unsupported_value")
