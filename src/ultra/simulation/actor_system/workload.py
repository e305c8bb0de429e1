"""The workload of an actor system: senders that tell, send and ask, an operator, and watchers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

import trio

from ultra.errors import ActorStopped, InboxFull, UltraError
from ultra.simulation.actor_system.actors import Action, Job, Refusal, SystemJob
from ultra.simulation.actor_system.lifecycle_ledger import LONGEST_RESTART, longest_stop
from ultra.simulation.actor_system.nodes import ActorNode, SupervisorNode
from ultra.simulation.actor_system.setup import FAULTS_UNTIL, WORK_UNTIL
from ultra.simulation.record import TIME_TOLERANCE

if TYPE_CHECKING:
    from ultra.simulation.actor_system.lifecycle_ledger import LifecycleLedger
    from ultra.simulation.actor_system.message_ledger import MessageLedger
    from ultra.simulation.record import Record
    from ultra.supervisor.supervisor import Supervisor

__all__ = ["NO_SENDER", "Workload"]

Draw = Callable[[], float]

PAUSES = (0.0, 0.0, 0.25, 0.25, 0.5, 1.0)
TIMEOUTS = (None, None, None, 0.25, 0.5, 2.0, 5.0)
NO_SENDER = -1
"""The sender of messages whose order is not checked, because several tasks send them."""


class Workload:
    """All that is done to the actors of one simulation from outside."""

    def __init__(
        self, seed: int, record: Record, messages: MessageLedger, lifecycle: LifecycleLedger
    ) -> None:
        self._seed = seed
        self._record = record
        self._messages = messages
        self._lifecycle = lifecycle
        self._between_actors = Random(f"{seed}/between")
        self.actors: list[ActorNode] = []
        self.supervisors: dict[str, Supervisor] = {}

    # --- senders -------------------------------------------------------------------------------------

    async def send_until_work_ends(self, sender: int) -> None:
        """Be the sender of this number: send messages of all kinds until `WORK_UNTIL`."""
        random = Random(f"{self._seed}/sender/{sender}").random
        await trio.sleep(random() * 0.5)
        while trio.current_time() < WORK_UNTIL and not self._lifecycle.closing:
            actor = self._choose_actor(random)
            chance = random()
            if chance < 0.36:
                self._tell_many(actor, sender, random)
            elif chance < 0.48:
                await self._send_in_time(actor, sender, random)
            elif chance < 0.94:
                timeout = TIMEOUTS[int(random() * len(TIMEOUTS))]
                seconds = 0.25 * int(random() * 4) if random() < 0.4 else 0.0
                system = random() < 0.1
                await self.ask(actor, sender, self._action(random()), seconds, timeout, system=system)
            else:
                with trio.move_on_after(0.25 * int(random() * 4)):
                    await self.ask(actor, sender, self._action(random()), 0.25, None)
            await self._pause(sender, PAUSES[int(random() * len(PAUSES))])

    async def _pause(self, sender: int, seconds: float) -> None:
        """Sleep. Nothing could disturb that but a late reply that wakes its former asker."""
        undisturbed = True
        try:
            await trio.sleep(seconds)
        except RuntimeError:  # trio complains that a sleeping task was rescheduled
            undisturbed = False
        self._record.check(1, undisturbed, f"sender {sender} was woken by a late reply", sender)

    def _choose_actor(self, random: Draw) -> ActorNode:
        """Choose any actor, rather one that lives."""
        actor = self.actors[int(random() * len(self.actors))]
        if actor.ended or actor.down:
            actor = self.actors[int(random() * len(self.actors))]
        return actor

    def _tell_many(self, actor: ActorNode, sender: int, random: Draw) -> None:
        for _ in range(1 + int(random() * 170)):
            accepted = self.tell(actor, sender, self._action(random()), 0.25 if random() < 0.01 else 0.0)
            if not accepted and random() < 0.2:
                return

    async def _send_in_time(self, actor: ActorNode, sender: int, random: Draw) -> None:
        with trio.move_on_after(0.25 + random() * 2):
            for _ in range(1 + int(random() * 6)):
                await self.send(actor, sender, self._action(random()), 0.25 if random() < 0.2 else 0.0)

    def _action(self, chance: float) -> Action:
        if chance > 0.1 or trio.current_time() > FAULTS_UNTIL:
            return Action.REPLY
        if chance < 0.02:
            return Action.CRASH
        if chance < 0.05:
            return Action.REFUSE
        if chance < 0.09:
            return Action.ASK_ANOTHER
        return Action.FINISH if chance < 0.095 else Action.IGNORE_CANCELLATION

    def tell(self, actor: ActorNode, sender: int, action: Action, seconds: float) -> bool:
        """Tell, and note what came of it. Return whether the message was accepted."""
        entry = self._messages.sending(actor, sender, system=False)
        try:
            actor.ref.tell(Job(entry.id, action, seconds))
        except (InboxFull, ActorStopped) as error:
            self._messages.rejected(entry, error)
            return False
        self._messages.accepted(entry)
        return True

    async def send(self, actor: ActorNode, sender: int, action: Action, seconds: float) -> None:
        """Send, and note what came of it."""
        entry = self._messages.sending(actor, sender, system=False)
        self._messages.may_wait_for_room(entry)
        try:
            await actor.ref.send(Job(entry.id, action, seconds))
        except (InboxFull, ActorStopped) as error:
            self._messages.rejected(entry, error)
        except trio.Cancelled:
            self._messages.send_cancelled(entry)
            raise
        else:
            self._messages.accepted(entry)
        finally:
            del self._messages.open_sends[entry.id]

    async def ask(
        self,
        actor: ActorNode,
        sender: int,
        action: Action,
        seconds: float,
        timeout: float | None,
        *,
        system: bool = False,
    ) -> bool:
        """Ask, and note what came of it. Return whether there was a reply."""
        entry = self._messages.sending(actor, sender, system=system)
        self._messages.asked(entry, timeout)
        message = (SystemJob if system else Job)(entry.id, action, seconds)
        try:
            reply = await actor.ref.ask(message, timeout)
        except (UltraError, Refusal) as error:
            self._messages.ask_failed(entry, error, timeout)
            return False
        except trio.Cancelled:
            self._messages.ask_cancelled(entry)
            raise
        self._messages.replied(entry, reply, timeout)
        return True

    async def ask_another(self, actor: ActorNode) -> None:
        """Ask another actor, on behalf of `actor`, which handles a message meanwhile."""
        random = self._between_actors.random
        others = self.actors
        other = others[int(random() * len(others))]
        if other is not actor:
            await self.ask(other, NO_SENDER, Action.REPLY, 0.25 if random() < 0.3 else 0.0, 1.0)

    # --- the operator --------------------------------------------------------------------------------

    async def operate(self) -> None:
        """Be the operator: stop an actor or a supervisor now and then, and revive what is down."""
        random = Random(f"{self._seed}/operator")
        while trio.current_time() < WORK_UNTIL and not self._lifecycle.closing:
            await trio.sleep(0.25 * random.randint(2, 16))
            chance = random.random()
            if chance < 0.6:
                self._revive_all()
            elif chance < 0.9:
                await self.stop_actor(random.choice(self.actors), random)
            elif len(self.supervisors) > 1:
                await self._stop_supervisor(random)

    def _revive_all(self) -> None:
        for node in tuple(self._lifecycle.nodes.values()):
            if node.is_down_for_now and node.parent is not None and not self._lifecycle.is_gone(node.parent):
                with suppress(ActorStopped):  # it is about to end
                    self.supervisors[node.parent.path].revive(node.name)

    async def stop_actor(self, actor: ActorNode, random: Random) -> None:
        """Stop one actor for good."""
        drain, grace = random.random() < 0.5, random.choice((None, None, 0.0, 0.5))
        actor.stop_asked = True
        self._record.add("stop", actor.path, drain)
        began = trio.current_time()
        terminated = await actor.ref.stop(drain=drain, grace=grace)
        took = trio.current_time() - began
        self._record.check(
            9,
            took <= longest_stop(actor, grace) + TIME_TOLERANCE and terminated == await actor.ref.stop(),
            f"stopping {actor.path} took {took:.3f} s",
            actor.path,
        )

    async def _stop_supervisor(self, random: Random) -> None:
        path = random.choice([path for path in self.supervisors if path])
        node = self._lifecycle.nodes[path]
        assert isinstance(node, SupervisorNode)
        actors = node.actors()
        for actor in actors:
            actor.stop_asked = True
        bound = sum(map(longest_stop, actors))
        self._record.add("stop", path)
        began = trio.current_time()
        await self.supervisors[path].stop(drain=random.random() < 0.5)
        took = trio.current_time() - began
        self._record.check(9, took <= bound + TIME_TOLERANCE, f"stopping {path} took {took:.3f} s", path)

    # --- watchers ------------------------------------------------------------------------------------

    async def watch(self, actor: ActorNode) -> None:
        """Wait for the end of an actor; if it is revived, wait for the next end."""
        while True:
            terminated = await actor.ref.watch()
            self._record.add("watched", actor.path, terminated.state.value)
            self._record.check(
                9,
                actor.ended or actor.down or actor.unresponsive,
                f"the watcher of {actor.path} was told of an end too early",
                actor.path,
            )
            if not actor.is_down_for_now:
                return
            while actor.is_down_for_now:
                await trio.sleep(0.5)
                if self._lifecycle.closing:
                    return

    # --- at rest -------------------------------------------------------------------------------------

    async def probe(self, actor: ActorNode) -> None:
        """Check, after a long quiet time, that an actor which is neither down nor ended answers."""
        since = trio.current_time() - LONGEST_RESTART
        answered = await self.ask(actor, NO_SENDER, Action.REPLY, 0.0, 30.0)
        excused = self._lifecycle.is_gone(actor) or self._lifecycle.crashed_since(actor, since)
        self._record.check(10, answered or excused, f"{actor.path} does not answer any more", actor.path)
