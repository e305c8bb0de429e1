"""Actors that ignore cancellation are reported, and never waited for without bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    AT_ONCE,
    Closing,
    ScriptedActor,
    Stubborn,
    assert_balanced,
    boom,
    collect,
    recording,
)
from ultra.actors import ActorOptions, ActorState
from ultra.errors import ActorStopped, ActorUnresponsive
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from ultra.actors import Actor, ActorRef
    from ultra.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


ONE_SECOND = ActorOptions(grace=1.0, stop_timeout=1.0)


async def stubborn_actor(supervisor: Supervisor | ActorSystem, action: Stubborn, **others: Any) -> ActorRef:
    settings: dict[str, Any] = {"options": ONE_SECOND, "backoff": AT_ONCE, **others}
    ref = supervisor.spawn(ScriptedActor, **settings)
    ref.tell(action)
    await action.entered.wait()
    return ref


async def test_an_actor_that_ignores_cancellation_is_reported_and_waited_for_no_longer(
    autojump_clock: MockClock,
) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, name="x", options=ONE_SECOND)
            in_hand = collect(nursery, ref, stubborn)
            await stubborn.entered.wait()
            ended = await ref.stop()
            assert trio.current_time() == 3.0
            assert (ended.state, type(ended.error)) == (ActorState.STOPPED, ActorUnresponsive)
            await wait_all_tasks_blocked()
            assert [type(outcome) for outcome in in_hand] == [ActorStopped]
            assert recorder.kinds("/x")[1:] == ["unresponsive"]
            assert ref.snapshot().in_flight == 1
            assert_balanced(ref.snapshot())

            fresh = system.spawn(ScriptedActor, name="x")  # the name is free
            stubborn.release()
            await wait_all_tasks_blocked()
            assert sorted(recorder.kinds("/x")) == ["started", "started", "stopped", "unresponsive"]
            assert (ref.snapshot().handled, ref.snapshot().in_flight) == (1, 0)
            assert await fresh.ask("hello") == "hello"


async def test_a_second_stop_that_gives_more_time_does_not_put_off_the_report(
    autojump_clock: MockClock,
) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system:
        ref = await stubborn_actor(system, stubborn)
        ref.request_stop()
        ref.request_stop(grace=100.0)
        ended = await ref.watch()
        assert trio.current_time() == 3.0
        assert isinstance(ended.error, ActorUnresponsive)
        stubborn.release()


async def test_the_others_stop_although_one_ignores_cancellation(autojump_clock: MockClock) -> None:
    stubborn = Stubborn()
    log: list[Any] = []
    async with ActorSystem() as system:
        await system.spawn(Closing, "first", log).ask("x")
        group = system.supervisor("group")
        await stubborn_actor(group, stubborn)
        await system.spawn(Closing, "last", log).ask("x")
        await system.stop()
        assert log == [(0.0, "last"), (4.0, "first")]
        assert system.tree().children == ()
        stubborn.release()


async def test_a_stop_of_what_was_given_up_before_ends_at_once(autojump_clock: MockClock) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        ref = await stubborn_actor(group, stubborn)
        group.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE).tell(boom)
        await trio.sleep(10)
        ended = await ref.stop()
        assert trio.current_time() == 10
        assert isinstance(ended.error, ActorUnresponsive)
        stubborn.release()


async def test_a_group_is_restarted_without_the_member_that_ignores_cancellation_until_that_ends(
    autojump_clock: MockClock,
) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        ref = await stubborn_actor(group, stubborn)
        other = group.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        other.tell(boom)
        assert await other.ask("back") == "back"
        assert trio.current_time() == 3
        assert ref.snapshot().state is ActorState.STOPPING
        stubborn.release()
        assert await ref.ask("back, too") == "back, too"


async def test_a_member_that_is_given_up_before_its_turn_to_stop_is_not_stopped_again(
    autojump_clock: MockClock,
) -> None:
    class StubbornStop(ScriptedActor):
        async def on_stop(self) -> None:
            await stubborn(self)

    async def leave(actor: Actor) -> None:
        actor.finish()

    stubborn, slow = Stubborn(), Stubborn()
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        other = group.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        leaving = group.spawn(StubbornStop, restart="temporary", options=ONE_SECOND)
        last = await stubborn_actor(group, slow, options=ActorOptions(grace=20.0))
        leaving.tell(leave)
        await stubborn.entered.wait()
        other.tell(boom)
        ended = await leaving.watch()  # while `last` has its grace, and would stop before it
        assert isinstance(ended.error, ActorUnresponsive)
        assert trio.current_time() < 20
        slow.release()
        assert await last.ask("back") == "back"
        stubborn.release()
        await wait_all_tasks_blocked()
        assert await other.ask("back") == "back"
        assert [child.path for child in group.snapshot().children] == [other.path, last.path]


async def test_a_start_that_ignores_cancellation_holds_nobody_up_for_ever(autojump_clock: MockClock) -> None:
    class StubbornStart(ScriptedActor):
        options = ActorOptions(start_timeout=2.0)

        async def on_start(self) -> None:
            await stubborn(self)

    stubborn = Stubborn()
    async with ActorSystem() as system:
        with recording(system) as recorder:
            slow = system.spawn(StubbornStart, name="slow", backoff=AT_ONCE)
            other = system.spawn(ScriptedActor, name="other")
            assert await other.ask("at last") == "at last"
            assert trio.current_time() == 3.0
            assert recorder.kinds("/slow") == ["unresponsive"]
            stubborn.release()
            assert await slow.ask("started again") == "started again"
            assert recorder.kinds("/slow")[1:3] == ["crashed", "restarting"]


async def test_a_handler_that_ignores_the_crash_beside_it_is_reported(autojump_clock: MockClock) -> None:
    stubborn = Stubborn()
    async with ActorSystem() as system:
        with recording(system) as recorder:
            options = ActorOptions(concurrency=2, max_deliveries=1, stop_timeout=1.0)
            ref = await stubborn_actor(system, stubborn, name="x", options=options)
            ref.tell(boom)
            await trio.sleep(2.5)
            assert recorder.paths("unresponsive") == ["/x"]
            stubborn.release()
            assert await ref.ask("back") == "back"
            assert recorder.kinds("/x")[2:4] == ["crashed", "restarting"]


async def test_an_on_stop_that_ignores_cancellation_after_a_crash_is_reported(
    autojump_clock: MockClock,
) -> None:
    class StubbornStop(ScriptedActor):
        options = ActorOptions(max_deliveries=1, stop_timeout=2.0)

        async def on_stop(self) -> None:
            await stubborn(self)

    stubborn = Stubborn()
    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(StubbornStop, name="x", backoff=AT_ONCE)
            ref.tell(boom)
            await trio.sleep(3.5)
            assert recorder.times("unresponsive", "/x") == [3.0]
            stubborn.release()
            assert await ref.ask("back") == "back"


async def test_the_block_is_left_only_when_the_last_task_has_ended(autojump_clock: MockClock) -> None:
    stubborn = Stubborn()

    async def release_later() -> None:
        await trio.sleep(60)
        stubborn.release()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release_later)
        async with ActorSystem() as system:
            ref = await stubborn_actor(system, stubborn)
        assert trio.current_time() == 60
    assert isinstance((await ref.watch()).error, ActorUnresponsive)
