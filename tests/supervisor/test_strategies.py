"""Which children are restarted together: the strategies, and the restart types within them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, Gate, ScriptedActor, boom, collect, recording
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorCrashed, ActorStopped
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity, RestartStrategy

if TYPE_CHECKING:
    from ultra.actors import ActorRef
    from ultra.supervisor import Supervisor

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


class Member(ScriptedActor):
    """Notes its start and its stop by name."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name = name
        self.notes = log

    async def on_start(self) -> None:
        self.notes.append(f"+{self.name}")

    async def on_stop(self) -> None:
        await trio.lowlevel.checkpoint()
        self.notes.append(f"-{self.name}")


def members(supervisor: Supervisor, log: list[str], names: str, **others: Any) -> list[ActorRef]:
    settings = {"options": ONCE, "backoff": AT_ONCE, **others}
    return [supervisor.spawn(Member, name, log, name=name, **settings) for name in names]


@pytest.mark.parametrize(
    ("strategy", "crashed", "expected"),
    [
        ("one_for_one", "b", ["-b", "+b"]),
        ("one_for_all", "b", ["-b", "-d", "-c", "-a", "+a", "+b", "+c", "+d"]),
        ("rest_for_one", "b", ["-b", "-d", "-c", "+b", "+c", "+d"]),
        ("rest_for_one", "a", ["-a", "-d", "-c", "-b", "+a", "+b", "+c", "+d"]),
        ("rest_for_one", "d", ["-d", "+d"]),
        ("one_for_all", "d", ["-d", "-c", "-b", "-a", "+a", "+b", "+c", "+d"]),
    ],
)
async def test_the_group_is_stopped_in_reverse_and_started_in_order(
    strategy: RestartStrategy, crashed: str, expected: list[str]
) -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy=strategy)
        refs = members(group, log, "abcd")
        await wait_all_tasks_blocked()
        log.clear()
        refs["abcd".index(crashed)].tell(boom)
        await wait_all_tasks_blocked()
        assert log == expected
        assert [await ref.ask(number) for number, ref in enumerate(refs)] == [0, 1, 2, 3]


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
async def test_a_temporary_member_ends_with_the_group_and_does_not_come_back(
    strategy: RestartStrategy,
) -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy=strategy)
        [first] = members(group, log, "a")
        [brief] = members(group, log, "b", restart="temporary")
        [last] = members(group, log, "c", restart="transient")
        await wait_all_tasks_blocked()
        log.clear()
        first.tell(boom)
        assert (await brief.watch()).error is None
        assert await last.ask("back") == "back"
        assert log == ["-a", "-c", "-b", "+a", "+c"]
        assert list(group.loop.children) == ["a", "c"]


async def test_the_crash_of_a_temporary_member_restarts_nobody() -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        members(group, log, "a")
        [brief] = members(group, log, "b", restart="temporary")
        await wait_all_tasks_blocked()
        log.clear()
        brief.tell(boom)
        assert str((await brief.watch()).error) == "boom"
        assert log == ["-b"]


async def test_the_normal_end_of_a_transient_member_restarts_nobody() -> None:
    async def finish(actor: ScriptedActor) -> None:
        actor.finish()

    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        members(group, log, "a")
        [brief] = members(group, log, "b", restart="transient")
        await wait_all_tasks_blocked()
        log.clear()
        brief.tell(finish)
        await brief.watch()
        assert log == ["-b"]


async def test_members_that_crash_together_are_restarted_once() -> None:
    """As in OTP: a member that crashes while its group is being restarted was to end anyway."""

    async def crash_together(_: Actor) -> None:
        await gate.event.wait()
        raise ValueError("boom")

    gate = Gate()
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all", intensity=RestartIntensity(1, within=100))
        refs = members(group, log, "abc")
        with recording(system) as recorder:
            async with trio.open_nursery() as nursery:
                outcomes = [collect(nursery, ref, crash_together) for ref in refs]
                await wait_all_tasks_blocked()
                gate.open()
            assert [type(outcome) for [outcome] in outcomes] == [ActorCrashed] * 3
            for ref in refs:
                await ref.ask("back")
            assert sorted(recorder.paths("crashed")) == ["/group/a", "/group/b", "/group/c"]
            assert len(recorder.paths("restarting")) == 1


async def test_one_for_all_counts_one_restart_however_many_members_there_are() -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all", intensity=RestartIntensity(3, within=100))
        refs = members(group, log, "abcdefgh")
        for ref in refs[:3]:
            ref.tell(boom)
            await wait_all_tasks_blocked()
        assert group.snapshot().restarts == 3
        assert [await ref.ask("x") for ref in refs] == ["x"] * 8


async def test_what_healthy_members_had_in_hand_is_finished_or_delivered_again(
    autojump_clock: MockClock,
) -> None:
    async def wait_first(_: Actor) -> str:
        seen.append(trio.current_time())
        if len(seen) == 1:
            await trio.sleep_forever()
        return f"delivery {len(seen)}"

    seen: list[float] = []
    gate = Gate()
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        quick = group.spawn(ScriptedActor, name="quick", backoff=AT_ONCE)
        slow = group.spawn(ScriptedActor, name="slow", backoff=AT_ONCE, options=ActorOptions(grace=2.0))
        [fragile] = members(group, [], "x")
        async with trio.open_nursery() as nursery:
            finished = collect(nursery, quick, gate)
            again = collect(nursery, slow, wait_first)
            await wait_all_tasks_blocked()
            fragile.tell(boom)
            await wait_all_tasks_blocked()
            gate.open()
        assert finished == ["passed"]
        assert again == ["delivery 2"]
        assert seen == [0.0, 2.0]
        assert (quick.snapshot().redelivered, slow.snapshot().redelivered) == (0, 1)


