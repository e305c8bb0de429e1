"""Runs of models whose clients the test writes, without a coordinator."""

from __future__ import annotations

import math
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from helpers.model_actors import register
from ultra.actors.coordinator.messages import Execute, LocalRun
from ultra.actors.coordinator.run import Run
from ultra.errors import ModelError
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest
from ultra.messages.results import OrchestrationResult
from ultra.orchestrator.event_buffer import NoReader
from ultra.orchestrator.tree import ModelTree
from ultra.prompts.fencing import Fencing
from ultra.strategies import Stage, Synthesize
from ultra.strategies.catalog import spec_of
from ultra.supervisor import RestartIntensity
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ultra.actors.model.registered import RegisteredModel
    from ultra.messages.events import Event
    from ultra.strategies import Strategy

NOW = RestartIntensity(3, within=5.0)


def asks(text: str) -> Any:
    """Write the same prompt for all."""
    return lambda _responses: text


INITIAL = Stage(name="initial", prompt=asks("initial"), share=0.0)
META = Stage(name="meta", prompt=asks("meta"), reads="initial", optional=True, share=0.2)
SYNTHESIS = Stage(name="synthesis", prompt=asks("synthesis"), reads="initial", asks="first", share=0.3)
ALL = (INITIAL, META, SYNTHESIS)


class Recorder:
    """A sink that keeps what it is told."""

    listens = True

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def of(self, name: str) -> list[Any]:
        return [event for event in self.events if type(event).__name__ == name]


async def run(
    models: list[RegisteredModel],
    *stages: Stage,
    strategy: Strategy | None = None,
    timeout: float = math.inf,
    **fields: Any,
) -> OrchestrationResult:
    """Carry out a run of these stages, or of a strategy, without a coordinator."""
    strategy = strategy or Synthesize(stages=stages or ALL)
    async with ModelTree(models, random=Random(1), intensity=NOW) as tree:
        return await Run(*make_run(tree, models, strategy, timeout=timeout, **fields)).execute()


def make_run(
    tree: ModelTree, models: list[RegisteredModel], strategy: Strategy, **fields: Any
) -> tuple[Execute, LocalRun]:
    """The message of a run, and what stays beside it; `fields` are those of either, or of `RunOptions`.

    `judge` is a registered model.
    """
    timeout = fields.pop("timeout", math.inf)
    started = fields.pop("started", trio.current_time())
    local = {name: fields.pop(name) for name in ("scorer", "caller") if name in fields}
    judge = fields.pop("judge", None)
    execute = Execute(
        run_id="r",
        request=ModelRequest.of("Q"),
        models=tuple(model.name for model in models),
        strategy=spec_of(strategy),
        options=RunOptions(
            timeout=None if timeout == math.inf else timeout,
            use_cache=False,
            **{name: value for name, value in fields.items() if name != "sink"},
        ),
    )
    return execute, LocalRun(
        strategy=strategy,
        targets=tuple(tree.target(model) for model in models),
        requests=tree.requests,
        reminders=tree.reminders,
        fencing=Fencing(b"s" * 32),
        sink=fields.get("sink", NoReader("r")),
        started=started,
        deadline=started + timeout,
        judge=None if judge is None else tree.target(judge),
        **local,
    )


def three(**clients: Any) -> list[RegisteredModel]:
    """Models a, b and c, of falling weight."""
    return [
        register(clients.get(name) or FakeModel(name=name), name, weight)
        for name, weight in (("a", 3.0), ("b", 2.0), ("c", 1.0))
    ]


def by_weight(fakes: Iterable[tuple[FakeModel, float]]) -> list[RegisteredModel]:
    """Models of these clients and weights, highest weight first, as an orchestrator gives them to a run."""
    models = [register(fake, fake.name, weight) for fake, weight in fakes]
    return sorted(models, key=lambda model: -model.weight)


def failing(name: str, kind: Any = "server") -> FakeModel:
    return FakeModel(name=name, failures=[ModelError(f"{name} is down", kind=kind) for _ in range(99)])
