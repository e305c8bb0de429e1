"""The kept runs of whoever asks: found, waited for, cancelled, deleted. Those of others are not there."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import anyio

from ultra.errors import BadCall, JournalDamaged, UnknownRun
from ultra.messages.events import RunCompleted, RunFailed
from ultra.service.kept_run import persisting
from ultra.service.problems import Problem, unknown_run
from ultra.stores.journal_contract import RunRecord

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ultra.messages.events import Event
    from ultra.service.access import Caller
    from ultra.service.core import Service

__all__ = [
    "cancelled_run",
    "check_keeps",
    "delete_run",
    "events_of",
    "find_run",
    "find_run_or_damage",
    "last_event",
    "may_see",
    "may_see_owner",
    "nothing_kept",
]

PATIENCE: Final = 10.0
"""Seconds for which a request waits for the end of a run that was cancelled."""


def nothing_kept(param: str) -> Problem:
    """Return the refusal of a request that needs a journal, where there is none."""
    text = f"{param}: this service keeps no runs; give it a journal: store in the section [journal]"
    return Problem.bad_request(text, code="unsupported_value", param=param)


def check_keeps(service: Service, param: str) -> None:
    """Raise `Problem` if the service keeps no runs, which the field `param` of a request needs."""
    if not service.orchestrator.has_journal:
        raise nothing_kept(param)


def may_see(service: Service, caller: Caller, run: RunRecord) -> bool:
    """Return whether a run is one of the caller's.

    Without keys, who may ask is whoever is on this machine, and sees all.
    """
    return may_see_owner(service, caller, run.owner)


def may_see_owner(service: Service, caller: Caller, owner: str | None) -> bool:
    """Return whether what is kept for this owner is the caller's."""
    if not caller.name and service.access.needs_loopback:
        return True
    return owner == (caller.name or None)


async def find_run(service: Service, caller: Caller, run_id: str, what: str = "run") -> RunRecord:
    """Return a kept run of the caller.

    Raises:
        Problem: there is none, or it is somebody else's; `what` it should have been.
        JournalDamaged: it is the caller's, and cannot be read; it can be deleted.
        JournalUnavailable: the journal cannot be read.
    """
    orchestrator = service.orchestrator
    if orchestrator.has_journal:
        try:
            found = await orchestrator.get_run(run_id)
            if may_see(service, caller, found):
                return found
        except UnknownRun:
            pass
        except JournalDamaged as error:
            if isinstance(error.run, RunRecord) and may_see(service, caller, error.run):
                raise
    raise unknown_run(run_id, what)


async def find_run_or_damage(
    service: Service, caller: Caller, run_id: str, what: str = "run"
) -> RunRecord | str:
    """Return what `delete_run` takes of a run of the caller. Raises what else `find_run` does."""
    try:
        return await find_run(service, caller, run_id, what)
    except JournalDamaged as error:
        return error.run_id


async def last_event(service: Service, run: RunRecord) -> RunCompleted | RunFailed | None:
    """Return the event that a run has ended with; None: it goes on.

    Raises what `find_run` does.
    """
    if not run.has_ended:
        return None
    try:
        async with service.orchestrator.follow(run.run_id, run.events - 2) as events:
            async for event in events:
                if isinstance(event, RunCompleted | RunFailed):
                    return event
    except UnknownRun:
        raise unknown_run(run.run_id) from None
    return None


async def events_of(
    service: Service, run: RunRecord, after: int, silence: float
) -> AsyncGenerator[Event | None]:
    """Yield the events of a run behind `after`, and None after each `silence` of so many seconds.

    Close it, as `contextlib.aclosing` does. It ends with the run, or when that is deleted; while the journal
    cannot be read, it waits.
    """
    follower = service.orchestrator.follow(run.run_id, after)
    try:
        async with follower:
            while True:
                event: Event | None = None
                with anyio.move_on_after(silence):
                    try:
                        event = await persisting(follower.__anext__)
                    except StopAsyncIteration:
                        return
                yield event
    except UnknownRun:
        return


async def cancelled_run(service: Service, run: RunRecord) -> RunRecord:
    """Cancel a run, wait a while for its end, and return it; one that has ended stays as it is.

    Raises:
        UnknownRun: it was deleted meanwhile.
        JournalUnavailable: the journal cannot be used.
    """
    orchestrator = service.orchestrator
    found = await orchestrator.cancel_run(run.run_id)
    if not found.has_ended:
        with anyio.move_on_after(PATIENCE), suppress(Exception):
            async with orchestrator.follow(run.run_id) as events:
                await events.result()
        found = await orchestrator.get_run(run.run_id)
    return found


async def delete_run(service: Service, run: RunRecord | str) -> None:
    """Delete a run; one that goes on is cancelled first. Of one that is damaged, its id is given.

    Raises:
        Problem: it has not ended yet, so it is still there.
        UnknownRun: it was deleted meanwhile.
        JournalUnavailable: the journal cannot be used.
    """
    orchestrator = service.orchestrator
    try:
        if isinstance(run, str):
            with suppress(JournalDamaged):
                await orchestrator.cancel_run(run)
            await orchestrator.delete_run(run)
            return
        if not run.has_ended:
            run = await cancelled_run(service, run)
        await orchestrator.delete_run(run.run_id)
    except UnknownRun:
        raise
    except BadCall:
        text = "the run is being cancelled, and has not ended yet; delete it in a moment"
        raise Problem(409, "invalid_request_error", "run_not_ended", text, retry_after=1.0) from None
