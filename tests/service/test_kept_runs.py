"""Kept runs by Ultra's own protocol: in the background, listed, followed, cancelled, deleted."""

from __future__ import annotations

import base64
import json
from math import inf
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from helpers.services import Answer, ask, broken_off, get, partial_events, service_of, until
from ultra import ModelError
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.errors import JournalUnavailable
from ultra.messages.events import Event
from ultra.service.native.record import KeptRunObject, RunList
from ultra.stores.journal_memory import MemoryJournal
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from ultra.service.core import Service

RUNS = "/v1/runs"
QUESTION = {"prompt": "Which city?", "ensemble": "council", "background": True}
SECRET = "sk-secret-0123456789"


def cities(**more: Any) -> dict[str, object]:
    return {"a": FakeModel("Paris.", **more), "b": FakeModel("Lyon.", **more)}


def events_of(answer: Answer) -> list[Any]:
    """The events of a stream, each under its number."""
    events = []
    for frame in answer.body.decode().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in frame.splitlines() if not line.startswith(":"))
        if lines:
            event = msgspec.json.decode(lines["data"], type=Event)
            assert int(lines["id"]) == event.seq
            events.append(event)
    return events


async def ended(service: Service, run_id: str, **more: Any) -> KeptRunObject:
    """The run, once it has ended."""
    await get(service, f"{RUNS}/{run_id}/events", **more)
    return msgspec.json.decode((await get(service, f"{RUNS}/{run_id}", **more)).body, type=KeptRunObject)


async def test_a_run_in_the_background_goes_on_by_itself_and_keeps_its_result() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        accepted = await ask(service, {**QUESTION, "metadata": {"order": "7"}}, RUNS)
        run = await ended(service, accepted.json["id"])
        events = events_of(await get(service, f"{RUNS}/{run.id}/events"))

    begun = msgspec.json.decode(accepted.body, type=KeptRunObject)
    assert accepted.status == 200
    assert accepted.headers["x-ultra-run-id"] == run.id
    assert begun.state in {"queued", "running"}
    assert begun.result is msgspec.UNSET
    assert (run.state, run.model, run.protocol, run.models) == ("completed", "council", "runs", ("a", "b"))
    assert run.metadata == {"order": "7"}
    assert run.result
    assert str(run.result.final_synthesis) == "Paris."
    assert [event.seq for event in events] == list(range(run.events))
    assert events[-1].result.run_id == run.id


async def test_events_go_on_behind_the_last_one_that_the_client_has() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        run_id = (await ask(service, QUESTION, RUNS)).json["id"]
        path = f"{RUNS}/{run_id}/events"
        whole = events_of(await get(service, path))
        by_header = events_of(await get(service, path, headers={"last-event-id": "2"}))
        by_query = events_of(await get(service, f"{path}?after=2"))
        both = events_of(await get(service, f"{path}?after=0", headers={"last-event-id": "2"}))
        nothing = await get(service, path, headers={"last-event-id": str(whole[-1].seq)})
        wrong = await get(service, path, headers={"last-event-id": "x"})
        too_small = await get(service, f"{path}?after=-2")

    assert by_header == by_query == both == whole[3:]
    assert (nothing.status, nothing.body) == (204, b"")
    assert (wrong.status, wrong.error["param"]) == (400, "Last-Event-ID")
    assert (too_small.status, too_small.error["param"]) == (400, "after")


async def test_a_run_tells_what_was_asked_with_its_attachments_where_that_is_wanted() -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(32)).decode()
    document = "data:text/plain;base64," + base64.b64encode(b"A report.").decode()
    asked = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": picture}},
                {"type": "file", "file": {"filename": "report.txt", "file_data": document}},
            ],
        },
    ]
    service = service_of(cities(), journal="memory")
    async with service.running():
        run_id = (await ask(service, {**QUESTION, "prompt": asked}, RUNS)).json["id"]
        await ended(service, run_id)
        with_messages = (await get(service, f"{RUNS}/{run_id}?messages=true")).json
        without = (await get(service, f"{RUNS}/{run_id}")).json
        wrong = await get(service, f"{RUNS}/{run_id}?messages=perhaps")
        again = await ask(service, {**QUESTION, "prompt": with_messages["messages"]}, RUNS)

    assert with_messages["messages"] == asked
    assert "messages" not in without
    assert (wrong.status, wrong.error["param"]) == (400, "messages")
    assert again.status == 200


