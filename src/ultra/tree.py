"""The actor tree of an orchestrator: root → models (an isolating supervisor for each) → coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from ultra.actors.coordinator import Coordinator
from ultra.actors.model import ModelActor
from ultra.actors.run import Target
from ultra.supervisor.system import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random
    from types import TracebackType

    from ultra.actors.actor import ActorRef
    from ultra.actors.cell import Interceptor
    from ultra.actors.model import RegisteredModel
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import RestartIntensity
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["ModelTree"]


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
        self._random = random
        self._intensity = intensity
        self._first = tuple(models)
        self._supervisor: Supervisor | None = None
        self._supervisors: dict[str, Supervisor] = {}
        self._targets: dict[str, Target] = {}
        self._coordinator: ActorRef | None = None

    async def __aenter__(self) -> Self:
        await self.system.__aenter__()
        self._supervisor = self.system.supervisor("models", on_excess="isolate")
        for model in self._first:
            self.add(model)
        self._coordinator = self.system.spawn(Coordinator, name="coordinator")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self.system.__aexit__(kind, error, trace)

    @property
    def coordinator(self) -> ActorRef:
        """The actor that takes `Execute`."""
        if self._coordinator is None:
            raise RuntimeError("the tree was not entered")
        return self._coordinator

    def add(self, model: RegisteredModel) -> Target:
        """Start an actor for `model`; returns at once, and requests can be sent right away."""
        if self._supervisor is None:
            raise RuntimeError("the tree was not entered")
        above = self._supervisor.supervisor(
            quote(model.name, safe=" :@"), on_excess="isolate", intensity=self._intensity
        )
        target = Target(model, above.spawn(ModelActor, model, self._random, name="actor"))
        self._supervisors[model.name] = above
        self._targets[model.name] = target
        return target

    async def remove(self, name: str, *, drain: bool, grace: float | None = None) -> None:
        """Stop the actor of a model for good and wait until it has ended."""
        del self._targets[name]
        await self._supervisors.pop(name).stop(drain=drain, grace=grace)

    def revive(self, name: str) -> None:
        """Start the actor of a model again if it is down."""
        self._supervisors[name].revive("actor")

    def target(self, model: RegisteredModel) -> Target:
        """The actor of `model`, which is started if there is none."""
        target = self._targets.get(model.name)
        return target if target is not None else self.add(model)

    def snapshot(self) -> SupervisorSnapshot:
        """The whole tree as it is right now."""
        return self.system.tree()
