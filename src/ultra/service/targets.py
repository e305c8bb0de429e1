"""What a client may name as `model`: an ensemble, or one model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from ultra._support.checks import did_you_mean
from ultra.service.access import Caller
from ultra.service.problems import Problem
from ultra.strategies.catalog import make_strategy
from ultra.strategies.one_model import OneModel
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ultra.clients.catalog import ModelInfo
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
    from ultra.strategies.base import Strategy

__all__ = ["Target", "Targets"]


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
    """All names that a client may ask for, ensembles first. `strategy` is for ensembles that name none.

    `caller`: who asks; without one, there are all.
    """

    def __init__(
        self,
        orchestrator: MultiLLMOrchestrator,
        strategy: Strategy | None = None,
        caller: Caller | None = None,
    ) -> None:
        self._orchestrator = orchestrator
        self._default = strategy or Synthesize()
        self._caller = caller or Caller()

    def of(self, caller: Caller) -> Targets:
        """Return those that this caller may ask for."""
        return Targets(self._orchestrator, self._default, caller)

    def names(self) -> list[str]:
        """Return them all."""
        ensembles = self.ensembles()
        return [*ensembles, *(name for name in self.models() if name not in ensembles)]

    def models(self) -> list[str]:
        """Return the names of the models, highest weight first."""
        return [name for name in self._orchestrator.get_prioritized_models() if self._caller.may_ask(name)]

    def ensembles(self) -> list[str]:
        """Return the names of the ensembles."""
        return [name for name in self._orchestrator.get_ensembles() if self._caller.may_ask(name)]

    def default_panel(self) -> tuple[str, ...] | None:
        """Return the models that are asked where none are named; None: all.

        Raises:
            Problem: the caller may ask for none.
        """
        if self._caller.key is None or self._caller.key.models is None:
            return None
        models = tuple(self.models())
        if not models:
            text = f"this key may ask for no single models; it may ask for: {', '.join(self.names())}"
            raise Problem(403, "permission_error", "model_not_allowed", text)
        return models

    def check(self, names: Sequence[str], *, param: str = "model") -> None:
        """Raise `Problem` if one of these is not known, or not allowed."""
        known = {*self._orchestrator.get_ensembles(), *self._orchestrator.get_prioritized_models()}
        for name in names:
            if name not in known:
                text = f"the model {name[:200]!r} does not exist{did_you_mean(name, self.names())}"
                raise Problem(404, "invalid_request_error", "model_not_found", text, param=param)
            if not self._caller.may_ask(name):
                text = f"this key may not ask for {name!r}; it may ask for: {', '.join(self.names())}"
                raise Problem(403, "permission_error", "model_not_allowed", text, param=param)

    def get(self, name: str) -> Target:
        """Return what this name stands for.

        Raises:
            Problem: nothing, or something that the caller may not ask for.
        """
        self.check([name])
        ensemble = self._orchestrator.get_ensembles().get(name)
        if ensemble is not None:
            given = ensemble.arguments.get("strategy")
            strategy = self._default if given is None else make_strategy(given)
            arguments = {"name": name, **ensemble.arguments, "strategy": strategy}
            return Target(name, "ensemble", arguments, ensemble.description)
        return Target(name, "model", {"models": (name,), "strategy": OneModel(), "quorum": 1})

    def panel(self, target: Target) -> list[str]:
        """Return the names of the models that a target asks, highest weight first."""
        return self._orchestrator.get_prioritized_models(target.arguments.get("models"))

    def info(self, target: Target) -> Mapping[str, ModelInfo]:
        """Return what is known of the models of a target, by name."""
        return {name: self._orchestrator.get_model_info(name) for name in self.panel(target)}