@pytest.mark.parametrize("form", ["sse", "jsonl"])
async def test_the_stream_of_a_run_in_the_background_is_that_of_its_journal(form: str) -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        streamed = await ask(service, {**QUESTION, "stream": True, "format": form}, RUNS)
        run_id = streamed.headers["x-ultra-run-id"]
        again = events_of(await get(service, f"{RUNS}/{run_id}/events"))

    if form == "sse":
        assert events_of(streamed) == again
    else:
        assert [msgspec.json.decode(line, type=Event) for line in streamed.body.splitlines()] == again


async def test_a_client_that_hangs_up_leaves_a_run_in_the_background_as_it_is(
    autojump_clock: MockClock,
) -> None:
    service = service_of(cities(seconds=30), journal="memory")
    async with service.running():
        with trio.move_on_after(10):
            await ask(service, {**QUESTION, "stream": True}, RUNS)
        run_id = (await get(service, RUNS)).json["data"][0]["id"]
        run = await ended(service, run_id)

    assert run.state == "completed"
    assert run.executions == 1


async def test_a_kept_run_in_the_foreground_is_cancelled_when_its_client_hangs_up(
    autojump_clock: MockClock,
) -> None:
    model = FakeModel(seconds=inf)
    service = service_of({"a": model}, journal="memory")
    body = {"prompt": "y", "store": True}
    async with service.running():
        for stream in (True, False):
            with trio.move_on_after(10):
                await ask(service, {**body, "stream": stream}, RUNS)
            await trio.sleep(3)
        listed = (await get(service, RUNS)).json["data"]

    assert model.cancelled == 2
    assert [run["state"] for run in listed] == ["cancelled", "cancelled"]
    assert listed[0]["error"]["code"] == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_run_in_the_foreground_gives_what_any_run_gives(*, stream: bool) -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        answer = await ask(service, {"prompt": "x", "model": "b", "store": True, "stream": stream}, RUNS)
        run = await ended(service, answer.headers["x-ultra-run-id"])

    last = json.loads(answer.body.rstrip().rpartition(b"data: ")[2])
    result = last["result"] if stream else last
    assert run.result
    assert result["final_synthesis"]["content"] == str(run.result.final_synthesis) == "Lyon."
    assert (run.model, run.strategy) == ("b", "one_model")


async def test_runs_are_listed_by_what_they_were() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        ids = [
            (await ask(service, {"prompt": "x", "background": True, **what}, RUNS)).json["id"]
            for what in ({"model": "a"}, {"ensemble": "council"}, {"models": ["b"]})
        ]
        runs = [await ended(service, run_id) for run_id in ids]

        async def listed(query: str) -> list[int]:
            found = msgspec.json.decode((await get(service, f"{RUNS}?{query}")).body, type=RunList)
            return [ids.index(run.id) for run in found.data]

        assert await listed("") == [2, 1, 0]
        assert await listed("limit=2") == [2, 1]
        assert await listed("ensemble=council") == [1]
        assert await listed("model=a") == [1, 0]
        assert await listed("model=a&model=b") == [2, 1]
        assert await listed("state=completed") == [2, 1, 0]
        assert await listed("state=running,queued") == []
        assert await listed("state=running&state=completed&limit=1") == [2]
        assert await listed(f"created_before={runs[1].created_at}") == [0]
        assert await listed(f"created_after={runs[1].created_at}") == [2]
        assert await listed("unknown=1") == [2, 1, 0]
        for wrong in (
            "state=asleep",
            "limit=0",
            "limit=101",
            "limit=x",
            "created_after=now",
            "cursor=nobody",
        ):
            answer = await get(service, f"{RUNS}?{wrong}")
            assert (answer.status, answer.error["param"]) == (400, wrong.partition("=")[0])


async def test_a_list_goes_on_behind_its_cursor() -> None:
    service = service_of(cities(), journal="memory")
    async with service.running():
        for number in range(7):
            await ask(service, {"prompt": f"{number}", "model": "ab"[number % 2], "background": True}, RUNS)

        async def walked(query: str) -> list[str]:
            prompts, cursor = [], ""
            while True:
                page = (await get(service, f"{RUNS}?{query}{cursor}")).json
                prompts += [run["prompt"] for run in page["data"]]
                if page["next"] is None:
                    return prompts
                cursor = f"&cursor={page['next']}"

        assert await walked("limit=3") == ["6", "5", "4", "3", "2", "1", "0"]
        assert await walked("limit=1&model=b") == ["5", "3", "1"]


async def test_a_run_that_is_cancelled_twice_gives_the_same(autojump_clock: MockClock) -> None:
    service = service_of(cities(seconds=inf), journal="memory")
    async with service.running():
        run_id = (await ask(service, QUESTION, RUNS)).json["id"]
        await trio.sleep(1)
        once, twice = [await ask(service, b"", f"{RUNS}/{run_id}/cancel") for _ in range(2)]
        events = events_of(await get(service, f"{RUNS}/{run_id}/events"))

    assert once.body == twice.body
    assert (once.json["state"], once.json["error"]["code"]) == ("cancelled", "cancelled")
    assert events[-1].error == "RunCancelled"


