"""Actors for trio: an inbox, a handler, and a reference to send messages to.

These names know nothing of language models; with `ultra.supervisor` they are a library of their own:

    class Ping(Message[int]):
        n: int

    class Echo(Actor):
        async def receive(self, message):
            return message.n

    async with ActorSystem() as system:
        echo = system.spawn(Echo, name="echo")
        assert await echo.ask(Ping(1)) == 1
"""

from ultra.actors.runtime.actor import Actor, ActorOptions, ActorRef
from ultra.actors.runtime.ask_group import AskGroup, AskResult
from ultra.actors.runtime.dead_letters import DeadLetter, DeadLetters
from ultra.actors.runtime.inbox import Overflow
from ultra.actors.runtime.message import Failure, Message, SystemMessage
from ultra.actors.runtime.status import ActorSnapshot, ActorState, Terminated
from ultra.errors import (
    ActorCrashed,
    ActorDown,
    ActorError,
    ActorStopped,
    ActorUnresponsive,
    AskTimeout,
    BadCall,
    InboxFull,
    StrayCancelled,
    UsageError,
)
from ultra.errors.values import ErrorValue

__all__ = [
    "Actor",
    "ActorCrashed",
    "ActorDown",
    "ActorError",
    "ActorOptions",
    "ActorRef",
    "ActorSnapshot",
    "ActorState",
    "ActorStopped",
    "ActorUnresponsive",
    "AskGroup",
    "AskResult",
    "AskTimeout",
    "BadCall",
    "DeadLetter",
    "DeadLetters",
    "ErrorValue",
    "Failure",
    "InboxFull",
    "Message",
    "Overflow",
    "StrayCancelled",
    "SystemMessage",
    "Terminated",
    "UsageError",
]
