"""What can be added to a supervisor, and what it does with one child at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from puppets import AT_ONCE, Gate, Puppet, boom, outcome_of, recording
from ultra.actors import Actor, ActorOptions, ActorRef, ActorState
from ultra.errors import ActorCrashed, ActorDown, ActorStopped, BadCall
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity, Supervisor

ONCE = ActorOptions(max_deliveries=1)


class Named(Puppet):
    """Notes its start and its stop by name."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name = name
        self.notes = log

    async def on_start(self) -> None:
        self.notes.append(f"+{self.name}")

    async def on_stop(self) -> None:
        self.notes.append(f"-{self.name}")


# --- adding children -----------------------------------------------------------------------------


async def test_children_start_in_the_order_in_which_they_were_added_and_stop_in_reverse() -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        for name in "abc":
            system.spawn(Named, name, log, name=name)
        await wait_all_tasks_blocked()
        assert log == ["+a", "+b", "+c"]
        log.clear()
    assert log == ["-c", "-b", "-a"]


async def test_a_child_that_starts_slowly_holds_up_those_after_it() -> None:
    class Slow(Puppet):
        async def on_start(self) -> None:
            await gate.wait()

    log: list[str] = []
    gate = trio.Event()
    async with ActorSystem() as system:
        system.spawn(Slow)
        system.spawn(Named, "second", log)
        await wait_all_tasks_blocked()
        assert log == []
        gate.set()
        await wait_all_tasks_blocked()
        assert log == ["+second"]


async def test_names_are_made_where_none_is_given_and_never_taken_twice() -> None:
    async with ActorSystem() as system:
        system.spawn(Puppet, name="puppet-1")
        assert system.spawn(Puppet).path == "/puppet-2"
        assert system.spawn(lambda: Puppet()).path == "/lambda-3"  # noqa: PLW0108
        assert system.spawn(partial(Puppet)).path == "/actor-4"
        assert list(system.root.loop.children) == ["puppet-1", "puppet-2", "lambda-3", "actor-4"]


@pytest.mark.parametrize("name", ["", "a/b", "/"])
async def test_a_name_that_is_no_part_of_a_path_is_refused(name: str) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall, match="is not usable"):
            system.spawn(Puppet, name=name)
        with pytest.raises(BadCall, match="is not usable"):
            system.supervisor(name)


async def test_a_name_that_is_taken_is_refused_until_it_is_free() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Puppet, name="x")
        with pytest.raises(BadCall, match="already has a child 'x'"):
            system.supervisor("x")
        await ref.stop()
        assert await system.spawn(Puppet, name="x").ask("hello") == "hello"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"restart": "always"}, "restart is 'always'; it must be one of permanent, transient, temporary"),
        ({"factory": None}, "cannot spawn None"),
    ],
)
async def test_a_spawn_that_cannot_be_says_why_and_adds_nothing(
    arguments: dict[str, Any], message: str
) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall, match=message):
            system.spawn(**{"factory": Puppet, **arguments})
        assert system.tree().children == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "all"}, "strategy is 'all'; it must be one of one_for_one, one_for_all, rest_for_one"),
        ({"on_excess": "ignore"}, "on_excess is 'ignore'; it must be one of escalate, isolate"),
        ({"restart": "never"}, "restart is 'never'"),
    ],
)
async def test_a_supervisor_that_cannot_be_says_why_and_is_not_added(
    arguments: dict[str, Any], message: str
) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall, match=message):
            system.supervisor("x", **arguments)
        assert system.tree().children == ()


async def test_options_come_from_the_class_unless_they_are_given() -> None:
    class Wide(Puppet):
        options = ActorOptions(concurrency=3)

    async def running_at_once(system: ActorSystem, factory: Any, options: ActorOptions | None = None) -> int:
        gate = Gate()
        ref = system.spawn(factory, options=options)
        for _ in range(10):
            ref.tell(gate)
        await wait_all_tasks_blocked()
        gate.open()
        return gate.entered

    async with ActorSystem() as system:
        assert await running_at_once(system, Wide) == 3
        assert await running_at_once(system, partial(Wide, None)) == 3
        assert await running_at_once(system, Wide, ActorOptions(concurrency=2)) == 2
        assert await running_at_once(system, lambda: Wide()) == 1  # noqa: PLW0108 - nobody knows what it makes


async def test_arguments_are_given_to_each_incarnation() -> None:
    async def own_log(puppet: Puppet) -> object:
        return puppet.log

    log: list[object] = []
    async with ActorSystem() as system:
        ref = system.spawn(Puppet, log, backoff=AT_ONCE, options=ONCE)
        assert await ref.ask(own_log) is log
        ref.tell(boom)
        assert await ref.ask(own_log) is log


