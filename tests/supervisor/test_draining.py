"""Stops that let actors handle what waits for them first."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import (
    AT_ONCE,
    Closing,
    Gate,
    ScriptedActor,
    assert_balanced,
    boom,
    collect,
    recording,
)
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorStopped
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


class SlowStart(ScriptedActor):
    """Takes two seconds to start; notes its messages and its end in `log`."""

    def __init__(self, log: list[Any]) -> None:
        super().__init__(log)
        self.notes = log

    async def on_start(self) -> None:
        await trio.sleep(2)

    async def on_stop(self) -> None:
        self.notes.append("stopped")


async def test_with_drain_what_waits_is_handled_first() -> None:
    async with ActorSystem() as system, trio.open_nursery() as nursery:
        gate = Gate()
        ref = system.spawn(ScriptedActor, options=ActorOptions(capacity=3))
        outcomes = []
        for message in (gate, "a", "b", "no room for this one"):
            outcomes.append(collect(nursery, ref, message))
            await wait_all_tasks_blocked()
        ref.request_stop(drain=True)
        late = collect(nursery, ref, "too late")
        await wait_all_tasks_blocked()
        gate.open()
        assert (await ref.watch()).state is ActorState.STOPPED
        await wait_all_tasks_blocked()
        assert [outcome[0] for outcome in outcomes[:3]] == ["passed", "a", "b"]
        assert [type(outcome[0]) for outcome in (outcomes[3], late)] == [ActorStopped] * 2
        assert_balanced(ref.snapshot())


async def test_a_wide_actor_is_drained_by_all_its_workers() -> None:
    async with ActorSystem() as system:
        handled: list[object] = []
        ref = system.spawn(ScriptedActor, handled, options=ActorOptions(concurrency=4))
        for number in range(100):
            ref.tell(number)
        await ref.stop(drain=True)
        assert handled == list(range(100))


async def test_draining_ends_when_the_grace_period_is_over(autojump_clock: MockClock) -> None:
    async def take_a_second(_: Actor) -> None:
        await trio.sleep(1)

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        for _ in range(10):
            ref.tell(take_a_second)
        await ref.stop(drain=True, grace=3.5)
        assert trio.current_time() == 3.5
        snapshot = ref.snapshot()
        assert (snapshot.handled, snapshot.dead_lettered) == (3, 7)
        assert_balanced(snapshot)


async def test_a_crash_while_draining_gives_the_rest_back() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, backoff=AT_ONCE)
        for message in ("a", boom, "b", "c"):
            ref.tell(message)
        ended = await ref.stop(drain=True)
        assert str(ended.error) == "boom"
        assert [(letter.message_type, letter.reason) for letter in system.dead_letters] == [
            ("function", "crashed"),
            ("str", "stopped"),
            ("str", "stopped"),
        ]
        assert_balanced(ref.snapshot())


async def test_a_second_stop_without_drain_ends_the_draining() -> None:
    async with ActorSystem() as system:
        gate = Gate()
        ref = system.spawn(ScriptedActor)
        ref.tell(gate)
        ref.tell("waits")
        await wait_all_tasks_blocked()
        ref.request_stop(drain=True)
        ref.request_stop(drain=False)
        ref.request_stop(drain=True)
        gate.open()
        await ref.watch()
        assert [letter.message_type for letter in system.dead_letters] == ["str"]


async def test_leaving_the_block_lets_a_stop_that_drains_do_so() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log)
        for number in range(100):
            ref.tell(number)
        system.request_stop(drain=True)
    assert log == list(range(100))


@pytest.mark.parametrize("what", ["actor", "supervisor", "system"])
async def test_who_has_not_started_yet_is_started_to_be_drained(what: str, autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        group = system.supervisor("outer").supervisor("inner")
        await wait_all_tasks_blocked()
        ref = group.spawn(SlowStart, log)
        for number in range(3):
            ref.tell(number)
        target: Any = {"actor": ref, "supervisor": group, "system": system}[what]
        await target.stop(drain=True)
        assert trio.current_time() == 2.0
    assert log == [0, 1, 2, "stopped"]
    assert_balanced(ref.snapshot())


async def test_without_messages_nobody_is_started_only_to_be_stopped() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        await system.spawn(SlowStart, log).stop(drain=True)
        assert log == []


async def test_the_grace_period_bounds_the_start_of_who_is_to_be_drained(autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        ref = system.spawn(SlowStart, log)
        ref.tell("x")
        await ref.stop(drain=True, grace=1.5)
        assert trio.current_time() == 1.5
        assert [letter.reason for letter in system.dead_letters] == ["stopped"]
    assert log == []


@pytest.mark.parametrize("where", ["factory", "on_start"])
async def test_who_cannot_start_gives_its_messages_back_instead(where: str) -> None:
    class Failing(ScriptedActor):
        def __init__(self) -> None:
            super().__init__()
            if where == "factory":
                raise OSError("never")

        async def on_start(self) -> None:
            raise OSError("never")

    async with ActorSystem() as system:
        with recording(system) as recorder:
            ref = system.spawn(Failing, name="x")
            ref.tell("x")
            assert str((await ref.stop(drain=True)).error) == "never"
            assert recorder.kinds("/x") == ["crashed", "stopped"]
        other = system.spawn(Failing)
        other.tell("y")
        await system.stop(drain=True)
        assert [letter.reason for letter in system.dead_letters] == ["stopped"] * 2
        assert_balanced(other.snapshot())


async def test_who_is_drained_before_its_turn_lets_nobody_start_early(
    autojump_clock: MockClock,
) -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        system.spawn(SlowStart, log)
        early = system.spawn(Closing, "early", log)
        await trio.sleep(1)
        last = system.spawn(Closing, "last", log)
        early.tell("x")
        await early.stop(drain=True)
        assert log == [(1.0, "early")]
        assert await last.ask("x") == "x"
        assert trio.current_time() == 2.0


async def test_while_it_is_drained_an_actor_can_use_those_added_before_it_though_they_have_not_started(
    autojump_clock: MockClock,
) -> None:
    async def greet(_: Actor) -> None:
        replies.append(await server.ask("hello"))

    replies: list[object] = []
    async with ActorSystem() as system:
        server = system.spawn(SlowStart, [])
        system.spawn(ScriptedActor).tell(greet)
        await system.stop(drain=True)
        assert replies == ["hello"]


async def test_a_second_stop_without_drain_starts_nobody() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        refs = [system.spawn(SlowStart, log) for _ in range(2)]
        for ref in refs:
            ref.tell("x")
        refs[0].request_stop(drain=True)
        refs[0].request_stop()
        refs[1].request_stop(drain=True)
        system.request_stop()
    assert log == []
    assert [letter.reason for letter in system.dead_letters] == ["stopped"] * 2


async def test_a_backoff_is_not_waited_for_to_drain_what_waits(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ONCE, backoff=Backoff(initial=3.0))
        ref.tell(boom)
        ref.tell("waits")
        await trio.sleep(1)
        await ref.stop(drain=True)
        assert trio.current_time() == 1.0
        assert [letter.reason for letter in system.dead_letters] == ["crashed", "stopped"]


async def test_many_who_have_not_started_are_drained_all() -> None:
    log: list[Any] = []
    async with ActorSystem() as system:
        for number in range(300):
            system.spawn(ScriptedActor, log).tell(number)
        await system.stop(drain=True)
    assert sorted(log) == list(range(300))


async def test_a_drain_in_the_middle_of_a_restart_of_the_group_begins_no_new_incarnation() -> None:
    """A regression: a member was started while its old incarnation still had to end."""

    class Single(ScriptedActor):
        alive = 0

        async def on_start(self) -> None:
            Single.alive += 1
            assert Single.alive == 1

        async def on_stop(self) -> None:
            Single.alive -= 1

    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        member = group.spawn(Single)
        gate = Gate()
        group.spawn(ScriptedActor).tell(gate)  # stops first, and takes its time
        fragile = group.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        await wait_all_tasks_blocked()
        fragile.tell(boom)
        await wait_all_tasks_blocked()
        fragile.tell("waits")
        with recording(system) as recorder:
            group.request_stop(drain=True)
            gate.open()
            await group.stop(drain=True)
            assert recorder.paths("started") == []
        assert [letter.reason for letter in system.dead_letters] == ["crashed", "stopped"]
        assert (member.snapshot().last_error, Single.alive) == (None, 0)


async def test_a_supervisor_that_backs_off_starts_nobody_to_drain(autojump_clock: MockClock) -> None:
    """A regression: the stop waited for the end of the supervisor's backoff."""
    async with ActorSystem() as system:
        slow = Backoff(initial=100.0, maximum=100.0)
        group = system.supervisor("group", intensity=RestartIntensity(0), backoff=slow)
        group.spawn(ScriptedActor, options=ONCE).tell(boom)
        await trio.sleep(1)
        late = group.spawn(ScriptedActor)
        late.tell("waits")
        await late.stop(drain=True)
        assert trio.current_time() == 1.0
        assert [letter.reason for letter in system.dead_letters] == ["crashed", "stopped"]
