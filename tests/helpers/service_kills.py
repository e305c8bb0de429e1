"""Kill a service again and again while clients ask it; then look at what its journal, and they, have got."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import trio

from helpers.call_notes import counted
from helpers.durable_process import STRATEGIES
from helpers.kills import VOTE, calls_needed, check_calls, question_of_run
from ultra import SqliteJournal
from ultra.durable.execution import read_all
from ultra.messages.events import Event, RunCompleted, RunFailed
from ultra.service.native.events import without_words
from ultra.service.responses.projection import Projection
from ultra.service.responses.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from random import Random

    from ultra.stores.journal_contract import RunRecord

HERE = Path(__file__).parent
PATIENCE = 120.0
KINDS = ("polled run", "streamed run", "polled response", "streamed response", "run in the foreground")


class Process:
    """The process that forks services, each of which can be killed."""

    def __init__(self, folder: Path, listening: socket.socket) -> None:
        arguments = [sys.executable, str(HERE / "service_process.py"), str(folder), str(listening.fileno())]
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(listening.fileno(),),
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        )

    def start(self) -> int:
        """Start a service, and return its process once it answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        lines = {self._process.stdout.readline().strip() for _ in range(2)}
        lines.remove("started")
        return int(lines.pop())

    def close(self) -> None:
        """End the process that forks."""
        self._process.kill()
        self._process.wait(30)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@contextmanager
def process_in(folder: Path) -> Iterator[tuple[Process, str]]:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        process = Process(folder, listening)
        try:
            yield process, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.close()


class Clients:
    """One client for each run. `read`: what each has read, by the id of its run."""

    def __init__(self, url: str) -> None:
        self.read: dict[str, list[Any]] = {}
        self.broken = 0
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, timeout=20)

    async def ask(self, number: int) -> None:
        """Ask for a run, and read it to its end, however often the connection breaks."""
        kind = KINDS[number % len(KINDS)]
        ensemble = f"s{number // len(KINDS) % len(STRATEGIES)}"
        question = f"Question {number}?"
        if kind == "run in the foreground":
            await self._in_the_foreground({"prompt": question, "ensemble": ensemble, "store": True})
            return
        run = kind.endswith("run")
        body: dict[str, Any] = {"prompt": question, "ensemble": ensemble}
        if not run:
            body = {"input": question, "model": ensemble}
        body |= {"background": True, "stream": kind.startswith("streamed")}
        await self._in_the_background("/v1/runs" if run else "/v1/responses", body, f"{number}")

    async def _in_the_background(self, path: str, body: dict[str, Any], key: str) -> None:
        headers = {"idempotency-key": key}
        name = ""
        events: list[Any] = []
        while not name:
            with self._breaking():
                async with self._client.stream("POST", path, json=body, headers=headers) as reply:
                    if reply.status_code != 200:  # the journal was busy; nothing was accepted
                        continue
                    run_id = reply.headers["x-ultra-run-id"]
                    name = run_id if path == "/v1/runs" else f"resp_{run_id}"
                    self.read[run_id] = events
                    if body["stream"]:
                        await self._read_events(reply, events)
        while not (events and events[-1]["type"] in {"run_completed", "run_failed"} | _LAST):
            with self._breaking():
                if path == "/v1/runs":
                    more = {"last-event-id": f"{len(events) - 1}"} if events else {}
                    place = f"{path}/{name}/events"
                else:
                    more, place = {}, f"{path}/{name}?stream=true&starting_after={len(events) - 1}"
                async with self._client.stream("GET", place, headers=more) as reply:
                    assert reply.status_code in {200, 503}, await reply.aread()
                    await self._read_events(reply, events)

    async def _in_the_foreground(self, body: dict[str, Any]) -> None:
        """Ask once: a client that has lost such a run reads it no further."""
        with self._breaking():
            async with self._client.stream("POST", "/v1/runs", json={**body, "stream": True}) as reply:
                if reply.status_code == 200:
                    events = self.read[reply.headers["x-ultra-run-id"]] = []
                    await self._read_events(reply, events)

    async def _read_events(self, reply: httpx.Response, events: list[Any]) -> None:
        if reply.status_code != 200:
            return
        lines: AsyncIterator[str] = reply.aiter_lines()
        async with aclosing(lines):  # type: ignore[type-var]
            data = ""
            async for line in lines:
                if line.startswith("data: "):
                    data = line.removeprefix("data: ")
                elif not line and data:  # an event is one when it is whole
                    events.append(json.loads(data))
                    data = ""

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError:
            self.broken += 1

    async def aclose(self) -> None:
        await self._client.aclose()


