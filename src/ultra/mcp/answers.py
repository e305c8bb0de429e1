"""What each tool does: arguments in, its result out. Mistakes and failures are raised as `Problem`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import msgspec

from ultra.errors import BadCall
from ultra.mcp.runs import run
from ultra.mcp.tools import default_target
from ultra.mcp.values import (
    AnswerSummary,
    AskArguments,
    AskResult,
    CompareArguments,
    CompareResult,
    EnsembleSummary,
    FailureSummary,
    ModelsArguments,
    ModelsResult,
    ModelSummary,
)
from ultra.service.problems import Problem
from ultra.service.usage import total_usage
from ultra.strategies.catalog import make_strategy, spec_of, strategy_names
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from msgspec import Struct

    from ultra.mcp.runs import Caller
    from ultra.messages.results import ModelResponse, OrchestrationResult
    from ultra.service.core import Service
    from ultra.service.targets import Target

__all__ = ["TOOLS", "text_of"]

T = TypeVar("T", bound="Struct")

ToolResult: TypeAlias = AskResult | CompareResult | ModelsResult
Tool: TypeAlias = "Callable[[Service, Mapping[str, Any], Caller], Awaitable[ToolResult]]"

_HIDDEN_STEPS = frozenset({"meta", "synthesis"})
"""Steps whose texts are about answers, and are no answers of the panel."""


async def ask(service: Service, given: Mapping[str, Any], caller: Caller) -> AskResult:
    """Ask an ensemble, or one model, and return the one answer.

    Raises:
        Problem: an argument is wrong, or the run failed.
    """
    asked = _read(given, AskArguments)
    targets = service.targets_for(caller.who)
    target = targets.get(asked.ensemble or default_target(targets))
    arguments = _ask_arguments(asked, target)
    single = target.kind == "model" and asked.strategy is None and asked.models is None
    result = await run(service, caller, asked.prompt, arguments, single=single)
    final = result.final_synthesis
    return AskResult(
        answer="" if final is None else final.content,
        status=result.status,
        run_id=result.run_id,
        ensemble=target.name,
        strategy=spec_of(arguments["strategy"]).name,
        seconds=round(result.response_time, 3),
        output=result.plain_output,
        source=result.synthesis_source,
        written_by=None if final is None else final.model_name,
        confidence=result.confidence,
        confidence_basis=result.confidence_basis,
        cost=result.cost,
        tokens=total_usage(result).total,
        models=tuple(dict.fromkeys(each.model_name for step in result.steps for each in step.responses)),
        failed=_failed(result),
        answers=_answers(result) if asked.include_answers else (),
    )


async def compare(service: Service, given: Mapping[str, Any], caller: Caller) -> CompareResult:
    """Ask several models, and return what each says.

    Raises:
        Problem: an argument is wrong, or no model answered.
    """
    asked = _read(given, CompareArguments)
    arguments = _given(asked, "models", "system", "timeout", "max_cost")
    arguments |= {"strategy": Synthesize(stages=("initial",)), "quorum": 1}
    result = await run(service, caller, asked.prompt, arguments)
    return CompareResult(
        answers=_answers(result),
        run_id=result.run_id,
        seconds=round(result.response_time, 3),
        cost=result.cost,
        failed=_failed(result),
    )


async def models(service: Service, given: Mapping[str, Any], caller: Caller) -> ModelsResult:
    """Return what can be asked. Nothing is sent to a model."""
    _read(given, ModelsArguments)
    targets = service.targets_for(caller.who)
    health = service.orchestrator.health()
    found: list[ModelSummary] = []
    for name in targets.models():
        info = service.orchestrator.get_model_info(name)
        found.append(
            ModelSummary(
                name=name,
                status=health[name].status if name in health else "up",
                context_window=info.context_window,
                images=info.images,
                input_price=None if info.price is None else info.price.input,
                output_price=None if info.price is None else info.price.output,
            )
        )
    ensembles = [targets.get(name) for name in targets.ensembles()]
    return ModelsResult(
        default=default_target(targets),
        ensembles=tuple(
            EnsembleSummary(
                each.name, spec_of(each.strategy).name, tuple(targets.panel(each)), each.description
            )
            for each in ensembles
        ),
        models=tuple(found),
        strategies=strategy_names(),
    )


TOOLS: Final[Mapping[str, Tool]] = {"ask": ask, "compare": compare, "models": models}
"""The tools by name."""


def text_of(result: ToolResult) -> str:
    """Return a result as text, for clients and models that do not read structured content."""
    match result:
        case AskResult():
            return result.answer
        case CompareResult():
            parts = [f"## {each.model}\n\n{each.content}" for each in result.answers]
            parts += [f"## {each.model}\n\nfailed ({each.error})" for each in result.failed]
            return "\n\n".join(parts)
        case ModelsResult():
            return msgspec.json.format(msgspec.json.encode(result), indent=1).decode()


def _read(given: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Problem.bad_request(f"the arguments are not as they must be: {error}") from None


def _ask_arguments(asked: AskArguments, target: Target) -> dict[str, Any]:
    arguments = {**target.arguments, **_given(asked, "models", "system", "timeout", "max_cost")}
    if asked.models is not None and target.kind == "model":
        arguments["strategy"] = Synthesize()
    if asked.strategy is not None:
        arguments.pop("stages", None)
        try:
            arguments["strategy"] = make_strategy(asked.strategy, asked.strategy_options)
        except BadCall as error:
            raise Problem.bad_request(str(error), param="strategy") from None
    elif asked.strategy_options is not None:
        raise Problem.bad_request("strategy_options are those of a strategy; name it, too", param="strategy")
    if asked.schema is not None:
        arguments["output"] = asked.schema
    return arguments


def _given(asked: AskArguments | CompareArguments, *names: str) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(asked, name)) is not None}


def _failed(result: OrchestrationResult) -> tuple[FailureSummary, ...]:
    return tuple(FailureSummary(each.model_name, each.kind or each.error) for each in result.failures)


def _answers(result: OrchestrationResult) -> tuple[AnswerSummary, ...]:
    steps = [step for step in result.steps if step.name not in _HIDDEN_STEPS]
    return tuple(_answer(each) for step in steps for each in step.responses)


def _answer(response: ModelResponse) -> AnswerSummary:
    return AnswerSummary(
        model=response.model_name,
        content=response.content,
        seconds=round(response.response_time, 3),
        quality=response.quality,
        finish_reason=response.finish_reason,
        tokens=response.usage.total or None,
        cost=response.cost,
    )
