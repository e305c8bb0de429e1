"""A journal in which something is damaged: the service tells and deletes it, and goes on with the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from helpers.damage import FileDamage
from helpers.service_batches import BATCH, body_of, ended, results_of
from helpers.services import ask, get, service_of
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.service.batches.lines import run_id_of
from ultra.service.native.record import RunList
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ultra.service.batches.endpoint import BatchObject
    from ultra.service.core import Service

RUNS = "/v1/runs"
RESPONSES = "/v1/responses"
QUESTION = {"prompt": "Which city of France?", "ensemble": "council", "background": True}


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Service]:
    def make(**more: Any) -> Service:
        return service_of({"a": FakeModel("Paris.")}, journal=f"sqlite:///{tmp_path}/runs.db", **more)

    return make


@pytest.fixture
def damage(tmp_path: Path) -> FileDamage:
    return FileDamage(tmp_path / "runs.db")


async def finished(service: Service, run_id: str, **more: Any) -> None:
    with trio.fail_after(5):
        await get(service, f"{RUNS}/{run_id}/events", **more)


async def listed(service: Service, query: str = "") -> RunList:
    return msgspec.json.decode((await get(service, f"{RUNS}{query}")).body, type=RunList)


async def test_a_damaged_run_is_told_in_the_list_and_can_be_deleted(
    make: Callable[..., Service], damage: FileDamage
) -> None:
    service = make()
    async with service.running():
        names = [(await ask(service, QUESTION, RUNS)).json["id"] for _ in range(3)]
        for name in names:
            await finished(service, name)
        await damage.spec(names[1], b"France", b"Frbnce")
        told = await get(service, f"{RUNS}/{names[1]}")
        runs = (await listed(service)).data
        after = (await listed(service, f"?cursor={names[1]}")).data
        deleted = await ask(service, b"", f"{RUNS}/{names[1]}", method="DELETE")
        left = (await listed(service)).data

    assert (told.status, told.json["error"]["code"]) == (500, "journal_damaged")
    assert [run.id for run in runs] == names[::-1]
    assert [run.error.code if run.error else None for run in runs] == [None, "journal_damaged", None]
    assert [run.id for run in after] == [names[0]]
    assert deleted.status == 200
    assert [run.id for run in left] == [names[2], names[0]]


async def test_a_damaged_response_can_be_deleted(make: Callable[..., Service], damage: FileDamage) -> None:
    service = make()
    question = {"model": "council", "input": "Which city of France?"}
    async with service.running():
        name = (await ask(service, question, RESPONSES)).json["id"]
        await damage.spec(name.removeprefix("resp_"), b"France", b"Frbnce")
        told = await get(service, f"{RESPONSES}/{name}")
        deleted = await ask(service, b"", f"{RESPONSES}/{name}", method="DELETE")
        gone = await get(service, f"{RESPONSES}/{name}")

    assert told.status == 500
    assert (deleted.status, deleted.json["deleted"]) == (200, True)
    assert gone.status == 404


async def test_a_damaged_run_is_there_for_its_owner_only(
    make: Callable[..., Service], damage: FileDamage
) -> None:
    keys = tuple(KeyConfig(name=name, hash=hash_of(f"secret-of-{name}")) for name in ("Ann", "Bob"))
    service = make(settings=ServeConfig(keys=keys))
    async with service.running():
        ann, bob = ({"authorization": f"Bearer secret-of-{name}"} for name in ("Ann", "Bob"))
        name = (await ask(service, QUESTION, RUNS, headers=ann)).json["id"]
        await finished(service, name, headers=ann)
        await damage.spec(name, b"France", b"Frbnce")
        statuses = [
            (await get(service, f"{RUNS}/{name}", headers=ann)).status,
            (await get(service, f"{RUNS}/{name}", headers=bob)).status,
            (await ask(service, b"", f"{RUNS}/{name}", method="DELETE", headers=bob)).status,
            (await ask(service, b"", f"{RUNS}/{name}", method="DELETE", headers=ann)).status,
        ]
    assert statuses == [500, 404, 404, 200]


async def batch_with_damage(service: Service, damage: FileDamage, what: str) -> BatchObject:
    """A batch of three runs that has ended; then the `spec` or the `events` of the second are damaged."""
    batch = await ended(service, (await ask(service, body_of(3), BATCH)).json["id"])
    word = b"Question" if what == "spec" else b"Paris"
    await getattr(damage, what)(run_id_of(batch.id, 1), word, word[:-1] + b"x")
    return batch


@pytest.mark.parametrize("what", ["spec", "events"])
async def test_a_damaged_run_is_one_line_of_the_results_of_its_batch(
    make: Callable[..., Service], damage: FileDamage, what: str
) -> None:
    service = make()
    async with service.running():
        batch = await batch_with_damage(service, damage, what)
        results = results_of(await get(service, f"{BATCH}/{batch.id}/results"))

    assert [line.error.code if line.error else None for line in results] == [None, "journal_damaged", None]


@pytest.mark.parametrize("what", ["spec", "events"])
async def test_a_batch_goes_on_when_one_of_its_runs_is_damaged(
    make: Callable[..., Service], damage: FileDamage, what: str
) -> None:
    service = make()
    async with service.running():
        batch = await batch_with_damage(service, damage, what)
        await service.orchestrator.with_batches(lambda store: store.update(batch.id, {"ended": None}))
        with trio.fail_after(10):
            again = await ended(service, batch.id)

    failed = what == "spec"  # how a run ended is in its record
    assert (again.completed, again.failed) == (3 - failed, failed)


async def test_a_batch_whose_lines_are_damaged_ends_and_another_one_is_carried_out(
    make: Callable[..., Service], damage: FileDamage
) -> None:
    service = make()
    async with service.running():
        first, second = [
            await ended(service, (await ask(service, body_of(2), BATCH)).json["id"]) for _ in range(2)
        ]
        await damage.lines(first.id, b"Question 1", b"Question \x11")
        for batch in (first, second):
            changes = {"ended": None, "completed": 0}
            await service.orchestrator.with_batches(
                lambda store, batch=batch, changes=changes: store.update(batch.id, changes)  # type: ignore[misc]
            )
        with trio.fail_after(10):
            ends = [await ended(service, batch.id) for batch in (first, second)]
        told = await get(service, f"{BATCH}/{first.id}/results")

    assert [(batch.completed, batch.failed) for batch in ends] == [(0, 2), (2, 0)]
    assert (told.status, told.json["error"]["code"]) == (500, "journal_damaged")


async def test_a_damaged_batch_is_told_and_keeps_no_other_from_being_carried_out(
    make: Callable[..., Service], damage: FileDamage
) -> None:
    service = make()
    async with service.running():
        first = await ended(service, (await ask(service, body_of(2), BATCH)).json["id"])
        await damage.batch(first.id, b"total", b"totbl")
        with trio.fail_after(10):
            second = await ended(service, (await ask(service, body_of(2), BATCH)).json["id"])
        told = [
            await get(service, f"{BATCH}/{first.id}"),
            await get(service, f"{BATCH}/{first.id}/results"),
            await ask(service, b"", f"{BATCH}/{first.id}/cancel"),
        ]

    assert second.completed == 2
    assert [each.json["error"]["code"] for each in told] == ["journal_damaged"] * 3
