"""The actor tree of an orchestrator: the models, each below a supervisor of its own, and the coordinator."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple, Self
from urllib.parse import quote

import trio

from ultra._support.reminders import RunningReminders
from ultra.actors.coordinator.actor import Coordinator
from ultra.actors.coordinator.messages import LocalRuns, Target
from ultra.actors.model.actor import ModelActor
from ultra.actors.model.cache_access import CacheWriter
from ultra.actors.model.messages import LocalRequests
from ultra.actors.model.started_actor import StartedModelActor
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


class _Node(NamedTuple):
    """A model in the tree: its actor, below a supervisor of this `name`."""

    name: str
    supervisor: Supervisor
    target: Target

    @property
    def has_ended(self) -> bool:
        """Whether the actor has stopped, not to start again."""
        return self.target.ref.snapshot().state is ActorState.STOPPED


async def _release(models: Iterable[RegisteredModel]) -> None:
    """Release the models side by side: one whose client does not close takes no time from the others."""
    # Each is bounded in time and shielded itself, so the nursery needs no more than to be entered.
    with trio.CancelScope(shield=True):
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            for model in models:
                nursery.start_soon(model.release)


class ModelTree:
    """The actors of an orchestrator, from entering this to leaving it. `reminders` ring meanwhile.

    The models start before the coordinator and stop after it, so that its runs can end. ::

        root ── models ── llama ── actor       (each model below a supervisor that isolates it)
            │         └── gemini ── actor
            └── coordinator
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
        self.reminders = RunningReminders()
        self._entered = AsyncExitStack()
        self._writer = CacheWriter()
        self._random = random
        self._intensity = intensity
        self._first = tuple(models)
        self._supervisor: Supervisor | None = None
        self._names: dict[str, None] = {}  # of nodes, taken
        self._nodes: dict[RegisteredModel, _Node] = {}
        self._leaving: dict[RegisteredModel, _Node] = {}
        self._coordinator: ActorRef | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as entered:
            await entered.enter_async_context(self._writer)
            await entered.enter_async_context(self.reminders)
            await entered.enter_async_context(self.system)
            self._entered = entered.pop_all()
        try:
            self._supervisor = self.system.supervisor("models", on_excess="isolate")
            for model in self._first:
                self.add(model)
            self._coordinator = self.system.spawn(Coordinator, self.runs, name="coordinator")
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        try:
            return await self._entered.__aexit__(kind, error, trace)
        finally:
            # Those for which a cancelled `remove` did not wait have ended by now, too.
            left = [*self._nodes, *self._leaving]
            self._nodes.clear()  # taken out first, since a `remove` may release them meanwhile
            self._leaving.clear()
            await _release(left)

    @property
    def coordinator(self) -> ActorRef:
        """The actor to which `Execute` is sent."""
        if self._coordinator is None:
            raise OrchestratorClosed("the orchestrator's actors have not started")
        return self._coordinator

    def add(self, model: RegisteredModel) -> Target:
        """Start an actor for `model`. This returns at once, and requests can be sent right away."""
        if self._supervisor is None:
            raise OrchestratorClosed("the orchestrator's actors have not started")
        name = self._free_name(model.name)
        supervisor = self._supervisor.supervisor(name, on_excess="isolate", intensity=self._intensity)
        kind = ModelActor if model.started is None else StartedModelActor
        parts = model, self._random, self.requests, self._writer, self.reminders
        actor = supervisor.spawn(kind, *parts, name="actor")
        target = Target(model.name, model, actor)
        self._names[name] = None
        self._nodes[model] = _Node(name, supervisor, target)
        model.users += 1
        return target

    async def remove(self, model: RegisteredModel, *, drain: bool = True, grace: float | None = None) -> None:
        """Stop the actor of a model and wait until it has ended.

        With `drain`, it answers the requests that it has accepted first. `grace` [s] is as in
        `ActorRef.stop`. Cancelling this ends the waiting only: the actor stops all the same.
        """
        node = self._nodes.pop(model, None)
        if node is None:
            return
        self._leaving[model] = node
        await node.supervisor.stop(drain=drain, grace=grace)
        # Others may have ended meanwhile, for which a cancelled call of this did not wait.
        ended = [left for left, its in self._leaving.items() if its.has_ended]
        for left in ended:
            del self._names[self._leaving.pop(left).name]
        await _release(ended)

    async def drop(self, models: Iterable[RegisteredModel]) -> None:
        """Stop the actors of unregistered clients that are not being asked, which takes no time."""
        with trio.CancelScope(shield=True):
            for model in models:
                await self.remove(model, drain=False, grace=0)

    def revive(self, model: RegisteredModel) -> None:
        """Start the actor of a model again if it is down."""
        node = self._nodes.get(model)
        if node is not None:
            node.supervisor.revive("actor")

    def target(self, model: RegisteredModel) -> Target:
        """Return `model` with its actor, which is started if there is none.

        Raises:
            ModelUnregistered: another thread has unregistered the model.
        """
        node = self._nodes.get(model)
        if node is None and not model.registered:
            raise ModelUnregistered(model.name)
        return node.target if node is not None else self.add(model)

    def health(self, model: RegisteredModel) -> ModelHealth:
        """Return the health of `model` at this moment."""
        return model_health(model, self.target(model).ref.snapshot())

    def snapshot(self) -> SupervisorSnapshot:
        """Return the whole tree at this moment."""
        return self.system.tree()

    def _free_name(self, model_name: str) -> str:
        """Return a name for the supervisor of a model; with a number, if another of that name is stopping."""
        name = first = quote(model_name, safe=" :@")
        number = 1
        while name in self._names:
            number += 1
            name = f"{first}~{number}"
        return name
