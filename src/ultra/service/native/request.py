"""The body of `POST /v1/runs`: what `MultiLLMOrchestrator.process_responses` takes, as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from ultra.errors import BadCall
from ultra.messages.options import Quorum
from ultra.messages.tools import ToolPolicy
from ultra.service.problems import Problem
from ultra.strategies.catalog import make_strategy

if TYPE_CHECKING:
    from ultra.service.targets import Targets

__all__ = ["NativeRequest", "NativeStrategy", "arguments_of"]

_ARGUMENTS: Final = (
    *("stages", "models", "system", "timeout", "quorum", "grace", "max_cost", "use_cache", "samples"),
    *("tools", "tool_choice", "tool_policy", "options", "output", "per_model"),
)


class NativeStrategy(Struct, forbid_unknown_fields=True):
    """A strategy by its name, and its options."""

    name: str
    options: dict[str, Any] = {}


class NativeRequest(Struct, forbid_unknown_fields=True):
    """One run. `prompt` is a text, or messages in the form of OpenAI's or Anthropic's API.

    `ensemble` names an ensemble, whose settings the others replace. `model` names one, or a model that
    answers alone, as in the other protocols. `stream`: the events of the run are sent,
    as `format` says; else the result alone. `store`: the run is kept in the journal. `background`: it is, and
    goes on by itself; the reply is the run as it is then, or with `stream` its events. `metadata` is kept
    with it. `webhook`: the address that is told of the end of a run in the background. The other fields are
    arguments of `process_responses`.
    """

    prompt: str | list[dict[str, Any]]
    ensemble: str | None = None
    model: str | None = None
    stages: list[str] | None = None
    models: list[str] | None = None
    strategy: str | NativeStrategy | None = None
    system: str | None = None
    timeout: float | None = None
    quorum: Quorum | None = None
    grace: float | None = None
    max_cost: float | None = None
    use_cache: bool | UnsetType = UNSET
    samples: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_policy: ToolPolicy | None = None
    options: dict[str, Any] | None = None
    per_model: dict[str, dict[str, Any]] | None = None
    output: dict[str, Any] | None = None
    stream: bool = False
    format: Literal["sse", "jsonl"] | None = None
    background: bool = False
    store: bool | None = None
    metadata: dict[str, str] | None = None
    webhook: str | None = None


_FORBIDDEN: Final = ("extra_headers", "extra_body")
"""Options by which a request would change what is sent to a provider beside the question."""


def arguments_of(body: NativeRequest, targets: Targets) -> dict[str, Any]:
    """Return the arguments of `process_responses` but the prompt.

    Raises:
        Problem: there is no such ensemble or strategy.
    """
    arguments = _named(body, targets)
    for name in _ARGUMENTS:
        value = getattr(body, name)
        if value is not None and value is not UNSET:
            arguments[name] = value
    _choose_models(arguments, body, targets)
    for name in _FORBIDDEN:
        for place, given in (("options", body.options or {}), *_own_options(body)):
            if name in given:
                raise Problem.bad_request(f"{place} has {name!r}, which a request cannot set", param=place)
    if body.strategy is not None:
        chosen = body.strategy
        name, options = (chosen, {}) if isinstance(chosen, str) else (chosen.name, chosen.options)
        if body.stages is None:
            arguments.pop("stages", None)
        try:
            arguments["strategy"] = make_strategy(name, options)
        except BadCall as error:
            raise Problem.bad_request(str(error), param="strategy") from None
    return arguments


def _own_options(body: NativeRequest) -> list[tuple[str, dict[str, Any]]]:
    return [("per_model", given) for given in (body.per_model or {}).values()]


def _named(body: NativeRequest, targets: Targets) -> dict[str, Any]:
    """Return the arguments of the ensemble, or of the model, that the request names."""
    if body.ensemble is not None and body.model is not None:
        raise Problem.bad_request("ensemble and model name the same thing; leave one out", param="model")
    name = body.model if body.ensemble is None else body.ensemble
    if name is None:
        return {}
    target = targets.get(name)
    if target.kind != "ensemble" and body.ensemble is not None:
        text = f"{name!r} is a model, and no ensemble; name it in model"
        raise Problem.bad_request(text, param="ensemble")
    return dict(target.arguments)


def _choose_models(arguments: dict[str, Any], body: NativeRequest, targets: Targets) -> None:
    """Check the models that are named, and name those that the caller may ask where it names none."""
    targets.check(body.models or (), param="models")
    if body.ensemble is None and body.model is None and body.models is None:
        panel = targets.default_panel()
        if panel is not None:
            arguments["models"] = panel
