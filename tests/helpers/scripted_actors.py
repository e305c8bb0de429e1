"""Actors that do what their messages say, and what tests of the runtime need around them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pytest
import trio

from ultra.actors import Actor, ActorOptions, ActorSnapshot, Failure, Message, SystemMessage
from ultra.supervisor import Backoff, SupervisorSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.actors import ActorRef
    from ultra.supervisor import ActorSystem, LifecycleEvent

Action: TypeAlias = Callable[["ScriptedActor"], Awaitable[object]]
"""What an actor is to do: an async function of the actor, whose value is the reply."""

AT_ONCE = Backoff(initial=0.0)


class First(SystemMessage[object], frozen=True):
    """A message of the system lane: the action, or any text."""

    what: Any


class ScriptedActor(Actor):
    """Runs a message that is an action, and replies with any other one. Notes each in `log`, if given."""

    def __init__(self, log: list[Any] | None = None) -> None:
        self.log = log

    async def receive(self, message: Any) -> object:
        what: Any = message.what if isinstance(message, First) else message
        if self.log is not None:
            self.log.append(what)
        return await cast("Action", what)(self) if callable(what) else what


class Add(Message[int], frozen=True):
    """What an `Adder` adds up."""

    a: int
    b: int


class Adder(Actor):
    """Adds the numbers of an `Add`; an exception that it is sent, it replies with."""

    async def receive(self, message: object) -> object:
        match message:
            case Add(a, b):
                return a + b
            case error if isinstance(error, Exception):
                return Failure(error)
        return None


def wide(concurrency: int, **others: Any) -> ActorOptions:
    return ActorOptions(concurrency=concurrency, **others)


async def boom(_: Actor) -> object:
    raise ValueError("boom")


async def hang(_: Actor) -> object:
    await trio.sleep_forever()
    return None


class Gate:
    """An action that waits until the gate is opened, and counts how many wait, waited, or were cancelled."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.entered = 0
        self.passed = 0
        self.cancelled = 0

    async def __call__(self, _: Actor) -> str:
        self.entered += 1
        try:
            await self.event.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        self.passed += 1
        return "passed"

    def open(self) -> None:
        self.event.set()


class Stubborn:
    """An action that ignores cancellation until it is released."""

    def __init__(self) -> None:
        self.event = trio.Event()
        self.entered = trio.Event()

    async def __call__(self, _: Actor) -> str:
        self.entered.set()
        with trio.CancelScope(shield=True):
            await self.event.wait()
        return "released"

    def release(self) -> None:
        self.event.set()


class Closing(ScriptedActor):
    """Takes its time to stop, and notes in `notes` when it has."""

    def __init__(self, name: str, notes: list[Any], seconds: float = 0.0) -> None:
        super().__init__()
        self.name = name
        self.notes = notes
        self.seconds = seconds

    async def on_stop(self) -> None:
        await trio.sleep(self.seconds)
        self.notes.append((trio.current_time(), self.name))


class Recorder:
    """The lifecycle events of a system, as pairs of kind and path."""

    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []

    def __call__(self, event: LifecycleEvent) -> None:
        self.events.append(event)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(event.kind, event.path) for event in self.events]

    def paths(self, kind: str) -> list[str]:
        return [event.path for event in self.events if event.kind == kind]

    def kinds(self, path: str) -> list[str]:
        return [event.kind for event in self.events if event.path == path]

    def times(self, kind: str, path: str) -> list[float]:
        return [event.time for event in self.events if (event.kind, event.path) == (kind, path)]


@contextmanager
def recording(system: ActorSystem) -> Iterator[Recorder]:
    recorder = Recorder()
    with system.observe(recorder):
        yield recorder


def assert_balanced(snapshot: ActorSnapshot) -> None:
    """Nothing vanished: every message sent is somewhere, and in one place only."""
    accounted = snapshot.handled + snapshot.failed + snapshot.rejected + snapshot.dead_lettered
    assert snapshot.sent == accounted + snapshot.queued + snapshot.in_flight, snapshot


def actors_of(tree: SupervisorSnapshot) -> Iterator[ActorSnapshot]:
    for child in tree.children:
        if isinstance(child, SupervisorSnapshot):
            yield from actors_of(child)
        else:
            yield child


def leaves(error: BaseException) -> Iterator[BaseException]:
    """All exceptions in the group, and in the groups that they were caused by."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
        return
    yield error
    if error.__cause__ is not None:
        yield from leaves(error.__cause__)


async def outcome_of(ask: Awaitable[object]) -> object:
    """What `ask` returns or raises."""
    try:
        return await ask
    except Exception as error:  # noqa: BLE001 - the error is the outcome
        return error


def collect(nursery: trio.Nursery, ref: ActorRef, message: object) -> list[object]:
    """Ask in a task of its own; the list gets the one outcome when there is one."""
    outcomes: list[object] = []

    async def ask() -> None:
        outcomes.append(await outcome_of(ref.ask(message)))

    nursery.start_soon(ask)
    return outcomes


async def failure_of(system: ActorSystem, body: Callable[[], Awaitable[None]]) -> BaseExceptionGroup:
    """The group that the block of `system` ends with, around `body`."""
    with pytest.raises(BaseExceptionGroup) as caught:
        async with system:
            await body()
    return caught.value