async def test_a_run_is_deleted_also_while_it_goes_on(autojump_clock: MockClock) -> None:
    service = service_of({**cities(), "slow": FakeModel(seconds=inf)}, journal="memory")
    async with service.running():
        done = (await ask(service, {**QUESTION, "ensemble": None, "model": "a"}, RUNS)).json["id"]
        await ended(service, done)
        going = (await ask(service, {"prompt": "x", "model": "slow", "background": True}, RUNS)).json["id"]
        for run_id in (done, going):
            deleted = await ask(service, b"", f"{RUNS}/{run_id}", method="DELETE")
            gone = await get(service, f"{RUNS}/{run_id}")
            assert deleted.json == {"id": run_id, "object": "run", "deleted": True}
            assert (gone.status, gone.error["code"]) == (404, "run_not_found")
        assert (await get(service, RUNS)).json["data"] == []


def keyed(**limits: Any) -> ServeConfig:
    keys = tuple(KeyConfig(name=name, hash=hash_of(f"sk-{name}"), **limits) for name in ("alice", "bob"))
    return ServeConfig(keys=keys)


def of(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer sk-{name}"}


async def test_a_key_sees_its_own_runs_only() -> None:
    service = service_of(cities(), journal="memory", settings=keyed())
    async with service.running():
        run_id = (await ask(service, QUESTION, RUNS, headers=of("alice"))).json["id"]
        await ended(service, run_id, headers=of("alice"))
        own = (await get(service, RUNS, headers=of("alice"))).json["data"]
        others = (await get(service, RUNS, headers=of("bob"))).json["data"]
        path = f"{RUNS}/{run_id}"
        refused = [
            await get(service, path, headers=of("bob")),
            await get(service, f"{path}/events", headers=of("bob")),
            await ask(service, b"", f"{path}/cancel", headers=of("bob")),
            await ask(service, b"", path, method="DELETE", headers=of("bob")),
        ]
        still = await get(service, path, headers=of("alice"))

    assert [run["id"] for run in own] == [run_id]
    assert others == []
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(404, "run_not_found")}
    assert still.status == 200


async def test_an_idempotency_key_finds_the_run_again_and_no_other() -> None:
    models: dict[str, Any] = cities()
    service = service_of(models, journal="memory", settings=keyed())
    named = {"idempotency-key": "k", **of("alice")}
    async with service.running():
        first = await ask(service, QUESTION, RUNS, headers=named)
        await ended(service, first.json["id"], headers=of("alice"))
        again = await ask(service, QUESTION, RUNS, headers=named)
        calls = len(models["a"].calls)
        other = await ask(service, {**QUESTION, "prompt": "What else?"}, RUNS, headers=named)
        of_bob = await ask(service, QUESTION, RUNS, headers={**named, **of("bob")})

    assert again.json["id"] == first.json["id"] != of_bob.json["id"]
    assert again.json["state"] == "completed"
    assert calls == 2
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")


async def test_a_run_in_the_background_keeps_its_place_among_those_of_its_key(
    autojump_clock: MockClock,
) -> None:
    service = service_of(cities(seconds=20), journal="memory", settings=keyed(concurrency=1))
    async with service.running():
        first = await ask(service, {**QUESTION, "ensemble": None, "model": "a"}, RUNS, headers=of("alice"))
        second = await ask(service, QUESTION, RUNS, headers=of("alice"))
        of_bob = await ask(service, QUESTION, RUNS, headers=of("bob"))
        seen = await get(service, f"{RUNS}/{first.json['id']}", headers=of("alice"))
        await trio.sleep(21)
        third = await ask(service, {"prompt": "z", "model": "a"}, RUNS, headers=of("alice"))

    assert (first.status, second.status, of_bob.status, seen.status) == (200, 429, 200, 200)
    assert third.status == 200


async def test_a_budget_is_spent_by_runs_in_the_background() -> None:
    limits = keyed(dollars_per_day=0.02)
    service = service_of(cities(), journal="memory", settings=limits)
    long = {**QUESTION, "prompt": "x" * 9000}
    async with service.running():
        statuses = []
        for number in range(3):
            answer = await ask(service, {**long, "prompt": f"{number}" * 9000}, RUNS, headers=of("alice"))
            statuses.append(answer.status)

    assert statuses[0] == 200
    assert statuses[-1] == 429