async def test_an_actor_can_be_added_by_an_actor() -> None:
    async with ActorSystem() as system:

        async def add_another(_: Actor) -> object:
            return await system.spawn(Puppet, name="child").ask("from the child")

        assert await system.spawn(Puppet).ask(add_another) == "from the child"


# --- one_for_one ---------------------------------------------------------------------------------


async def test_a_crash_restarts_the_actor_that_crashed_and_no_other() -> None:
    log: list[str] = []
    async with ActorSystem() as system:
        a, b, _ = (system.spawn(Named, name, log, backoff=AT_ONCE, options=ONCE) for name in "abc")
        await a.ask("x")
        await wait_all_tasks_blocked()
        log.clear()
        assert isinstance(await outcome_of(b.ask(boom)), ActorCrashed)
        await b.ask("back")
        assert log == ["-b", "+b"]


@pytest.mark.parametrize(
    ("restart", "what", "lives"),
    [
        ("permanent", "crash", 2),
        ("permanent", "finish", 2),
        ("transient", "crash", 2),
        ("transient", "finish", 1),
        ("temporary", "crash", 1),
        ("temporary", "finish", 1),
    ],
)
async def test_the_restart_type_says_after_which_ends_an_actor_lives_again(
    restart: Any, what: str, lives: int
) -> None:
    async def end(puppet: Puppet) -> None:
        if what == "crash":
            raise ValueError("boom")
        puppet.finish()

    log: list[str] = []
    async with ActorSystem() as system:
        ref = system.spawn(Named, "x", log, restart=restart, backoff=AT_ONCE, options=ONCE)
        ref.tell(end)
        await wait_all_tasks_blocked()
        assert log.count("+x") == lives
        if lives == 1:
            ended = await ref.watch()
            assert ended.state is ActorState.STOPPED
            assert str(ended.error or "") == ("boom" if what == "crash" else "")
            assert system.tree().children == ()
        else:
            assert await ref.ask("alive") == "alive"


async def test_a_stopped_child_is_not_restarted_and_leaves_the_tree() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Puppet, restart="permanent", backoff=AT_ONCE)
        ended = await ref.stop()
        assert (ended.path, ended.state, ended.error) == ("/puppet-1", ActorState.STOPPED, None)
        assert system.tree().children == ()


async def test_messages_wait_while_the_actor_backs_off(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        backoff = Backoff(initial=3.0, jitter=0.0)
        ref = system.spawn(Puppet, backoff=backoff, options=ONCE)
        ref.tell(boom)
        assert await ref.ask("patience") == "patience"
        assert trio.current_time() == 3.0


async def test_the_backoff_grows_with_crashes_in_a_row_and_resets_after_a_time_without(
    autojump_clock: MockClock,
) -> None:
    backoff = Backoff(initial=1.0, factor=3.0, maximum=20.0, jitter=0.0, reset_after=60.0)
    async with ActorSystem(intensity=RestartIntensity(100, within=1.0)) as system:
        with recording(system) as recorder:
            ref = system.spawn(Puppet, backoff=backoff, options=ONCE)
            for pause in (0, 0, 59, 0, 60, 0):
                await ref.ask("up again")
                await trio.sleep(pause)
                ref.tell(boom)
                await trio.lowlevel.checkpoint()
            await ref.ask("up again")
            delays = [event.delay for event in recorder.events if event.kind == "restarting"]
    assert delays == [1.0, 3.0, 9.0, 20.0, 1.0, 3.0]


async def test_a_slow_start_that_fails_does_not_count_as_a_time_without_a_crash(
    autojump_clock: MockClock,
) -> None:
    class Failing(Puppet):
        async def on_start(self) -> None:
            await trio.sleep(10)
            raise OSError("after a long time")

    backoff = Backoff(initial=1.0, factor=2.0, jitter=0.0, reset_after=5.0)
    async with ActorSystem(intensity=RestartIntensity(100)) as system:
        with recording(system) as recorder:
            system.spawn(Failing, backoff=backoff)
            await trio.sleep(40)
            delays = [event.delay for event in recorder.events if event.kind == "restarting"]
    assert delays == [1.0, 2.0, 4.0]


# --- isolation and revival -----------------------------------------------------------------------


async def isolated(supervisor: Supervisor | ActorSystem, **options: Any) -> Any:
    """An actor that is down."""
    ref = supervisor.spawn(Puppet, options=ONCE, backoff=AT_ONCE, **options)
    ref.tell(boom)
    assert (await ref.watch()).state is ActorState.DOWN
    return ref


async def test_an_isolated_actor_is_down_and_the_others_go_on() -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        other = system.spawn(Puppet, name="other")
        ref = await isolated(system, name="x")
        assert ref.snapshot().state is ActorState.DOWN
        assert ref.snapshot().last_error == "ValueError: boom"
        assert await other.ask("fine") == "fine"


async def test_a_revived_actor_takes_messages_again_at_once() -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        ref = await isolated(system, name="x")
        with recording(system) as recorder:
            system.root.revive("x")
            assert await ref.ask("back") == "back"
            await wait_all_tasks_blocked()
            assert recorder.kinds("/x") == ["revived", "started"]
        assert ref.snapshot().state is ActorState.RUNNING


async def test_to_revive_what_is_not_down_does_nothing() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Puppet, name="x")
        await ref.ask("x")
        system.root.revive("x")
        await wait_all_tasks_blocked()
        assert ref.snapshot().restarts == 0
        with pytest.raises(BadCall, match="has no child 'y'; its children: x"):
            system.root.revive("y")


