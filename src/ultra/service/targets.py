"""What a client may name as `model`: an ensemble, or one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from ultra._support.checks import did_you_mean
from ultra.service.problems import Problem
from ultra.strategies.base import Answer
from ultra.strategies.catalog import make_strategy
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.clients.catalog import ModelInfo
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.strategies.base import RunContext, Strategy

__all__ = ["OneModel", "Target", "Targets"]


class OneModel(Struct, frozen=True):
    """Ask one model, and let its answer stand."""

    async def run(self, context: RunContext) -> Answer:
        """Ask the model of highest weight; see `Strategy.run`."""
        with context.step("answer"):
            responses = await context.ask_all(context.request, models=context.models[:1], samples=1)
        return Answer(responses[0] if responses else None, "primary")


class Target(Struct, frozen=True):
    """One name: `arguments` are those of `process_responses`, with the strategy as an object."""

    name: str
    kind: Literal["ensemble", "model"]
    arguments: dict[str, Any]
    description: str = ""

    @property
    def strategy(self) -> Strategy:
        """How it asks and merges."""
        found: Strategy = self.arguments["strategy"]
        return found


class Targets:
    """All names that clients may ask for, ensembles first. `strategy` is for ensembles that name none."""

    def __init__(self, orchestrator: MultiLLMOrchestrator, strategy: Strategy | None = None) -> None:
        self._orchestrator = orchestrator
        self._default = strategy or Synthesize()

    def names(self) -> list[str]:
        """Return them all."""
        ensembles = self._orchestrator.get_ensembles()
        return [*ensembles, *(name for name in self.models() if name not in ensembles)]

    def models(self) -> list[str]:
        """Return the names of the models, highest weight first."""
        return self._orchestrator.get_prioritized_models()

    def ensembles(self) -> list[str]:
        """Return the names of the ensembles."""
        return list(self._orchestrator.get_ensembles())

    def get(self, name: str) -> Target:
        """Return what this name stands for.

        Raises:
            Problem: nothing.
        """
        ensemble = self._orchestrator.get_ensembles().get(name)
        if ensemble is not None:
            given = ensemble.arguments.get("strategy")
            strategy = self._default if given is None else make_strategy(given)
            arguments = {"name": name, **ensemble.arguments, "strategy": strategy}
            return Target(name, "ensemble", arguments, ensemble.description)
        if name in self.models():
            return Target(name, "model", {"models": (name,), "strategy": OneModel(), "quorum": 1})
        text = f"the model {name[:200]!r} does not exist{did_you_mean(name, self.names())}"
        raise Problem(404, "invalid_request_error", "model_not_found", text, param="model")

    def panel(self, target: Target) -> list[str]:
        """Return the names of the models that a target asks, highest weight first."""
        return self._orchestrator.get_prioritized_models(target.arguments.get("models"))

    def info(self, target: Target) -> Mapping[str, ModelInfo]:
        """Return what is known of the models of a target, by name."""
        return {name: self._orchestrator.get_model_info(name) for name in self.panel(target)}
