"""Runs for tests, of models whose clients the test writes, with stages that all ask the same."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from helpers.registered import register
from helpers.voices import Voice
from ultra.actors.coordinator.plan import ComposedPrompt, RunPlan, StagePlan, Write
from ultra.actors.coordinator.run import Run
from ultra.errors import ModelError
from ultra.messages.results import OrchestrationResult
from ultra.orchestrator.tree import ModelTree
from ultra.supervisor import RestartIntensity

if TYPE_CHECKING:
    from ultra.actors.model.actor import RegisteredModel
    from ultra.messages.events import Event

NOW = RestartIntensity(3, within=5.0)


def asks(text: str) -> Any:
    """Composes the same prompt for all."""

    def compose(_run: Run) -> Write:
        return lambda _target: ComposedPrompt(text)

    return compose


INITIAL = StagePlan(name="initial", compose=asks("initial"))
META = StagePlan(name="meta", compose=asks("meta"), reads="initial", optional=True, share=0.2)
SYNTHESIS = StagePlan(
    name="synthesis", compose=asks("synthesis"), reads="initial", asks="first", final=True, share=0.3
)
ALL = (INITIAL, META, SYNTHESIS)


class Recorder:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: type[Event], **fields: Any) -> None:
        self.events.append((event.__name__, fields))

    def chunk(self, stage: str, model_name: str, text: str, begins: bool) -> None:  # noqa: FBT001
        fields = {"stage": stage, "model_name": model_name, "text": text, "begins": begins}
        self.events.append(("Chunk", fields))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]


async def run(
    models: list[RegisteredModel], *stages: StagePlan, timeout: float = math.inf, **fields: Any
) -> OrchestrationResult:
    async with ModelTree(models, random=Random(1), intensity=NOW) as tree:
        return await Run(make_plan(tree, models, *stages, timeout=timeout, **fields)).execute()


def make_plan(tree: ModelTree, models: list[RegisteredModel], *stages: StagePlan, **fields: Any) -> RunPlan:
    return RunPlan(
        run_id="r",
        question="Q",
        stages=stages or ALL,
        targets=tuple(tree.target(model) for model in models),
        started=fields.pop("started", trio.current_time()),
        use_cache=False,
        **fields,
    )


def three(**clients: Any) -> list[RegisteredModel]:
    """Models a, b and c, of falling weight."""
    return [
        register(clients.get(name) or Voice(name), name, weight)
        for name, weight in (("a", 3.0), ("b", 2.0), ("c", 1.0))
    ]


def failing(name: str, kind: Any = "server") -> Voice:
    return Voice(name, failures=[ModelError(f"{name} is down", kind=kind) for _ in range(99)])
