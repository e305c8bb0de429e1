"""The fields by which a client says more than OpenAI's protocol can, and what it is then told.

Two spellings: OpenRouter's ``plugins: [{"id": "fusion", …}]``, and ``ultra: {…}`` for the rest. A request
without them gets nothing that the protocol does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct, structs

from ultra.errors import BadCall
from ultra.messages.options import Quorum
from ultra.service.problems import Problem, failed_models
from ultra.service.usage import total_usage, usage_as_openai
from ultra.strategies.catalog import make_strategy
from ultra.strategies.synthesize import Analysts, Synthesize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.targets import Target, Targets
    from ultra.strategies.base import Strategy

__all__ = [
    "Extension",
    "Plugin",
    "RunFields",
    "asked_extension",
    "summary",
    "wants_reasoning",
    "with_extension",
]

Exposed = Literal["panel", "analysis", "usage", "reasoning"]

_SETTINGS: Final = ("quorum", "grace", "timeout", "max_cost")


class Plugin(Struct):
    """One of OpenRouter's plugins; only `fusion` is known here, and the others are left alone.

    `analysis_models` are the panel, `model` writes the answer, `preset` is the name of an ensemble.
    """

    id: str
    enabled: bool = True
    preset: str | None = None
    analysis_models: tuple[str, ...] | None = None
    model: str | None = None


class RunFields(Struct, forbid_unknown_fields=True):
    """The field `ultra` of a request: how this run differs from what its `model` stands for."""

    panel: tuple[str, ...] | None = None
    judge: str | None = None
    strategy: str | None = None
    options: dict[str, Any] | None = None
    quorum: Quorum | None = None
    grace: float | None = None
    timeout: float | None = None
    max_cost: float | None = None
    analysts: Analysts | None = None
    expose: tuple[Exposed, ...] = ()


class Extension(Struct, frozen=True):
    """What a request asks for beside its protocol. `fields` are as in `ultra`; `base`: another ensemble."""

    fields: RunFields
    base: str | None = None
    wants_ensemble: bool = False


def asked_extension(plugins: Sequence[Plugin] | None, fields: RunFields | None) -> Extension | None:
    """Return what a request asks for; None: nothing beside its protocol."""
    fusion = [plugin for plugin in plugins or () if plugin.id == "fusion" and plugin.enabled]
    if not fusion:
        return None if fields is None else Extension(fields, wants_ensemble=_asks_several(fields))
    plugin, given = fusion[0], fields or RunFields()
    merged = structs.replace(
        given,
        panel=given.panel or plugin.analysis_models,
        judge=given.judge or plugin.model,
    )
    return Extension(merged, plugin.preset, wants_ensemble=True)


def _asks_several(fields: RunFields) -> bool:
    return any(value is not None for value in (fields.panel, fields.judge, fields.strategy, fields.analysts))


def wants_reasoning(extension: Extension | None, *, asked: bool) -> bool:
    """Return whether providers shall show what models think: the protocol's field, or `ultra`, asks so."""
    return asked or (extension is not None and "reasoning" in extension.fields.expose)


def with_extension(target: Target, extension: Extension | None, targets: Targets) -> Target:
    """Return the target as the request changes it.

    Raises:
        Problem: a model or a strategy is unknown, or a value is not allowed.
    """
    if extension is None:
        return target
    fields = extension.fields
    try:
        return _changed(target, extension, fields, targets)
    except BadCall as error:
        raise Problem.bad_request(f"ultra: {error}", param="ultra") from None


def _changed(target: Target, extension: Extension, fields: RunFields, targets: Targets) -> Target:
    judge = fields.judge
    if extension.base is not None:
        target = targets.get(extension.base)
    elif target.kind == "model" and extension.wants_ensemble:
        # OpenRouter's sense: the model that is named writes the answer, and others are its panel.
        judge = judge or target.name
        allowed = targets.default_panel()
        models = {} if allowed is None else {"models": allowed}
        target = structs.replace(target, kind="ensemble", arguments={"strategy": Synthesize(), **models})
    arguments = dict(target.arguments)
    strategy: Strategy = arguments["strategy"]
    if fields.strategy is not None:
        strategy = make_strategy(fields.strategy, fields.options)
        arguments.pop("stages", None)
    elif fields.options is not None:
        raise BadCall("options are those of a strategy; name it, too")
    if fields.analysts is not None:
        strategy = structs.replace(_synthesize(strategy, "analysts"), analysts=fields.analysts)
    strategy, panel = _panel(strategy, fields.panel or arguments.get("models"), judge)
    targets.check((*(fields.panel or ()), *(() if judge is None else (judge,))), param="ultra")
    arguments["strategy"] = strategy
    if panel is not None:
        arguments["models"] = tuple(panel)
    for name in _SETTINGS:
        if getattr(fields, name) is not None:
            arguments[name] = getattr(fields, name)
    return structs.replace(target, arguments=arguments)


def _panel(
    strategy: Strategy, panel: Sequence[str] | None, judge: str | None
) -> tuple[Strategy, Sequence[str] | None]:
    """Return the strategy and whom it may ask: the panel, and the judge, which may be none of the panel."""
    if judge is None:
        return strategy, panel
    strategy = structs.replace(_synthesize(strategy, "judge"), writer=judge)
    if panel is None or judge in panel:
        return strategy, panel
    return structs.replace(strategy, panel=tuple(panel)), (*panel, judge)


def _synthesize(strategy: Strategy, what: str) -> Synthesize:
    if not isinstance(strategy, Synthesize):
        raise BadCall(f"{what} belongs to the strategy 'synthesize', and this run has another")
    return strategy


def summary(result: OrchestrationResult, fields: RunFields, *, single: bool) -> dict[str, Any]:
    """Return what a client that asked for more is told of the run: no text of a provider's errors.

    `single`: one model was asked, and no ensemble.
    """
    final = result.final_synthesis
    told: dict[str, Any] = {
        "run_id": result.run_id,
        "status": result.status,
        "strategy": None if single else result.strategy,
        "source": result.synthesis_source,
        "written_by": None if final is None else final.model_name,
        "confidence": result.confidence,
        "confidence_basis": result.confidence_basis,
        "models": list(dict.fromkeys(each.model_name for step in result.steps for each in step.responses)),
        "failed_models": failed_models(result.failures),
        "seconds": round(result.response_time, 3),
        "cost": result.cost,
    }
    if "panel" in fields.expose:
        told["responses"] = [
            _exposed(each)
            for step in result.steps
            if step.name not in {"meta", "synthesis"}
            for each in step.responses
        ]
    if "analysis" in fields.expose:
        told["analysis"] = [
            _exposed(each) for step in result.steps if step.name == "meta" for each in step.responses
        ]
    if "usage" in fields.expose:
        told["usage"] = usage_as_openai(total_usage(result))
        told["usage_by_answer"] = [
            {
                "model": each.model_name,
                "stage": each.stage,
                "cached": each.cached,
                "cost": each.cost,
                **usage_as_openai(each.usage),
            }
            for step in result.steps
            for each in step.responses
        ]
    if "reasoning" in fields.expose and final is not None:
        told["reasoning"] = "\n\n".join(part.text for part in final.reasoning_parts if part.text) or None
    return told


def _exposed(response: ModelResponse) -> dict[str, Any]:
    return {
        "model": response.model_name,
        "sample": response.sample,
        "content": response.content,
        "quality": response.quality,
        "finish_reason": response.finish_reason,
        "seconds": round(response.response_time, 3),
    }