async def test_a_service_without_a_journal_says_what_it_needs() -> None:
    service = service_of(cities())
    async with service.running():
        background = await ask(service, QUESTION, RUNS)
        stored = await ask(service, {"prompt": "x", "store": True}, RUNS)
        unknown = await get(service, f"{RUNS}/x")
        listed = await get(service, RUNS)

    assert (background.status, background.error["param"]) == (400, "background")
    assert "[journal]" in background.error["message"]
    assert (stored.status, stored.error["param"]) == (400, "store")
    assert (unknown.status, unknown.error["code"]) == (404, "run_not_found")
    assert listed.json == {"object": "list", "data": [], "next": None}


class Broken(MemoryJournal):
    """A journal that does not work."""

    async def add(self, *_: Any, **__: Any) -> Any:
        raise JournalUnavailable("runs.db", OSError("disk full"))

    get = list_runs = add


async def test_a_journal_that_does_not_work_is_told_with_status_503() -> None:
    service = service_of(cities(), journal=Broken())
    async with service.running():
        answers = [
            await ask(service, QUESTION, RUNS),
            await ask(service, {"prompt": "x", "store": True}, RUNS),
            await get(service, RUNS),
            await get(service, f"{RUNS}/x"),
            await get(service, f"{RUNS}/x/events"),
            await ask(service, b"", f"{RUNS}/x/cancel"),
        ]

    for answer in answers:
        assert (answer.status, answer.error["code"]) == (503, "journal_unavailable")
        assert answer.headers["retry-after"] == "5"
        assert b"disk" not in answer.body


async def test_no_words_of_a_provider_are_in_a_kept_run() -> None:
    error = ModelError(f"the key {SECRET} is wrong", kind="auth")
    service = service_of({"a": FakeModel().fail(error, times=99)}, journal="memory")
    async with service.running():
        run_id = (await ask(service, {"prompt": "x", "background": True}, RUNS)).json["id"]
        run = await ended(service, run_id)
        answers = [
            await get(service, RUNS),
            await get(service, f"{RUNS}/{run_id}"),
            await get(service, f"{RUNS}/{run_id}/events"),
        ]

    assert run.state == "failed"
    assert run.error
    assert run.error.code == "quorum_not_reached"
    assert all(SECRET.encode() not in answer.body for answer in answers)


async def test_another_service_goes_on_with_the_runs_of_one_that_ended(tmp_path: Path) -> None:
    journal = f"sqlite:///{tmp_path}/runs.db"
    first = service_of({"a": FakeModel(seconds=inf)}, journal=journal)
    async with broken_off(first):
        run_id = (await ask(first, {"prompt": "x", "model": "a", "background": True}, RUNS)).json["id"]
        began = events_of(await partial_events(first, f"{RUNS}/{run_id}/events", 2))
    second = service_of({"a": FakeModel("Paris.")}, journal=journal)
    async with second.running():
        run = await ended(second, run_id)
        rest = events_of(await get(second, f"{RUNS}/{run_id}/events", headers={"last-event-id": "1"}))
        whole = events_of(await get(second, f"{RUNS}/{run_id}/events"))

    assert (run.state, run.executions) == ("completed", 2)
    assert began[:2] + rest == whole


async def test_the_answer_of_a_run_waits_for_a_journal_that_cannot_be_read(autojump_clock: MockClock) -> None:
    class Shaky(MemoryJournal):
        failing = False

        async def get(self, run_id: str) -> Any:
            if self.failing:
                raise JournalUnavailable("runs.db", OSError())
            return await super().get(run_id)

    journal = Shaky()
    service = service_of(cities(seconds=5), journal=journal)

    async def disturb() -> None:
        await trio.sleep(2)
        journal.failing = True
        await trio.sleep(20)
        journal.failing = False

    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(disturb)
        answer = await ask(service, {"prompt": "x", "model": "a", "store": True}, RUNS)
        await until(lambda: not journal.failing)

    assert answer.status == 200
    assert answer.json["final_synthesis"]["content"] == "Paris."


async def test_a_run_that_cannot_be_followed_yet_is_cancelled_when_its_client_hangs_up(
    autojump_clock: MockClock,
) -> None:
    class Unreadable(MemoryJournal):
        failing = True

        async def get(self, run_id: str) -> Any:
            if self.failing:
                raise JournalUnavailable("runs.db", OSError())
            return await super().get(run_id)

    journal = Unreadable()
    service = service_of(cities(seconds=5000), journal=journal)
    async with service.running():
        with trio.move_on_after(2):
            await ask(service, {"prompt": "x", "model": "a", "store": True}, RUNS)
        await trio.sleep(60)
        assert not service.runs._under_way
        journal.failing = False
        (kept,) = journal._runs.values()
        await until(lambda: kept.record.has_ended)

    assert kept.record.state == "cancelled"
