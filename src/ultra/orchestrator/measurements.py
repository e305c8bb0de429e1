"""All numbers of an orchestrator at one moment, for those who export them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.histogram import HistogramCounts
from ultra.actors.model.breaker import BreakerStatistics
from ultra.actors.model.limits import LimiterStatistics
from ultra.messages.results import ModelMetrics
from ultra.orchestrator.health import ModelHealth
from ultra.orchestrator.run_metrics import RunCounts, Spending
from ultra.supervisor.snapshot import SupervisorSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.actors.model.metrics import StageTimes
    from ultra.actors.model.registered import RegisteredModel
    from ultra.orchestrator.lifespan import Lifespan
    from ultra.orchestrator.registry import ModelRegistry
    from ultra.orchestrator.run_metrics import RunMetrics
    from ultra.orchestrator.tree import ModelTree

__all__ = ["Measurements", "ModelMeasurements", "StageMeasurements", "measure"]


class StageMeasurements(Struct, frozen=True):
    """How long the answers of one model in one stage took, from its provider: seconds.

    `first_token` has those alone that were streamed.
    """

    response: HistogramCounts
    first_token: HistogramCounts


class ModelMeasurements(Struct, frozen=True, kw_only=True):
    """One model. `errors` counts failed requests by their kind.

    `health`, `circuit` and `limits` are None while there are no actors.
    """

    metrics: ModelMetrics
    errors: dict[str, int]
    stages: dict[str, StageMeasurements]
    health: ModelHealth | None = None
    circuit: BreakerStatistics | None = None
    limits: LimiterStatistics | None = None


class Measurements(Struct, frozen=True, kw_only=True):
    """One orchestrator: its models, by name, and its runs.

    `spending` is by the scope of runs. `tree` is None, and `dead_letters` 0, while there are no actors: an
    orchestrator that is not entered has some only for the time of a call.
    """

    models: dict[str, ModelMeasurements]
    runs: tuple[RunCounts, ...]
    running: int
    spending: dict[str, Spending]
    tree: SupervisorSnapshot | None = None
    dead_letters: int = 0


def measure(registry: ModelRegistry, runs: RunMetrics, lifespan: Lifespan) -> Measurements:
    """Return all numbers, from any thread."""
    models = registry.prioritized()
    return lifespan.trio_run.run_sync(lambda: _measured(models, runs, lifespan.tree))


def _measured(models: Iterable[RegisteredModel], runs: RunMetrics, tree: ModelTree | None) -> Measurements:
    return Measurements(
        models={model.name: _of_model(model, tree) for model in models},
        runs=runs.counts(),
        running=runs.running,
        spending=runs.spending(),
        tree=None if tree is None else tree.snapshot(),
        dead_letters=0 if tree is None else tree.system.dead_letters.total,
    )


def _of_model(model: RegisteredModel, tree: ModelTree | None) -> ModelMeasurements:
    recorder = model.metrics
    return ModelMeasurements(
        metrics=recorder.snapshot(),
        errors=dict(recorder.errors),
        stages={name: _of_stage(times) for name, times in recorder.stages.items()},
        health=None if tree is None else tree.health(model),
        circuit=None if tree is None else model.breaker.statistics(),
        limits=None if tree is None else model.limiter.statistics(),
    )


def _of_stage(times: StageTimes) -> StageMeasurements:
    return StageMeasurements(times.response.snapshot(), times.first_token.snapshot())
