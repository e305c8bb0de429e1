"""The tools as an agent sees them: names, descriptions, and the schemas of what they take and give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.types import Tool, ToolAnnotations

from ultra.config.serving import DEFAULT_ENSEMBLE
from ultra.mcp.values import (
    AskArguments,
    AskResult,
    CompareArguments,
    CompareResult,
    ModelsArguments,
    ModelsResult,
    schema_of,
)
from ultra.strategies.catalog import strategy_names

if TYPE_CHECKING:
    from ultra.service.targets import Targets

__all__ = ["default_target", "tools_of"]

_ASK = (
    "Ask several language models the same question at once, and get one answer that is merged of theirs. "
    "For questions that are worth more than one opinion: reviews, designs, facts that must be right. It "
    "may take minutes and costs several calls; progress tells of each answer as it comes. By default it "
    "asks {default!r}."
)
_COMPARE = (
    "Ask several language models the same question at once, and get each one's answer side by side, "
    "without any merging."
)
_MODELS = "List the ensembles, the models and the strategies that can be asked here, and how the models are."


def default_target(targets: Targets) -> str:
    """Return what is asked where nothing is named: the ensemble of all models, or else the first one."""
    names = targets.names()
    return DEFAULT_ENSEMBLE if DEFAULT_ENSEMBLE in names or not names else names[0]


def tools_of(targets: Targets) -> list[Tool]:
    """Return the tools; what may be named now stands in their schemas."""
    ask = schema_of(AskArguments)
    _allow(ask, "ensemble", targets.names())
    _allow(ask, "strategy", strategy_names())
    _allow_each(ask, targets.models())
    compare = schema_of(CompareArguments)
    _allow_each(compare, targets.models())
    asks = ToolAnnotations(read_only_hint=True, open_world_hint=True)
    return [
        Tool(
            name="ask",
            title="Ask an ensemble",
            description=_ASK.format(default=default_target(targets)),
            input_schema=ask,
            output_schema=schema_of(AskResult),
            annotations=asks,
        ),
        Tool(
            name="compare",
            title="Compare models",
            description=_COMPARE,
            input_schema=compare,
            output_schema=schema_of(CompareResult),
            annotations=asks,
        ),
        Tool(
            name="models",
            title="List ensembles and models",
            description=_MODELS,
            input_schema=schema_of(ModelsArguments),
            output_schema=schema_of(ModelsResult),
            annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
        ),
    ]


def _allow(schema: dict[str, Any], name: str, values: list[str] | tuple[str, ...]) -> None:
    field = schema["properties"][name]
    field.pop("anyOf", None)
    field.pop("default", None)
    field |= {"type": "string", "enum": list(values)}


def _allow_each(schema: dict[str, Any], values: list[str]) -> None:
    field = schema["properties"]["models"]
    field.pop("anyOf", None)
    field.pop("default", None)
    field |= {"type": "array", "items": {"type": "string", "enum": values}, "minItems": 1}
