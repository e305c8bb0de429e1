"""`/v1/runs/batch`: batches accepted, shown, cancelled, and their results."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from ultra._support.randomness import new_id
from ultra.errors import JournalDamaged, UnknownRun
from ultra.service.batches.lines import ResultLine, check_lines, custom_id_of, lines_of, run_id_of
from ultra.service.http import Reply, json_reply
from ultra.service.kept_run import persisting
from ultra.service.kept_runs import check_keeps, last_event, may_see_owner
from ultra.service.native.events import LINES
from ultra.service.native.record import RunError, run_object
from ultra.service.problems import Problem, problem_of, reused_key, unknown_run
from ultra.service.queries import read_query
from ultra.service.runs import key_of
from ultra.stores.batch_contract import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request

__all__ = ["BatchObject", "BatchQuery", "accept_batch", "cancel_batch", "show_batch", "show_results"]


BatchState = Literal["running", "cancelling", "completed", "cancelled"]


class BatchQuery(Struct, frozen=True):
    """How a batch is carried out. `concurrency`: how many of its runs at once."""

    concurrency: Annotated[int, Meta(ge=1, le=64)] = 8


class BatchObject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch: how many runs it has, and how many have ended, and how. Times are seconds of Unix time."""

    id: str
    object: Literal["batch"] = "batch"
    state: BatchState
    total: int
    completed: int
    failed: int
    cancelled: int
    concurrency: int
    created_at: float
    ended_at: float | None

    @classmethod
    def of(cls, batch: Batch) -> BatchObject:
        """Return it as the wire has it."""
        state: BatchState = "cancelling" if batch.cancelling else "running"
        if batch.ended is not None:
            state = "cancelled" if batch.cancelling else "completed"
        return cls(
            id=batch.id,
            state=state,
            total=batch.total,
            completed=batch.completed,
            failed=batch.failed,
            cancelled=batch.cancelled,
            concurrency=batch.concurrency,
            created_at=batch.created,
            ended_at=batch.ended,
        )


async def accept_batch(service: Service, request: Request, caller: Caller) -> Reply:
    """Accept a batch, whose runs go on by themselves, and answer with it.

    Raises:
        Problem: a line is not allowed, or the journal keeps no batches; nothing was accepted.
        JournalUnavailable: the journal cannot be written; nothing was accepted.
    """
    asked = read_query(request, BatchQuery)
    check_keeps(service, "batch")
    orchestrator = service.orchestrator
    if not orchestrator.has_batches:
        raise Problem.bad_request("the journal of this service keeps no batches", code="unsupported_value")
    lines = lines_of(request.body)
    await check_lines(service, lines, service.targets_for(caller))
    key, body = key_of(request), b"\n".join(lines)
    name = new_id() if key is None else blake2b(f"{caller.name}\0{key}".encode(), digest_size=16).hexdigest()
    batch = Batch(
        id=f"batch_{name}", owner=caller.name or None, total=len(lines), concurrency=asked.concurrency
    )
    found = await orchestrator.with_batches(lambda store: store.add(batch, body))
    if key is not None and await orchestrator.with_batches(lambda store: store.lines(batch.id)) != body:
        raise reused_key()
    service.batches.wake()
    return json_reply(BatchObject.of(found))


async def show_batch(service: Service, caller: Caller, batch_id: str) -> Reply:
    """Answer with a batch. Raises `Problem` where the caller has none of this id."""
    return json_reply(BatchObject.of(await _found(service, caller, batch_id)))


async def cancel_batch(service: Service, caller: Caller, batch_id: str) -> Reply:
    """Let no more runs of a batch begin, cancel those that run, and answer with it.

    Raises as `show_batch` does.
    """
    batch = await _found(service, caller, batch_id)
    if batch.ended is None:
        changes = {"cancelling": True}
        changed = await service.orchestrator.with_batches(lambda store: store.update(batch_id, changes))
        batch = changed or batch
        service.batches.wake()
    return json_reply(BatchObject.of(batch))


async def show_results(service: Service, caller: Caller, batch_id: str) -> Reply:
    """Answer with a line of JSON for each run that has ended so far. Raises as `show_batch`."""
    batch = await _found(service, caller, batch_id)
    lines = lines_of(await service.orchestrator.with_batches(lambda store: store.lines(batch_id)))
    return Reply(headers={"content-type": LINES}, body=_results(service, batch, lines))


async def _found(service: Service, caller: Caller, batch_id: str) -> Batch:
    if service.orchestrator.has_batches:
        found = await service.orchestrator.with_batches(lambda store: store.get(batch_id))
        if found is not None and may_see_owner(service, caller, found.owner):
            return found
    raise unknown_run(batch_id, "batch")


async def _results(service: Service, batch: Batch, lines: list[bytes]) -> AsyncIterator[bytes]:
    for number, line in enumerate(lines):
        found = await persisting(partial(_result, service, batch, number, line))
        if found is not None:
            yield msgspec.json.encode(found) + b"\n"


async def _result(service: Service, batch: Batch, number: int, line: bytes) -> ResultLine | None:
    """Return what a line has come to; None: it has not ended."""
    name = custom_id_of(line)
    try:
        return await _ended_run(service, batch, number, name)
    except JournalDamaged as error:  # which keeps no other line from being told
        problem = problem_of(error)
        return ResultLine(custom_id=name, line=number, error=RunError("journal_damaged", problem.message))


async def _ended_run(service: Service, batch: Batch, number: int, name: str) -> ResultLine | None:
    try:
        run = await service.orchestrator.get_run(run_id_of(batch.id, number))
    except UnknownRun:
        error = batch.errors.get(f"{number}")
        if error is not None:
            return ResultLine(custom_id=name, line=number, error=RunError(**error))
        if batch.ended is None:
            return None
        text = "the run was not begun, or was removed"
        return ResultLine(custom_id=name, line=number, error=RunError("cancelled", text))
    if not run.has_ended:
        return None
    told = run_object(run, await last_event(service, run), whole=True)
    return ResultLine(custom_id=name, line=number, run=told)