async def test_a_revived_actor_that_crashes_again_at_once_is_down_again_at_once(
    autojump_clock: MockClock,
) -> None:
    intensity = RestartIntensity(1, within=10.0)
    async with ActorSystem(on_excess="isolate", intensity=intensity) as system:
        ref = system.spawn(Puppet, name="x", options=ONCE, backoff=AT_ONCE)
        ref.tell(boom)
        ref.tell(boom)
        await ref.watch()
        system.root.revive("x")
        ref.tell(boom)
        assert (await ref.watch()).state is ActorState.DOWN
        await trio.sleep(10.1)
        system.root.revive("x")
        ref.tell(boom)
        assert await ref.ask("the window is empty again") == "the window is empty again"


async def test_a_stop_ends_an_actor_that_is_down() -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        ref = await isolated(system)
        assert (await ref.stop()).state is ActorState.STOPPED
        assert system.tree().children == ()
        assert type(await outcome_of(ref.ask("x"))) is ActorStopped


async def test_an_isolated_supervisor_takes_all_below_it_down_and_is_revived_as_a_whole() -> None:
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        group = system.supervisor("group", intensity=RestartIntensity(0))
        a = group.spawn(Puppet, name="a", options=ONCE)
        inner = group.supervisor("inner")
        b = inner.spawn(Puppet, name="b")
        await b.ask("x")
        a.tell(boom)
        for ref in (a, b):
            ended = await ref.watch()
            assert ended.state is ActorState.DOWN
            assert isinstance(await outcome_of(ref.ask("x")), ActorDown)
        assert group.snapshot().state is ActorState.DOWN
        assert inner.snapshot().state is ActorState.DOWN
        for down in (group, inner):
            with pytest.raises(ActorDown):
                down.spawn(Puppet)
            with pytest.raises(ActorDown):
                down.supervisor("more")
        with pytest.raises(ActorDown, match="'/group' is down: RestartLimitExceeded"):
            group.revive("a")

        system.root.revive("group")
        assert await b.ask("back") == "back"
        assert await a.ask("back") == "back"
        assert group.snapshot().state is ActorState.RUNNING


# --- death watch ---------------------------------------------------------------------------------


async def test_all_who_watch_hear_of_the_end_once_and_late_ones_at_once() -> None:
    heard: list[object] = []

    async def watch() -> None:
        heard.append(await ref.watch())

    async with ActorSystem() as system:
        ref = system.spawn(Puppet)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(watch)
            await wait_all_tasks_blocked()
            assert heard == []
            ended = await ref.stop()
        assert heard == [ended] * 3
        with trio.fail_after(0.1):
            assert await ref.watch() is ended
    assert await ref.watch() is ended


async def test_a_restart_is_no_end() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Puppet, backoff=AT_ONCE, options=ONCE)
        with trio.move_on_after(0.02) as scope:
            ref.tell(boom)
            await ref.watch()
        assert scope.cancelled_caught
        assert await ref.ask("alive") == "alive"


async def test_a_watch_that_was_cancelled_leaves_nothing_behind() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(Puppet)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(ref.watch)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert (await ref.stop()).state is ActorState.STOPPED


async def test_who_watches_from_outside_hears_of_the_end_of_the_system() -> None:
    heard: list[ActorState] = []

    async def watch(ref: ActorRef) -> None:
        heard.append((await ref.watch()).state)

    async with trio.open_nursery() as nursery, ActorSystem() as system:
        nursery.start_soon(watch, system.supervisor("s").spawn(Puppet))
        nursery.start_soon(watch, system.spawn(Puppet))
        await wait_all_tasks_blocked()
    assert heard == [ActorState.STOPPED] * 2
