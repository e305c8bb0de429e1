"""`GET /v1/runs`: the kept runs of whoever asks, the last accepted first, by what they were."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from ultra.errors import JournalDamaged, UnknownRun
from ultra.service.http import Reply, json_reply
from ultra.service.kept_runs import may_see
from ultra.service.native.record import KeptRunObject, RunList, run_object
from ultra.service.problems import Problem
from ultra.service.queries import read_query
from ultra.stores.journal_contract import RunState

if TYPE_CHECKING:
    from ultra.service.access import Caller
    from ultra.service.core import Service
    from ultra.service.http import Request
    from ultra.stores.journal_contract import RunRecord

__all__ = ["RunFilter", "list_runs"]

_AT_ONCE: Final = 100
_MOST_READ: Final = 1000
"""Runs that one request looks at: one whose filter fits few gets a part of the list, and the next cursor."""


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs.

    Attributes:
        state: only those in one of these states, with commas between.
        ensemble: only those that asked for this ensemble.
        model: only those that may ask this model.
        created_after, created_before: only those accepted then, in seconds of Unix time.
        limit: how many at most.
        cursor: `next` of the list that these follow.
    """

    state: tuple[RunState, ...] = ()
    ensemble: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    created_after: float | UnsetType = UNSET
    created_before: float | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: str | UnsetType = UNSET

    def fits(self, run: RunRecord) -> bool:
        """Return whether a run is one of these, but for its state."""
        return (
            (self.ensemble is UNSET or run.spec.options.name == self.ensemble)
            and (self.model is UNSET or self.model in run.spec.models)
            and (self.created_after is UNSET or run.created > self.created_after)
            and (self.created_before is UNSET or run.created < self.created_before)
        )


async def list_runs(service: Service, request: Request, caller: Caller) -> Reply:
    """Answer with the runs that a query asks for; one that is damaged has the error ``journal_damaged``.

    Raises:
        Problem: the query is wrong.
        JournalUnavailable: the journal cannot be read.
    """
    asked = read_query(request, RunFilter)
    orchestrator = service.orchestrator
    if not orchestrator.has_journal:
        return _reply([], None)
    place = None if asked.cursor is UNSET else asked.cursor
    if place is not None:
        try:
            with suppress(JournalDamaged):  # it is there
                await orchestrator.get_run(place)
        except UnknownRun:
            text = "cursor: that run is no longer there; begin with the first ones again"
            raise Problem.bad_request(text, param="cursor") from None
    found: list[KeptRunObject] = []  # not the runs themselves, whose requests may be large
    for _ in range(_MOST_READ // _AT_ONCE):
        page = await orchestrator.list_runs(
            owner=caller.name or None, states=asked.state, before=place, limit=_AT_ONCE
        )
        for run in page:
            place = run.run_id
            if asked.fits(run) and may_see(service, caller, run):
                found.append(run_object(run))
                if len(found) == asked.limit:
                    return _reply(found, place)
        too_old = asked.created_after is not UNSET and page and page[-1].created <= asked.created_after
        if not page or too_old:
            return _reply(found, None)
    return _reply(found, place)


def _reply(found: list[KeptRunObject], after: str | None) -> Reply:
    return json_reply(msgspec.to_builtins(RunList(data=found, next=after)))
