"""The supervisor as its users see it: adding children, stopping, looking at the tree."""

from __future__ import annotations

from functools import partial
from inspect import isclass, iscoroutinefunction
from random import Random
from typing import TYPE_CHECKING

from msgspec import Struct

from ultra._support.checks import check_choice, check_seconds
from ultra.actors.runtime.actor import Actor, ActorOptions, ActorRef
from ultra.actors.runtime.cell import Cell, Interceptor
from ultra.actors.runtime.dead_letters import DeadLetters
from ultra.actors.runtime.home_run import HomeRun
from ultra.errors import BadCall
from ultra.supervisor.child import ActorChild, SupervisorChild
from ultra.supervisor.lifecycle import Lifecycle
from ultra.supervisor.restart_policy import RestartPolicy
from ultra.supervisor.snapshot import SupervisorSnapshot
from ultra.supervisor.spec import (
    Backoff,
    ChildSpec,
    OnExcess,
    Restart,
    RestartIntensity,
    RestartStrategy,
)
from ultra.supervisor.supervision_loop import SupervisionLoop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Environment", "Supervisor"]


class Environment(Struct, frozen=True):
    """What all supervisors and actors of one system share."""

    dead_letters: DeadLetters
    lifecycle: Lifecycle
    random: Random
    home: HomeRun
    interceptor: Interceptor | None = None


