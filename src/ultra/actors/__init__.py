"""Actors for trio: an inbox, a handler, and a reference to send messages to.

This package knows nothing of language models; with `ultra.supervisor` it is a library of its own:

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
from ultra.actors.runtime.dead_letters import DeadLetter, DeadLetters
from ultra.actors.runtime.inbox import Overflow
from ultra.actors.runtime.message import Failure, Message, SystemMessage
from ultra.actors.runtime.status import ActorSnapshot, ActorState, Terminated

__all__ = [
    "Actor",
    "ActorOptions",
    "ActorRef",
    "ActorSnapshot",
    "ActorState",
    "DeadLetter",
    "DeadLetters",
    "Failure",
    "Message",
    "Overflow",
    "SystemMessage",
    "Terminated",
]
