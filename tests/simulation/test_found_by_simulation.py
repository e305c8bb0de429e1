"""What simulations have found in the runtime, each as the plain test that shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from ultra.actors import Actor, ActorOptions, ActorState
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra.supervisor import LifecycleEvent

AT_ONCE = Backoff(initial=0.0)


class Fragile(Actor):
    options = ActorOptions(concurrency=2, max_deliveries=1)

    async def receive(self, message: object) -> object:
        if message == "crash":
            raise ValueError(message)
        return message


class SlowToStop(Actor):
    async def receive(self, message: object) -> object:
        return message

    async def on_stop(self) -> None:
        await trio.sleep(2.0)


async def test_a_message_that_comes_while_the_last_worker_ends_waits_for_the_next_incarnation() -> None:
    async with ActorSystem(intensity=RestartIntensity(100, within=1.0)) as system:
        ref = system.spawn(Fragile, backoff=AT_ONCE)
        for _ in range(20):
            ref.tell("crash")
            for number in range(4):
                ref.tell(number)
                await trio.lowlevel.checkpoint()
        assert await ref.ask("well") == "well"


async def test_a_restart_that_had_to_wait_for_siblings_to_stop_counts_from_when_it_happens(
    autojump_clock: MockClock,
) -> None:
    events: list[LifecycleEvent] = []
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        with system.observe(events.append):
            group = system.supervisor(
                "group", strategy="one_for_all", intensity=RestartIntensity(1, within=0.5)
            )
            one_by_one = ActorOptions(max_deliveries=1)
            fragile = group.spawn(Fragile, name="fragile", options=one_by_one, backoff=AT_ONCE)
            group.spawn(SlowToStop, name="slow")
            await wait_all_tasks_blocked()

            fragile.tell("crash")  # restarted only 2 s later, once the sibling has stopped
            fragile.tell("crash")  # handled at that moment: the second crash within 0.5 s of the restart
            await trio.sleep(10.0)

    assert [event.path for event in events if event.kind == "escalated"] == ["/group"]
    crashes = [event.time for event in events if event.kind == "crashed" and event.path == "/group/fragile"]
    assert crashes == [0.0, 2.0]


async def test_an_actor_whose_crash_escalated_is_not_shown_as_running_while_its_supervisor_backs_off(
    autojump_clock: MockClock,
) -> None:
    async with ActorSystem(intensity=RestartIntensity(1, within=1.0)) as system:
        slowly = Backoff(initial=5.0, jitter=0.0)
        group = system.supervisor("group", intensity=RestartIntensity(0), backoff=slowly)
        fragile = group.spawn(Fragile, name="fragile")
        fragile.tell("crash")

        await trio.sleep(1.0)  # in the middle of the backoff of the group
        assert system.tree().find("/group").state is ActorState.RESTARTING
        assert system.tree().find("/group/fragile").state is ActorState.RESTARTING

        assert await fragile.ask("well") == "well"
        assert trio.current_time() == 5.0
        assert system.tree().find("/group/fragile").state is ActorState.RUNNING
