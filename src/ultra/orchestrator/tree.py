"""The actor tree of an orchestrator: root → models (an isolating supervisor for each) → coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote

import trio

from ultra.actors.coordinator.actor import Coordinator
from ultra.actors.coordinator.messages import LocalRuns, Target
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.messages import LocalRequests
from ultra.actors.runtime.status import ActorState
from ultra.errors import ModelUnregistered, OrchestratorClosed
from ultra.orchestrator.health import model_health
from ultra.supervisor.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random
    from types import TracebackType

    from ultra.actors.model.registered import RegisteredModel
    from ultra.actors.runtime.actor import ActorRef
    from ultra.actors.runtime.cell import Interceptor
    from ultra.orchestrator.health import ModelHealth
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import RestartIntensity
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ModelTree"]


class _Place(NamedTuple):
    """Where a model's actor is in the tree: below a supervisor of its own, called `node`."""

    node: str
    above: Supervisor
    target: Target

    @property
    def has_ended(self) -> bool:
        """Whether the actor has ended for good."""
        return self.target.ref.snapshot().state is ActorState.STOPPED


class ModelTree:
    """Entered, it has an actor for each model and a coordinator; left, it has stopped them.

    The models start before the coordinator and stop after it, so that its runs can end.
    """

    def __init__(
        self,
        models: Iterable[RegisteredModel],
        *,
        random: Random,
        intensity: RestartIntensity,
        faults: Interceptor | None = None,
    ) -> None:
        self.system = ActorSystem(random=random, faults=faults)
        self.requests = LocalRequests()
        self.runs = LocalRuns()
        self._random = random
        self._intensity = intensity
        self._first = tuple(models)
        self._supervisor: Supervisor | None = None
        self._nodes: dict[str, None] = {}
        self._places: dict[RegisteredModel, _Place] = {}
        self._leaving: dict[RegisteredModel, _Place] = {}
        self._coordinator: ActorRef | None = None

    async def __aenter__(self) -> Self:
        await self.system.__aenter__()
        self._supervisor = self.system.supervisor("models", on_excess="isolate")
        for model in self._first:
            self.add(model)
        self._coordinator = self.system.spawn(Coordinator, self.runs, name="coordinator")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return await self.system.__aexit__(kind, error, trace)
        finally:
            # Those that `remove` could not wait for have ended by now, too.
            for models in (self._places, self._leaving):
                while models:  # taken out first, for a `remove` may come meanwhile and let go of them, too
                    await models.popitem()[0].release()

    @property
    def coordinator(self) -> ActorRef:
        """The actor that takes `Execute`."""
        if self._coordinator is None:
            raise OrchestratorClosed("the orchestrator's actors have not started")
        return self._coordinator

    def add(self, model: RegisteredModel) -> Target:
        """Start an actor for `model`; returns at once, and requests can be sent right away."""
        if self._supervisor is None:
            raise OrchestratorClosed("the orchestrator's actors have not started")
        node = self._free_node(model.name)
        above = self._supervisor.supervisor(node, on_excess="isolate", intensity=self._intensity)
        actor = above.spawn(ModelActor, model, self._random, self.requests, name="actor")
        target = Target(model, actor)
        self._nodes[node] = None
        self._places[model] = _Place(node, above, target)
        model.users += 1
        return target

    async def remove(self, model: RegisteredModel, *, drain: bool = True, grace: float | None = None) -> None:
        """Stop the actor of a model for good and wait until it has ended.

        With `drain` it first answers what it has accepted; `grace` [s] is as in `ActorRef.stop`. Cancelled,
        this stops waiting; the actor stops all the same.
        """
        place = self._places.pop(model, None)
        if place is None:
            return
        self._leaving[model] = place
        await place.above.stop(drain=drain, grace=grace)
        # Others may have ended meanwhile whose callers, cancelled, did not wait for it.
        ended = [left for left, its in self._leaving.items() if its.has_ended]
        for left in ended:
            del self._nodes[self._leaving.pop(left).node]
        for left in ended:
            await left.release()

    async def forget(self, models: Iterable[RegisteredModel]) -> None:
        """Stop the actors of unregistered clients that nobody is asking, which takes no time."""
        with trio.CancelScope(shield=True):
            for model in models:
                await self.remove(model, drain=False, grace=0)

    def revive(self, model: RegisteredModel) -> None:
        """Start the actor of a model again if it is down."""
        place = self._places.get(model)
        if place is not None:
            place.above.revive("actor")

    def target(self, model: RegisteredModel) -> Target:
        """The actor of `model`, which is started if there is none.

        Raises:
            ModelUnregistered: there is none any more, since another thread has unregistered the model.
        """
        place = self._places.get(model)
        if place is None and not model.registered:
            raise ModelUnregistered(model.name)
        return place.target if place is not None else self.add(model)

    def health(self, model: RegisteredModel) -> ModelHealth:
        """How `model` is right now."""
        return model_health(model, self.target(model).ref.snapshot())

    def snapshot(self) -> SupervisorSnapshot:
        """The whole tree as it is right now."""
        return self.system.tree()

    def _free_node(self, name: str) -> str:
        """A name for a model's supervisor: its own, unless a model of that name is still being stopped."""
        node = first = quote(name, safe=" :@")
        number = 1
        while node in self._nodes:
            number += 1
            node = f"{first}~{number}"
        return node