async def test_a_message_that_was_interrupted_too_often_is_given_up(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        victim = group.spawn(ScriptedActor, backoff=AT_ONCE, options=ActorOptions(grace=0, max_deliveries=1))
        [fragile] = members(group, [], "x")
        async with trio.open_nursery() as nursery:
            outcome = collect(nursery, victim, Gate())
            await wait_all_tasks_blocked()
            fragile.tell(boom)
        [error] = outcome
        assert isinstance(error, ActorCrashed)
        assert isinstance(error.__cause__, ActorStopped)
        assert "was restarted" in str(error)


async def test_messages_for_members_that_are_being_restarted_wait() -> None:
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        log: list[str] = []
        first, second = members(group, log, "ab")
        await wait_all_tasks_blocked()
        first.tell(boom)
        async with trio.open_nursery() as nursery:
            outcomes = [collect(nursery, second, number) for number in range(10)]
        assert outcomes == [[number] for number in range(10)]


async def test_a_failed_start_restarts_the_group_again() -> None:
    class FailsOnce(Member):
        async def on_start(self) -> None:
            await super().on_start()
            starts.append(self.name)
            if len(starts) == 2:
                raise OSError("not now")

    starts: list[str] = []
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        [a] = members(group, log, "a")
        b = group.spawn(FailsOnce, "b", log, name="b", backoff=AT_ONCE)
        members(group, log, "c")
        await wait_all_tasks_blocked()
        log.clear()
        a.tell(boom)
        assert await b.ask("at last") == "at last"
        await wait_all_tasks_blocked()
        assert log == ["-a", "-c", "-b", "+a", "+b", "-a", "+a", "+b", "+c"]
        assert group.snapshot().restarts == 2


async def test_a_member_that_backs_off_does_so_to_the_end(autojump_clock: MockClock) -> None:
    """A sibling's crash neither shortens its wait nor lets those after it start before it."""
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="rest_for_one")
        [first] = members(group, log, "a")
        [second] = members(group, log, "b", backoff=Backoff(initial=10.0, jitter=0.0))
        members(group, log, "c")
        await wait_all_tasks_blocked()
        second.tell(boom)
        await trio.sleep(1)
        log.clear()
        first.tell(boom)
        await trio.sleep(1)
        assert log == ["-a", "+a"]
        await trio.sleep(7.9)
        assert log == ["-a", "+a"]
        await trio.sleep(0.2)
        assert log == ["-a", "+a", "+b", "+c"]


async def test_members_that_were_stopped_with_their_group_are_restarting_until_it_starts(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        [first] = members(group, log, "a", backoff=Backoff(initial=5, jitter=0))
        [member] = members(group, log, "b")
        below = group.supervisor("below")
        [inner] = members(below, log, "c")
        await wait_all_tasks_blocked()
        log.clear()
        first.tell(boom)
        await trio.sleep(1)
        assert log == ["-a", "-c", "-b"]
        states = [which.snapshot().state for which in (first, member, below, inner)]
        assert states == [ActorState.RESTARTING] * 4
        await trio.sleep(5)
        states = [which.snapshot().state for which in (first, member, below, inner)]
        assert states == [ActorState.RUNNING] * 4


async def test_a_supervisor_is_a_member_like_any_other() -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="rest_for_one")
        [first] = members(group, log, "a")
        inner = group.supervisor("inner")
        deep = members(inner, log, "bc")
        members(group, log, "d")
        await wait_all_tasks_blocked()
        log.clear()
        first.tell(boom)
        assert [await ref.ask("x") for ref in deep] == ["x", "x"]
        await wait_all_tasks_blocked()
        assert log == ["-a", "-d", "-c", "-b", "+a", "+b", "+c", "+d"]
        assert inner.snapshot().state is ActorState.RUNNING


async def test_a_member_can_be_stopped_while_its_group_is_being_restarted(autojump_clock: MockClock) -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        [first] = members(group, log, "a", backoff=Backoff(initial=5.0, jitter=0.0))
        second, _ = members(group, log, "bc")
        await wait_all_tasks_blocked()
        log.clear()
        first.tell(boom)
        await trio.sleep(1)
        await second.stop()
        await trio.sleep(10)
        assert log == ["-a", "-c", "-b", "+a", "+c"]


async def test_a_child_added_while_its_group_is_being_restarted_starts_with_it(
    autojump_clock: MockClock,
) -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        group = system.supervisor("group", strategy="one_for_all")
        [first] = members(group, log, "a", backoff=Backoff(initial=5.0, jitter=0.0))
        await wait_all_tasks_blocked()
        first.tell(boom)
        await trio.sleep(1)
        [late] = members(group, log, "z")
        assert await late.ask("x") == "x"
        assert await first.ask("y") == "y"
        assert sorted(log[2:]) == ["+a", "+z"]
