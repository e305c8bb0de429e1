"""`/v1/responses/{id}`: a kept response: retrieved, streamed again, cancelled, deleted; its input."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from ultra.errors import JournalDamaged, UnknownRun
from ultra.messages.events import RunCompleted, RunFailed
from ultra.service.event_stream import comment
from ultra.service.http import EVENT_STREAM, Reply, json_reply
from ultra.service.kept_run import persisting
from ultra.service.kept_runs import cancelled_run, delete_run, events_of
from ultra.service.problems import Problem, unknown_run
from ultra.service.queries import read_query
from ultra.service.responses.conversation import RESPONSE, find_response, input_items
from ultra.service.responses.projection import Projection, response_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.service.responses.shape import ResponseShape
    from ultra.stores.journal_contract import RunRecord

__all__ = [
    "InputQuery",
    "RetrieveQuery",
    "cancel_response",
    "ended_response",
    "list_input",
    "remove_response",
    "response_reply",
    "retrieve_response",
    "stream_of_response",
]

_POLL: Final = {"openai-poll-after-ms": "1000"}
"""Tells clients that ask again and again how long to wait."""


class RetrieveQuery(Struct, frozen=True):
    """How a response is retrieved: whole, or its events behind the number `starting_after`."""

    stream: bool = False
    starting_after: Annotated[int, Meta(ge=-1)] | UnsetType = UNSET


class InputQuery(Struct, frozen=True):
    """Which items of the input: at most `limit` behind the item `after`; the last first, unless ``asc``."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str | UnsetType = UNSET


async def retrieve_response(service: Service, request: Request, caller: Caller, name: str) -> Reply:
    """Answer with a response, or with its events.

    Raises:
        Problem: the caller has no such response, or the query is wrong.
        JournalUnavailable: the journal cannot be read.
    """
    asked = read_query(request, RetrieveQuery)
    if asked.starting_after is not UNSET and not asked.stream:
        text = "starting_after: it is for streams; add stream=true"
        raise Problem.bad_request(text, param="starting_after")
    run, shape = await find_response(service, caller, name)
    if asked.stream:
        after = -1 if asked.starting_after is UNSET else asked.starting_after
        return stream_of_response(service, run, shape, after)
    return await response_reply(service, run, shape)


async def response_reply(service: Service, run: RunRecord, shape: ResponseShape) -> Reply:
    """Return the reply that has a response as it is now."""
    headers = {"x-ultra-run-id": run.run_id}
    if not run.has_ended:
        return json_reply(response_of(run, shape), headers={**headers, **_POLL})
    return json_reply(await ended_response(service, run, shape), headers=headers)


def stream_of_response(service: Service, run: RunRecord, shape: ResponseShape, after: int = -1) -> Reply:
    """Return the reply that sends the events of a response behind the number `after`, to its end."""
    headers = {**EVENT_STREAM, "x-ultra-run-id": run.run_id}
    return Reply(headers=headers, body=_encoded(service, run, shape, after))


async def cancel_response(service: Service, caller: Caller, name: str) -> Reply:
    """Cancel a response in the background, and answer with it; a second time, too.

    Raises as `retrieve_response` does, and for one that is not in the background.
    """
    run, shape = await find_response(service, caller, name)
    if not shape.background:
        text = "only a response in the background can be cancelled; this one ends with its connection"
        raise Problem.bad_request(text, code="not_in_background")
    return await response_reply(service, await cancelled_run(service, run), shape)


async def remove_response(service: Service, caller: Caller, name: str) -> Reply:
    """Delete a response, a damaged one too; one that goes on is cancelled first.

    Raises as `retrieve_response` does.
    """
    run: RunRecord | str
    try:
        run, _ = await find_response(service, caller, name)
    except JournalDamaged as error:  # of which nobody knows any more whether it is a response
        run = error.run_id
    await delete_run(service, run)
    return json_reply({"id": name, "object": "response", "deleted": True})


async def list_input(service: Service, request: Request, caller: Caller, name: str) -> Reply:
    """Answer with what a response was given. Raises as `retrieve_response` does."""
    asked = read_query(request, InputQuery)
    run, shape = await find_response(service, caller, name)
    items = input_items(run, shape)
    if asked.order == "desc":
        items.reverse()
    if asked.after is not UNSET:
        places = [place for place, item in enumerate(items) if item["id"] == asked.after]
        if not places:
            raise Problem.bad_request("after: there is no such item", param="after")
        items = items[places[0] + 1 :]
    page = items[: asked.limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return json_reply({"object": "list", "data": page, **ends, "has_more": len(items) > len(page)})


async def ended_response(service: Service, run: RunRecord, shape: ResponseShape) -> dict[str, Any]:
    """Return the response of a run that has ended. Raises `Problem` if it is gone."""
    projection = Projection(shape, run)
    async with aclosing(events_of(service, run, -1, float("inf"))) as events:
        async for event in events:
            if event is not None:
                for _ in projection.take(event, run.ended):
                    pass
    if projection.response is None:
        raise unknown_run(f"{RESPONSE}{run.run_id}", "response")
    return projection.response


async def _encoded(
    service: Service, run: RunRecord, shape: ResponseShape, after: int
) -> AsyncIterator[bytes]:
    projection = Projection(shape, run, after)
    begun = projection.begin()
    if begun:
        yield begun
    async with aclosing(events_of(service, run, -1, service.settings.keepalive_interval)) as events:
        async for event in events:
            if event is None:
                yield comment("ultra")
                continue
            is_last = isinstance(event, RunCompleted | RunFailed)
            at = await _ended_at(service, run) if is_last else None
            for piece in projection.take(event, at):
                if piece:
                    yield piece


async def _ended_at(service: Service, run: RunRecord) -> float | None:
    try:
        return (await persisting(lambda: service.orchestrator.get_run(run.run_id))).ended
    except UnknownRun:
        return run.ended
