"""An orchestrator with the models and settings of a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ultra.config.loading import load_configuration
from ultra.orchestrator.planning import stages_of, strategy_of
from ultra.orchestrator.submitted_runs import keep_runs
from ultra.strategies.stages import order_stages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ultra.config.loading import Configuration
    from ultra.orchestrator.orchestrator import MultiLLMOrchestrator

__all__ = ["configured"]

T = TypeVar("T", bound="MultiLLMOrchestrator")


def configured(
    kind: type[T],
    source: str | Path | Configuration,
    made: Mapping[str, Sequence[object]] | None = None,
) -> T:
    """Return an orchestrator of this class; see `MultiLLMOrchestrator.from_config`.

    What may be wrong in the configuration is looked at before a file of it is made. `made`: the clients of
    models by name, for each of its deployments, where these were made already.
    """
    configuration = load_configuration(source)
    stages, known = configuration.run.stages, stages_of(kind)
    with configuration.explaining("run", "stages"):
        order_stages(stages, known)
    with configuration.explaining("run", "strategy"):
        strategy = configuration.run.load_strategy()
        strategy_of(strategy, stages, known)
    clients, ensembles = dict(made or {}), dict[str, dict[str, Any]]()
    for name, model in configuration.models.items():
        if name not in clients:
            with configuration.explaining("models", name):
                clients[name] = model.connect(configuration.cluster)
    for name, ensemble in configuration.ensembles.items():
        with configuration.explaining("ensembles", name):
            ensembles[name] = ensemble.arguments(known)
    with configuration.explaining("shared", "store"):
        shared = configuration.shared.open()
    with configuration.explaining("cache", "store"):
        orchestrator = kind(
            **configuration.settings(),
            strategy=strategy,
            shared=shared,
            single_flight=configuration.shared.single_flight,
        )
    for name, model in configuration.models.items():
        with configuration.explaining("models", name):
            orchestrator.register_model(name, list(clients[name]), model.weight, **model.policies())
    for name, ensemble in configuration.ensembles.items():
        with configuration.explaining("ensembles", name):
            orchestrator.add_ensemble(name, description=ensemble.description, **ensembles[name])
    with configuration.explaining("journal", "store"):
        keep_runs(orchestrator, configuration.journal.open())
    return orchestrator
