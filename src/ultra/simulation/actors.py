"""The actors and the messages of a simulation: they do what a message says, and write down what happens."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import trio

from ultra.actors.runtime.actor import Actor
from ultra.actors.runtime.message import Failure, Message, SystemMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ultra.simulation.cast import ActorNode, MessageNode
    from ultra.simulation.lives import Lives
    from ultra.simulation.mail import Mail
    from ultra.simulation.record import Record

__all__ = [
    "Act",
    "Job",
    "Order",
    "Refusal",
    "SimulatedActor",
    "SimulatedCrash",
    "SimulatedInterrupt",
    "SlowStarter",
    "Stage",
]


class SimulatedCrash(Exception):
    """An actor of a simulation crashes, since a message or its start said so."""


class SimulatedInterrupt(KeyboardInterrupt):
    """Somebody presses Ctrl-C in the middle of a handler."""


class Refusal(Exception):
    """The error inside a `Failure`."""


class Act(IntEnum):
    """What a handler does when its time is over."""

    REPLY = 0
    REFUSE = 1
    CRASH = 2
    FINISH = 3
    IGNORE_CANCELLATION = 4
    ASK_ANOTHER = 5
    INTERRUPT = 6


class Job(Message[int], frozen=True):
    """Take `seconds`, then do what `act` says; the reply is `id`."""

    id: int
    act: int = 0
    seconds: float = 0.0


class Order(SystemMessage[int], frozen=True):
    """A `Job` in the system lane."""

    id: int
    act: int = 0
    seconds: float = 0.0


class Stage:
    """What the actors of one simulation share."""

    def __init__(self, record: Record, mail: Mail, lives: Lives) -> None:
        self.record = record
        self.mail = mail
        self.lives = lives
        self.interrupted = False
        self.ask_another: Callable[[ActorNode], Awaitable[None]] | None = None


class SimulatedActor(Actor):
    """One incarnation of an actor; making it is its beginning."""

    def __init__(self, node: ActorNode, stage: Stage) -> None:
        self._node = node
        self._stage = stage
        stage.lives.begins(node)

    async def receive(self, message: object) -> object:
        """Handle a `Job` or an `Order`."""
        assert isinstance(message, (Job, Order))
        node, stage = self._node, self._stage
        entry = stage.mail.messages[message.id]
        stage.mail.taken(entry)
        node.running += 1
        stage.record.checks[3] += 1
        if node.running > node.options.concurrency:
            stage.record.violate(3, f"{node.path} runs {node.running} handlers at once", entry.id)
        try:
            if message.seconds:
                await trio.sleep(message.seconds)
            reply = entry.id if not message.act else await self._act(message, entry)
        except trio.Cancelled:
            stage.record.checks[11] += 1
            stage.record.add("cancelled", node.path, entry.id)
            raise
        finally:
            stage.lives.handler_ended(node)
        stage.mail.finished(entry)
        return reply

    async def on_stop(self) -> None:
        """Note the end."""
        self._stage.lives.ends(self._node)

    async def _act(self, message: Job | Order, entry: MessageNode) -> object:
        node, stage = self._node, self._stage
        match message.act:
            case Act.REFUSE:
                return Failure(Refusal(f"refused {entry.id}"))
            case Act.CRASH:
                stage.lives.crashes(node, f"message {entry.id}")
                raise SimulatedCrash(f"message {entry.id}")
            case Act.FINISH:
                self.finish()
            case Act.IGNORE_CANCELLATION:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.5)
            case Act.ASK_ANOTHER if stage.ask_another is not None:
                await stage.ask_another(node)
            case Act.INTERRUPT:
                stage.record.add("interrupt", node.path, entry.id)
                stage.interrupted = True
                node.may_start = False
                raise SimulatedInterrupt
            case _:
                pass
        return entry.id


class SlowStarter(SimulatedActor):
    """An actor that takes its time to start and to stop, and sometimes fails at it."""

    def __init__(
        self, node: ActorNode, stage: Stage, start: Callable[[], float], stop: Callable[[], float]
    ) -> None:
        super().__init__(node, stage)
        self._start = start
        self._stop = stop

    async def on_start(self) -> None:
        """Wait; a time below 0 is a failure after that time."""
        self._node.alive = True
        started = False
        try:
            await self._pass(self._start(), "at its start")
            started = True
        finally:
            if not started:
                self._stage.lives.ends(self._node)
        self._node.changed_at = trio.current_time()

    async def on_stop(self) -> None:
        """Wait; a time below 0 is a failure after that time."""
        try:
            await self._pass(self._stop(), "at its stop")
        finally:
            self._stage.lives.ends(self._node)

    async def _pass(self, seconds: float, when: str) -> None:
        await trio.sleep(abs(seconds))
        if seconds < 0:
            self._stage.lives.crashes(self._node, when)
            raise SimulatedCrash(when)
