"""`/v1/runs/{id}`: a kept run: what it came to, its events, its cancellation and its end."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta, Struct

from ultra.messages.events import RunFailed
from ultra.service.event_stream import comment, with_id
from ultra.service.http import EVENT_STREAM, Reply, json_reply
from ultra.service.kept_runs import (
    cancelled_run,
    delete_run,
    events_of,
    find_run,
    find_run_or_damage,
    last_event,
)
from ultra.service.native.events import LINES, as_lines, as_sse, without_words
from ultra.service.native.record import run_object
from ultra.service.problems import Problem, failed_run
from ultra.service.queries import read_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.stores.journal_contract import RunRecord

__all__ = ["After", "Shown", "cancel_run", "remove_run", "show_events", "show_run", "stream_of_events"]


class After(Struct, frozen=True):
    """From where on. `after`: the number (`seq`) of the last event that the client has; -1: none.

    The header ``Last-Event-ID`` says the same, and stands before it.
    """

    after: Annotated[int, Meta(ge=-1)] = -1


class Shown(Struct, frozen=True):
    """What is told of a run. `messages`: also what was asked, with attachments, which may be large."""

    messages: bool = False


async def show_run(service: Service, request: Request, caller: Caller, run_id: str) -> Reply:
    """Answer with a run, and its result once there is one.

    Raises:
        Problem: the caller has no such run, or the query is wrong.
        JournalUnavailable: the journal cannot be read.
    """
    shown = read_query(request, Shown)
    run = await find_run(service, caller, run_id)
    last = await last_event(service, run)
    return json_reply(run_object(run, last, whole=True, messages=shown.messages))


async def show_events(service: Service, request: Request, caller: Caller, run_id: str) -> Reply:
    """Answer with the events of a run behind those that the client has, and go on with it to its end.

    The status is 204 where it has had the last one. Raises as `show_run` does, and where `after` is wrong.
    """
    after = read_query(request, After).after
    known = request.headers.get("last-event-id", "").strip()
    if known:
        if not (known.isascii() and known.isdigit() and len(known) < 16):  # noqa: PLR2004 - no number is longer
            text = "Last-Event-ID: it must be the number (seq) of the last event that you have"
            raise Problem.bad_request(text, param="Last-Event-ID")
        after = int(known)
    run = await find_run(service, caller, run_id)
    if run.has_ended and after >= run.events - 1:
        return Reply(status=204)  # a browser asks again and again until it gets this
    return stream_of_events(service, run, after)


def stream_of_events(service: Service, run: RunRecord, after: int = -1, *, in_lines: bool = False) -> Reply:
    """Return the reply that sends the events of a run behind `after`; `in_lines`: of JSON."""
    headers = {**EVENT_STREAM, "x-ultra-run-id": run.run_id}
    if in_lines:
        headers["content-type"] = LINES
    return Reply(headers=headers, body=_encoded(service, run, after, in_lines=in_lines))


async def cancel_run(service: Service, caller: Caller, run_id: str) -> Reply:
    """Cancel a run, and answer with it; a second time, too. Raises as `show_run` does."""
    run = await cancelled_run(service, await find_run(service, caller, run_id))
    return json_reply(run_object(run, await last_event(service, run), whole=True))


async def remove_run(service: Service, caller: Caller, run_id: str) -> Reply:
    """Delete a run, a damaged one too; one that goes on is cancelled first. Raises as `show_run` does."""
    await delete_run(service, await find_run_or_damage(service, caller, run_id))
    return json_reply({"id": run_id, "object": "run", "deleted": True})


async def _encoded(service: Service, run: RunRecord, after: int, *, in_lines: bool) -> AsyncIterator[bytes]:
    silence = service.settings.keepalive_interval
    async with aclosing(events_of(service, run, after, silence)) as events:
        async for event in events:
            if event is None:
                yield b"\n" if in_lines else comment("ultra")
                continue
            # What it tells of a failure depends on nothing but the event, so it is the same for each reader.
            failed = failed_run(event.error, event.message) if isinstance(event, RunFailed) else None
            told = without_words(event, failed)
            yield as_lines(told) if in_lines else with_id(event.seq, as_sse(told))