_LAST = {"response.completed", "response.failed", "response.incomplete"}


async def kill_again_and_again(folder: Path, random: Random, *, kills: int, runs: int) -> dict[str, int]:
    """Ask a service for so many runs, and kill it so often meanwhile; check all that must hold.

    Returns counts of what was seen, so that a caller can see that the kills came in the middle.
    """
    killed: set[int] = set()
    with process_in(folder) as (process, url):
        clients = Clients(url)
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_ask_all, clients, random, runs, kills)
                for _ in range(kills):
                    service = await trio.to_thread.run_sync(process.start)
                    await trio.sleep(random.random() * 0.15)
                    os.kill(service, signal.SIGKILL)
                    killed.add(service)
                service = await trio.to_thread.run_sync(process.start)
            journal = SqliteJournal(folder / "runs.db")
            while await journal.list_runs(states=("queued", "running"), limit=1):  # noqa: ASYNC110 - no event
                await trio.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(service, signal.SIGTERM)
        await clients.aclose()
    counts = await check(folder, journal, clients.read, runs, killed)
    return {**counts, "broken": clients.broken}


async def _ask_all(clients: Clients, random: Random, runs: int, kills: int) -> None:
    """Begin the runs spread over the time of the kills."""
    async with trio.open_nursery() as nursery:
        for number in range(runs):
            nursery.start_soon(clients.ask, number)
            await trio.sleep(random.random() * 0.2 * kills / runs)


async def check(
    folder: Path, journal: SqliteJournal, read: dict[str, list[Any]], runs: int, killed: set[int]
) -> dict[str, int]:
    """Check that each accepted run ended once, that clients got what is in the journal, and what was paid."""
    records = await journal.list_runs(limit=10_000)
    known = {record.run_id: record for record in records}
    keys = [record.idempotency_key for record in records if record.idempotency_key is not None]
    assert len(keys) == len(set(keys)) == runs - runs // len(KINDS)
    assert read.keys() <= known.keys()
    needed = await calls_needed(folder)
    counts = counted(folder, {record.run_id: question_of_run(record) for record in records}, killed)
    interrupted = 0
    for record in records:
        events = await read_all(journal, record.run_id)
        ends = [event for event in events if isinstance(event, RunCompleted | RunFailed)]
        kind = int((record.spec.options.name or "s0").removeprefix("s"))
        assert [event.seq for event in events] == list(range(record.events))
        assert ends == events[-1:]
        if record.state == "cancelled":  # its client was gone when the service was there
            assert record.idempotency_key is None
        else:
            assert record.state == "completed", record
            answers, most = len(await journal.answer_keys(record.run_id)), needed[kind].total()
            assert answers == most or (kind == VOTE and answers <= most), (record, answers)
        told = told_of(record, events)
        got = read.get(record.run_id, [])
        assert got == (told[: len(got)] if record.idempotency_key is None else told)
        if record.state != "cancelled":
            check_calls(counts, question_of_run(record), kind, needed)
        interrupted += record.executions - 1
    in_flight, paid = counts.in_flight.total(), counts.begun.total()
    return {"runs": len(records), "interrupted": interrupted, "paid": paid, "in_flight": in_flight}


def told_of(record: RunRecord, events: list[Event]) -> list[Any]:
    """What a client is told of a run, by its protocol."""
    shape = shape_of(record.tags)
    if shape is None:
        return [json.loads(msgspec.json.encode(without_words(event))) for event in events]
    projection = Projection(shape, record)
    pieces = [projection.begin()]
    for event in events:
        pieces += projection.take(event, record.ended)
    frames = b"".join(pieces).decode().split("\n\n")
    return [json.loads(frame.partition("data: ")[2]) for frame in frames if frame]
