"""The actors and the messages of a simulation: they do what a message says, and tell the ledgers."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from ultra.actors.runtime.actor import Actor
from ultra.actors.runtime.message import Failure, Message, SystemMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.simulation.actor_system.lifecycle_ledger import LifecycleLedger
    from ultra.simulation.actor_system.message_ledger import MessageEntry, MessageLedger
    from ultra.simulation.actor_system.nodes import ActorNode
    from ultra.simulation.record import Record

__all__ = [
    "Action",
    "ActorContext",
    "Job",
    "Refusal",
    "SimulatedActor",
    "SimulatedCrash",
    "SimulatedInterrupt",
    "SlowActor",
    "SystemJob",
]


class SimulatedCrash(Exception):
    """An actor of a simulation crashes, because a message or its start said so."""


class SimulatedInterrupt(KeyboardInterrupt):
    """Ctrl-C is pressed in the middle of a handler."""


class Refusal(Exception):
    """The error inside a `Failure`."""


class Action(IntEnum):
    """What a handler does at its end."""

    REPLY = 0
    REFUSE = 1
    CRASH = 2
    FINISH = 3
    IGNORE_CANCELLATION = 4
    ASK_ANOTHER = 5
    INTERRUPT = 6


class Job(Message[int], frozen=True):
    """Take `seconds`, then do `action`; the reply is `id`."""

    id: int
    action: int = 0
    seconds: float = 0.0


class SystemJob(SystemMessage[int], frozen=True):
    """A `Job` in the system lane."""

    id: int
    action: int = 0
    seconds: float = 0.0


class ActorContext:
    """What the actors of one simulation share: the ledgers, and a function that asks another actor."""

    def __init__(self, record: Record, messages: MessageLedger, lifecycle: LifecycleLedger) -> None:
        self.record = record
        self.messages = messages
        self.lifecycle = lifecycle
        self.ask_another: Callable[[ActorNode], Awaitable[None]] | None = None


class SimulatedActor(Actor):
    """One incarnation of an actor. Its construction is the beginning of its life."""

    def __init__(self, node: ActorNode, context: ActorContext) -> None:
        self._node = node
        self._context = context
        context.lifecycle.begins(node)
        node.life = "running"

    async def receive(self, message: object) -> object:
        """Handle a `Job` or a `SystemJob`."""
        assert isinstance(message, (Job, SystemJob))
        node, context = self._node, self._context
        entry = context.messages.messages[message.id]
        context.messages.taken(entry)
        node.running += 1
        context.record.checks[3] += 1
        if node.running > node.options.concurrency:
            context.record.violate(3, f"{node.path} runs {node.running} handlers at once", entry.id)
        try:
            if message.seconds:
                await trio.sleep(message.seconds)
            reply = entry.id if not message.action else await self._act(message, entry)
        except trio.Cancelled:
            context.record.checks[11] += 1
            context.record.add("cancelled", node.path, entry.id)
            raise
        finally:
            context.lifecycle.handler_ended(node)
        context.messages.handled(entry)
        return reply

    async def on_stop(self) -> None:
        """Note the end."""
        self._context.lifecycle.ends(self._node)

    async def _act(self, message: Job | SystemJob, entry: MessageEntry) -> object:
        node, context = self._node, self._context
        match message.action:
            case Action.REFUSE:
                return Failure(Refusal(f"refused {entry.id}"))
            case Action.CRASH:
                entry.crashing = True
                context.lifecycle.crashes(node, f"message {entry.id}")
                raise SimulatedCrash(f"message {entry.id}")
            case Action.FINISH:
                self.finish()
            case Action.IGNORE_CANCELLATION:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
            case Action.ASK_ANOTHER if context.ask_another is not None:
                await context.ask_another(node)
            case Action.INTERRUPT:
                context.record.add("interrupt", node.path, entry.id)
                context.lifecycle.interrupted = True
                node.may_start = False
                raise SimulatedInterrupt
            case _:
                pass
        return entry.id


class SlowActor(SimulatedActor):
    """An actor that takes its time to start and to stop, and sometimes fails at it.

    `start` and `stop` draw the seconds of each; below 0 for a failure after that time.
    """

    def __init__(
        self, node: ActorNode, context: ActorContext, start: Callable[[], float], stop: Callable[[], float]
    ) -> None:
        super().__init__(node, context)
        node.life = "begun"
        self._start = start
        self._stop = stop

    async def on_start(self) -> None:
        """Wait, and fail if that was drawn."""
        self._node.alive = True
        self._node.life = "starting"
        started = False
        try:
            await self._wait(self._start(), "at its start")
            started = True
        finally:
            if not started:
                self._context.lifecycle.ends(self._node)
        self._node.life = "running"
        self._node.changed_at = trio.current_time()

    async def on_stop(self) -> None:
        """Wait, and fail if that was drawn."""
        try:
            await self._wait(self._stop(), "at its stop")
        finally:
            self._context.lifecycle.ends(self._node)

    async def _wait(self, seconds: float, when: str) -> None:
        await trio.sleep(abs(seconds))
        if seconds < 0:
            self._context.lifecycle.crashes(self._node, when)
            raise SimulatedCrash(when)
