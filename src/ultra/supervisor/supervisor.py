"""The supervisor, as its users see it: what can be added to it, and asked of it."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING

import trio
from msgspec import Struct

from ultra.actors.actor import Actor, ActorOptions, ActorRef
from ultra.actors.cell import Cell, Interceptor
from ultra.actors.dead_letters import DeadLetters
from ultra.errors import ActorStopped, BadCall
from ultra.supervisor.child import ActorChild, SupervisorChild
from ultra.supervisor.lifecycle import Lifecycle
from ultra.supervisor.loop import SupervisionLoop
from ultra.supervisor.snapshot import SupervisorSnapshot
from ultra.supervisor.spec import (
    Backoff,
    ChildSpec,
    OnExcess,
    Restart,
    RestartIntensity,
    Strategy,
    check_choice,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.actors.cell import StopRequest

__all__ = ["Environment", "Supervisor"]


class Environment(Struct, frozen=True):
    """What all supervisors and actors of one system share."""

    dead_letters: DeadLetters
    lifecycle: Lifecycle
    random: Random
    interceptor: Interceptor | None = None


class Supervisor:
    """Supervises the children that are added to it. Made by `ActorSystem` and `Supervisor.supervisor`.

    `loop` and `ended` belong to the package.
    """

    def __init__(
        self,
        path: str,
        environment: Environment,
        *,
        strategy: Strategy = "one_for_one",
        intensity: RestartIntensity | None = None,
        on_excess: OnExcess = "escalate",
        on_stop_request: StopRequest,
    ) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        self.strategy: Strategy = check_choice("strategy", strategy, Strategy)
        self.intensity = intensity or RestartIntensity()
        self._environment = environment
        self._on_stop_request = on_stop_request
        self._unnamed = 0
        self.ended = trio.Event()
        self.loop = SupervisionLoop(
            path,
            strategy=self.strategy,
            intensity=self.intensity,
            on_excess=check_choice("on_excess", on_excess, OnExcess),
            lifecycle=environment.lifecycle,
            random=environment.random,
        )

    def __repr__(self) -> str:
        return f"<Supervisor {self.path or '/'} {self.strategy}>"

    def spawn(
        self,
        factory: Callable[..., Actor],
        *args: object,
        name: str | None = None,
        restart: Restart = "permanent",
        options: ActorOptions | None = None,
        backoff: Backoff | None = None,
    ) -> ActorRef:
        """Add an actor, which starts after the children added before it; returns at once.

        `factory` is called with `args` for each incarnation, in a clean context. Messages can be sent
        right away: they wait in the inbox. `options` default to those of the actor's class, `name` to
        one made from it.

        Raises:
            BadCall: the name is taken or not usable, or an argument is not allowed.
            ActorStopped: this supervisor has ended.
        """
        if not callable(factory):
            raise BadCall(f"cannot spawn {factory!r}: give a subclass of Actor, or a function that makes one")
        spec = ChildSpec(
            name=self._usable_name(name, factory),
            factory=partial(factory, *args) if args else factory,
            options=options or getattr(factory, "options", None) or Actor.options,
            restart=restart,
            backoff=backoff or Backoff(),
        )
        cell = Cell(
            f"{self.path}/{spec.name}",
            spec.factory,
            spec.options,
            dead_letters=self._environment.dead_letters,
            interceptor=self._environment.interceptor,
            on_stop_request=self._stop_child,
        )
        self.loop.add(ActorChild(spec, cell))
        return cell.ref

    def supervisor(
        self,
        name: str,
        *,
        strategy: Strategy = "one_for_one",
        intensity: RestartIntensity | None = None,
        on_excess: OnExcess = "escalate",
        restart: Restart = "permanent",
        backoff: Backoff | None = None,
    ) -> Supervisor:
        """Add a supervisor below this one, which starts after the children added before it.

        Raises:
            BadCall: the name is taken or not usable, or an argument is not allowed.
            ActorStopped: this supervisor has ended.
        """
        below = Supervisor(
            f"{self.path}/{self._usable_name(name, None)}",
            self._environment,
            strategy=strategy,
            intensity=intensity,
            on_excess=on_excess,
            on_stop_request=self._stop_child,
        )
        restart = check_choice("restart", restart, Restart)
        self.loop.add(SupervisorChild(below, restart, backoff or Backoff()))
        return below

    async def stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Stop this supervisor for good, its children in reverse order, and wait until all have ended.

        `drain` and `grace` [s] are as in `ActorRef.stop`, for each actor in turn. Cancelled, this stops
        waiting; the supervisor stops all the same.
        """
        self._on_stop_request(self.name, drain, grace)
        await self.ended.wait()

    def revive(self, name: str) -> None:
        """Start the child called `name` again if it is down; does nothing if it is not.

        Raises:
            BadCall: there is no such child.
        """
        child = self.loop.children.get(name)
        if child is None:
            choices = ", ".join(self.loop.children) or "none"
            raise BadCall(f"{self!r} has no child {name!r}; its children: {choices}")
        self.loop.revive(child)

    def snapshot(self) -> SupervisorSnapshot:
        """This supervisor and all below it, as they are right now."""
        return SupervisorSnapshot(
            name=self.name or "/",
            path=self.path or "/",
            strategy=self.strategy,
            restarts=self.loop.restarts,
            children=tuple(child.snapshot() for child in self.loop.children.values()),
        )

    def _stop_child(self, name: str, drain: bool, grace: float | None) -> None:  # noqa: FBT001 - a callback
        child = self.loop.children.get(name)
        if child is not None:
            self.loop.stop_child(child, grace, drain=drain)

    def _usable_name(self, name: str | None, factory: object) -> str:
        if self.loop.closed:
            raise ActorStopped(self.path or "/")
        if name is None:
            self._unnamed += 1
            return f"{getattr(factory, '__name__', 'actor').lower()}-{self._unnamed}"
        if not name or "/" in name:
            raise BadCall(f"the name {name!r} is not usable: give text that is not empty and has no '/'")
        if name in self.loop.children:
            raise BadCall(f"{self!r} already has a child {name!r}; names must differ")
        return name
