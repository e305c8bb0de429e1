"""The actor system: a root supervisor in a nursery of its own, as an async context manager."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Self, TypeVarTuple

import trio

from ultra._support.checks import check_count
from ultra._support.randomness import new_random
from ultra.actors.runtime.cell import check_faults
from ultra.actors.runtime.dead_letters import DeadLetters
from ultra.actors.runtime.home_run import HomeRun
from ultra.actors.runtime.status import ActorState
from ultra.errors import ActorStopped, BadCall, UsageError
from ultra.supervisor.lifecycle import Lifecycle
from ultra.supervisor.supervisor import Environment, Supervisor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from ultra.actors.runtime.actor import Actor, ActorOptions, ActorRef
    from ultra.actors.runtime.cell import Interceptor
    from ultra.supervisor.lifecycle import LifecycleEvent
    from ultra.supervisor.snapshot import SupervisorSnapshot
    from ultra.supervisor.spec import Backoff, OnExcess, Restart, RestartIntensity, RestartStrategy

__all__ = ["ActorSystem"]

Ts = TypeVarTuple("Ts")


class ActorSystem:
    """Run actors below a root supervisor, for as long as the block is entered.

        async with ActorSystem() as system:
            counter = system.spawn(Counter, name="counter")
            total = await counter.ask(Add(1))

    Leaving the block stops all actors, in reverse order, each within its grace period. If the block ends
    with an exception, or is cancelled, the actors are cancelled instead; `on_stop` runs even then. If a
    crash escalates past the root, the block is cancelled and ends with an ExceptionGroup that holds a
    `RestartLimitExceeded`, whose `crashes` led to it, and so on down to the first causes.

    A task that ignores cancellation cannot be ended. `stop` and `ActorRef.stop` report it and wait no
    longer; the block itself, like every nursery, waits for it.

    Args:
        strategy: which children of the root are restarted with one that crashed.
        intensity: how often; default: 3 restarts in 5 seconds.
        on_excess: what follows a crash that the intensity does not allow.
        random: decides the jitter of backoffs.
        dead_letters: how many dead letters are kept.
        faults: an `ultra.faults.FaultPlan`, which injects faults for tests.

    Raises:
        BadCall: an argument is not allowed.
    """

    def __init__(
        self,
        *,
        strategy: RestartStrategy = "one_for_one",
        intensity: RestartIntensity | None = None,
        on_excess: OnExcess = "escalate",
        random: Random | None = None,
        dead_letters: int = 256,
        faults: Interceptor | None = None,
    ) -> None:
        check_count("dead_letters", dead_letters, least=0)
        check_faults(faults)
        if random is not None and not isinstance(random, Random):
            raise BadCall(f"random is {random!r}; it must be a random.Random, or None")
        self.dead_letters = DeadLetters(dead_letters)
        self._lifecycle = Lifecycle()
        self._faults = faults
        self._home = HomeRun()
        random = new_random() if random is None else random
        environment = Environment(self.dead_letters, self._lifecycle, random, self._home, faults)
        self._root = Supervisor(
            "",
            environment,
            strategy=strategy,
            intensity=intensity,
            on_excess=on_excess,
        )
        self._nursery_manager = trio.open_nursery(strict_exception_groups=True)
        self._nursery: trio.Nursery | None = None
        self._entered = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise UsageError("an ActorSystem can be entered only once; make a new one")
        self._entered = True
        self._home.settle()
        if self._faults is not None:
            self._faults.begin()
        self._root.loop.prepare()
        self._nursery = nursery = await self._nursery_manager.__aenter__()
        nursery.start_soon(self._run_root, nursery)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if error is None and not self._root.loop.closed:
            self._root.loop.begin_stop()
        try:
            return await self._nursery_manager.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as group:
            # An exception of the block alone leaves as itself, as from any other context manager.
            if group.exceptions == (error,):
                return False
            if self._root.loop.failure is not None:
                message = "the actor system ended, since a crash went past its root supervisor"
                raise BaseExceptionGroup(message, group.exceptions) from None
            raise
        finally:
            self._end()

    async def _run_root(self, nursery: trio.Nursery) -> None:
        loop = self._root.loop

        def on_quiet() -> None:
            self._end()
            if loop.failure is not None:
                # The block hears of it even if an actor ignores cancellation and keeps the nursery open.
                nursery.cancel_scope.cancel()

        try:
            await loop.run(lambda: None, on_quiet)
        except BaseException as error:
            if loop.failure is None:
                raise
            # Cancelled or interrupted while it stopped the others: neither error may hide the other.
            raise BaseExceptionGroup("broken off after an escalation", [error, loop.failure]) from None
        if loop.failure is not None:
            raise loop.failure

    def _end(self) -> None:
        self._root.loop.terminate(ActorState.STOPPED)

    @property
    def root(self) -> Supervisor:
        """The supervisor above all others."""
        if not self._entered:
            raise ActorStopped("/", "has not started: enter the system with 'async with'")
        return self._root

    def spawn(
        self,
        factory: Callable[..., Actor],
        *args: object,
        name: str | None = None,
        restart: Restart = "permanent",
        options: ActorOptions | None = None,
        backoff: Backoff | None = None,
    ) -> ActorRef:
        """Add an actor below the root; see `Supervisor.spawn`."""
        return self.root.spawn(factory, *args, name=name, restart=restart, options=options, backoff=backoff)

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
        """Add a supervisor below the root; see `Supervisor.supervisor`."""
        return self.root.supervisor(
            name,
            strategy=strategy,
            intensity=intensity,
            on_excess=on_excess,
            restart=restart,
            backoff=backoff,
        )

    def request_stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Ask all actors to stop, and go on; see `stop`. Actors, which cannot wait for that, use this."""
        self.root.request_stop(drain=drain, grace=grace)

    async def stop(self, *, drain: bool = False, grace: float | None = None) -> None:
        """Stop all actors, in reverse order, and wait until they have ended; the block goes on.

        `drain` and `grace` [s] are as in `ActorRef.stop`, for each actor in turn. Calling it again, or
        leaving the block afterwards, does nothing more. Cancelled, this stops waiting, and they stop
        nevertheless.
        """
        await self.root.stop(drain=drain, grace=grace)

    def start_soon(self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a task beside the actors, which may ask them; `args` are its arguments.

        The block is its nursery: it does not end before the task, cancels it if the block is cancelled or
        raises, and ends with its exception. Stopping the actors does not end the task.

        Raises:
            UsageError: the system has not been entered.
        """
        self._home.check("/")
        if self._nursery is None:
            raise UsageError("the system has no tasks before it is entered with 'async with'")
        self._nursery.start_soon(function, *args)

    def observe(self, observer: Callable[[LifecycleEvent], None]) -> AbstractContextManager[None]:
        """Call `observer` with each lifecycle event while the block runs; it must return at once."""
        return self._lifecycle.observe(observer)

    def tree(self) -> SupervisorSnapshot:
        """Return the whole tree as it is right now; ``print(system.tree())`` draws it."""
        return self._root.snapshot()
