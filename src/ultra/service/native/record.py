"""A kept run as the wire has it: where it came from, how far it is, and what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from ultra.messages.events import RunCompleted
from ultra.messages.openai_form import messages_as_openai
from ultra.messages.results import OrchestrationResult
from ultra.service.native.events import cleaned_result
from ultra.service.problems import failed_run
from ultra.stores.journal_contract import RunState

if TYPE_CHECKING:
    from ultra.messages.events import RunFailed
    from ultra.stores.journal_contract import RunRecord

__all__ = ["KeptRunObject", "RunError", "RunList", "native_tags", "run_object"]

_QUOTED: Final = 200
"""Characters of the question that a list has."""


class RunError(Struct, frozen=True, forbid_unknown_fields=True):
    """How a run failed, without the words of a provider."""

    code: str
    message: str


class KeptRunObject(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run that is kept.

    Attributes:
        id: its name, as in the header ``x-ultra-run-id``.
        state: how far it is.
        created_at, ended_at: seconds of Unix time.
        protocol: by which it was asked for: ``runs``, ``responses``, or ``program``.
        model: what was asked for: the name of an ensemble or of a model; None: models one by one.
        models: those that it may ask, highest weight first.
        strategy: the name of the strategy.
        prompt: the beginning of the question.
        events: how many events it has so far.
        executions: how often it was taken up: 1 for one that nothing has interrupted.
        cancelling: whether it is to end.
        metadata: what its request gave.
        error: how it failed.
        result: what it came to; only where one run is asked for.
        messages: what was asked, with attachments, in OpenAI's form, which `prompt` of a request takes; only
            where the address says ``?messages=true``.
    """

    id: str
    object: Literal["run"] = "run"
    state: RunState
    created_at: float
    ended_at: float | None
    protocol: str
    model: str | None
    models: tuple[str, ...]
    strategy: str
    prompt: str
    events: int
    executions: int
    cancelling: bool
    metadata: dict[str, str]
    error: RunError | None
    result: OrchestrationResult | UnsetType | None = UNSET
    messages: list[dict[str, Any]] | UnsetType = UNSET


class RunList(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Some runs, the last accepted first. `next`: the `cursor` of those that follow; None: there are none."""

    object: Literal["list"] = "list"
    data: list[KeptRunObject]
    next: str | None


def native_tags(model: str | None, metadata: dict[str, str] | None) -> dict[str, Any]:
    """Return what is kept with a run of Ultra's own protocol."""
    return {"protocol": "runs", "model": model, "metadata": metadata or {}}


def run_object(
    run: RunRecord,
    last: RunCompleted | RunFailed | None = None,
    *,
    whole: bool = False,
    messages: bool = False,
) -> KeptRunObject:
    """Return a run for the wire: a `whole` one with the result of its `last` event, or with `messages`."""
    spec, tags = run.spec, run.tags
    error = None
    if run.code is not None:
        problem = failed_run(run.code, run.message or "")
        error = RunError(problem.code or problem.type, problem.message)
    result: OrchestrationResult | UnsetType | None = UNSET
    if whole:
        result = cleaned_result(last.result) if isinstance(last, RunCompleted) else None
    return KeptRunObject(
        id=run.run_id,
        state=run.state,
        created_at=run.created,
        ended_at=run.ended,
        protocol=tags.get("protocol", "program"),
        model=tags.get("model", spec.options.name),
        models=spec.models,
        strategy=spec.strategy.name,
        prompt=spec.request.prompt[:_QUOTED],
        events=run.events,
        executions=run.executions,
        cancelling=run.cancelling and not run.has_ended,
        metadata=tags.get("metadata", {}),
        error=error,
        result=result,
        messages=messages_as_openai(spec.request.messages) if messages else UNSET,
    )