class Supervisor:
    """Supervise actors and other supervisors: restart a child that crashes, and stop all in the end.

        pool = system.supervisor("pool", strategy="rest_for_one")
        store = pool.spawn(Store, name="store")
        reader = pool.spawn(Reader, store, name="reader")   # restarted whenever `store` is

    `ActorSystem.supervisor` and `Supervisor.supervisor` make supervisors. `loop` is internal.
    """

    def __init__(
        self,
        path: str,
        environment: Environment,
        *,
        strategy: RestartStrategy = "one_for_one",
        intensity: RestartIntensity | None = None,
        on_excess: OnExcess = "escalate",
    ) -> None:
        self.path = path
        self.name = path.rpartition("/")[2]
        _check_kind("intensity", intensity, RestartIntensity)
        self.strategy: RestartStrategy = check_choice("strategy", strategy, RestartStrategy)
        self.intensity = intensity or RestartIntensity()
        self._environment = environment
        self._child: SupervisorChild | None = None
        self._unnamed = 0
        check_choice("on_excess", on_excess, OnExcess)
        policy = RestartPolicy(self.strategy, self.intensity, on_excess, environment.random)
        self.loop = SupervisionLoop(path, policy, environment.lifecycle)

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
        right away: they wait in the inbox. `options` default to those of the class, if the factory is
        an actor's class or a `functools.partial` of one; `name` defaults to a new one, made from the
        factory's name.

        Raises:
            BadCall: the name is taken or not usable, or an argument is not allowed.
            ActorStopped: this supervisor has ended, or is ending (`ActorDown`: it crashed too often).
        """
        _check_factory(factory)
        _check_kind("options", options, ActorOptions)
        _check_kind("backoff", backoff, Backoff)
        spec = ChildSpec(
            name=self._usable_name(name, factory),
            factory=partial(factory, *args) if args else factory,
            options=options or _options_of(factory),
            restart=restart,
            backoff=backoff or Backoff(),
        )
        cell = Cell(
            f"{self.path}/{spec.name}",
            spec.factory,
            spec.options,
            dead_letters=self._environment.dead_letters,
            interceptor=self._environment.interceptor,
            home=self._environment.home,
        )
        self.loop.add(ActorChild(spec, cell, self.loop))
        return cell.ref

    def supervisor(
        self,
        name: str,
        *,
        strategy: RestartStrategy = "one_for_one",
        intensity: RestartIntensity | None = None,
        on_excess: OnExcess = "escalate",
        restart: Restart = "permanent",
        backoff: Backoff | None = None,
    ) -> Supervisor:
        """Add a supervisor below this one, which starts after the children added before it.

        Raises:
            BadCall: the name is taken or not usable, or an argument is not allowed.
            ActorStopped: this supervisor has ended, or is ending (`ActorDown`: it crashed too often).
        """
        _check_kind("backoff", backoff, Backoff)
        below = Supervisor(
            f"{self.path}/{self._usable_name(name, None)}",
            self._environment,
            strategy=strategy,
            intensity=intensity,
            on_excess=on_excess,
        )
        restart = check_choice("restart", restart, Restart)
        below._child = SupervisorChild(below, restart, backoff or Backoff(), self.loop)
        self.loop.add(below._child)
        return below

    def request_stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Ask the supervisor to stop, and go on; see `stop`. Actors below it, which cannot wait, use this."""
        check_seconds("grace", grace, optional=True)
        self._environment.home.check(self.path)
        if self._child is None:
            self.loop.begin_stop(grace, drain=drain)
        else:
            self._child.stop_requested(drain=drain, grace=grace)

    async def stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Stop this supervisor for good, its children in reverse order, and wait until all have ended.

        `drain` and `grace` [s] are as in `ActorRef.stop`, for each actor in turn. Cancelled, this stops
        waiting, and the supervisor stops nevertheless. An actor below it that waits here has to end itself:
        it is cancelled after its grace period.
        """
        self.request_stop(drain=drain, grace=grace)
        await self.loop.ended.wait()

    def revive(self, name: str) -> None:
        """Start the child called `name` again if it is down; do nothing if it is not.

        Raises:
            BadCall: there is no such child.
            ActorStopped: this supervisor has ended (`ActorDown`: it is down itself; revive it first).
        """
        self._environment.home.check(self.path)
        self.loop.check_open()
        child = self.loop.children.get(name)
        if child is None:
            choices = ", ".join(self.loop.children) or "none"
            raise BadCall(f"{self!r} has no child {name!r}; its children: {choices}")
        self.loop.revive(child)

    def snapshot(self) -> SupervisorSnapshot:
        """Return this supervisor and all below it, as they are right now."""
        return SupervisorSnapshot(
            name=self.name or "/",
            path=self.path or "/",
            state=self.loop.state,
            strategy=self.strategy,
            restarts=self.loop.restarts,
            children=tuple(child.snapshot() for child in self.loop.children.values()),
        )

    def _usable_name(self, name: str | None, factory: object) -> str:
        self._environment.home.check(self.path)
        self.loop.check_open()
        if name is None:
            return self._new_name(factory)
        given: object = name
        if not isinstance(given, str) or not given or "/" in given:
            raise BadCall(f"the name {name!r} is not usable: give text that is not empty and has no '/'")
        if name in self.loop.children:
            raise BadCall(f"{self!r} already has a child {name!r}; names must differ")
        return name

    def _new_name(self, factory: object) -> str:
        stem = getattr(factory, "__name__", "actor").strip("<>").lower()
        while True:
            self._unnamed += 1
            name = f"{stem}-{self._unnamed}"
            if name not in self.loop.children:
                return name


def _options_of(factory: object) -> ActorOptions:
    if isinstance(factory, partial):
        factory = factory.func
    options = getattr(factory, "options", None)
    if isclass(factory) and not isinstance(options, ActorOptions):
        raise BadCall(f"options of {factory.__qualname__} is {options!r}; it must be an ActorOptions object")
    return options if isinstance(options, ActorOptions) else Actor.options


def _check_factory(factory: object) -> None:
    if not callable(factory) or (isclass(factory) and not issubclass(factory, Actor)):
        raise BadCall(f"cannot spawn {factory!r}: give a subclass of Actor, or a function that makes one")
    if iscoroutinefunction(factory):
        raise BadCall(f"cannot spawn {factory!r}: what makes an actor cannot be async; use Actor.on_start")


def _check_kind(name: str, value: object, kind: type) -> None:
    if value is not None and not isinstance(value, kind):
        raise BadCall(f"{name} is {value!r}; it must be a {kind.__name__} object, or None")
