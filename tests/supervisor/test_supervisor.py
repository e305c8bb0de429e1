"""What can be added to a supervisor, and what it does with one child at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, Gate, ScriptedActor, boom, outcome_of, recording
from ultra.actors import Actor, ActorOptions, ActorState
from ultra.errors import ActorCrashed, BadCall, UsageError
from ultra.faults import FaultPlan
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

pytestmark = pytest.mark.usefixtures("no_task_is_left")

ONCE = ActorOptions(max_deliveries=1)


class Named(ScriptedActor):
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
    class Slow(ScriptedActor):
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


async def test_a_supervisor_has_started_once_its_children_have_and_holds_up_those_after_it() -> None:
    class Slow(ScriptedActor):
        async def on_start(self) -> None:
            await gate.wait()

    gate = trio.Event()
    async with ActorSystem() as system:
        with recording(system) as recorder:
            below = system.supervisor("below")
            below.spawn(Slow, name="slow")
            system.spawn(ScriptedActor, name="after")
            await wait_all_tasks_blocked()
            assert below.snapshot().state is ActorState.STARTING
            assert recorder.paths("started") == []
            gate.set()
            await wait_all_tasks_blocked()
            assert below.snapshot().state is ActorState.RUNNING
            assert recorder.paths("started") == ["/below/slow", "/below", "/after"]


async def test_names_are_made_where_none_is_given_and_never_taken_twice() -> None:
    async with ActorSystem() as system:
        system.spawn(ScriptedActor, name="scriptedactor-1")
        assert system.spawn(ScriptedActor).path == "/scriptedactor-2"
        assert system.spawn(lambda: ScriptedActor()).path == "/lambda-3"  # noqa: PLW0108
        assert system.spawn(partial(ScriptedActor)).path == "/actor-4"
        assert list(system.root.loop.children) == [
            "scriptedactor-1",
            "scriptedactor-2",
            "lambda-3",
            "actor-4",
        ]


@pytest.mark.parametrize("name", ["", "a/b", "/"])
async def test_a_name_that_is_no_part_of_a_path_is_refused(name: str) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall, match="is not usable"):
            system.spawn(ScriptedActor, name=name)
        with pytest.raises(BadCall, match="is not usable"):
            system.supervisor(name)


async def test_tasks_beside_the_actors_are_awaited_by_the_block() -> None:
    done = []

    async def work(system: ActorSystem, name: str) -> None:
        await system.spawn(ScriptedActor, name=name).ask("x")
        done.append(name)

    system = ActorSystem()
    with pytest.raises(UsageError, match="entered"):
        system.start_soon(work, system, "early")
    async with system:
        system.start_soon(work, system, "worker")
        await wait_all_tasks_blocked()
    assert done == ["worker"]


async def test_tasks_beside_the_actors_are_cancelled_with_the_block() -> None:
    with trio.fail_after(1) as scope:
        with trio.CancelScope() as block:
            async with ActorSystem() as system:
                system.start_soon(trio.sleep_forever)
                block.cancel()
        assert not scope.cancel_called


async def test_a_name_that_is_taken_is_refused_until_it_is_free() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, name="x")
        with pytest.raises(BadCall, match="already has a child 'x'"):
            system.supervisor("x")
        await ref.stop()
        assert await system.spawn(ScriptedActor, name="x").ask("hello") == "hello"


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
            system.spawn(**{"factory": ScriptedActor, **arguments})
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
    class Wide(ScriptedActor):
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
    async def own_log(actor: ScriptedActor) -> object:
        return actor.log

    log: list[object] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, log, backoff=AT_ONCE, options=ONCE)
        assert await ref.ask(own_log) is log
        ref.tell(boom)
        assert await ref.ask(own_log) is log


async def test_an_actor_can_be_added_by_an_actor() -> None:
    async with ActorSystem() as system:

        async def add_another(_: Actor) -> object:
            return await system.spawn(ScriptedActor, name="child").ask("from the child")

        assert await system.spawn(ScriptedActor).ask(add_another) == "from the child"


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
    ("restart", "what", "starts"),
    [
        ("permanent", "crash", 2),
        ("permanent", "finish", 2),
        ("transient", "crash", 2),
        ("transient", "finish", 1),
        ("temporary", "crash", 1),
        ("temporary", "finish", 1),
    ],
)
async def test_the_restart_type_says_after_which_ends_an_actor_starts_again(
    restart: Any, what: str, starts: int
) -> None:
    async def end(actor: ScriptedActor) -> None:
        if what == "crash":
            raise ValueError("boom")
        actor.finish()

    log: list[str] = []
    async with ActorSystem() as system:
        ref = system.spawn(Named, "x", log, restart=restart, backoff=AT_ONCE, options=ONCE)
        ref.tell(end)
        await wait_all_tasks_blocked()
        assert log.count("+x") == starts
        if starts == 1:
            ended = await ref.watch()
            assert ended.state is ActorState.STOPPED
            assert str(ended.error or "") == ("boom" if what == "crash" else "")
            assert system.tree().children == ()
        else:
            assert await ref.ask("alive") == "alive"


async def test_a_stopped_child_is_not_restarted_and_leaves_the_tree() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, restart="permanent", backoff=AT_ONCE)
        ended = await ref.stop()
        assert (ended.path, ended.state, ended.error) == ("/scriptedactor-1", ActorState.STOPPED, None)
        assert system.tree().children == ()


async def test_messages_wait_while_the_actor_backs_off(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        backoff = Backoff(initial=3.0, jitter=0.0)
        ref = system.spawn(ScriptedActor, backoff=backoff, options=ONCE)
        ref.tell(boom)
        assert await ref.ask("hello") == "hello"
        assert trio.current_time() == 3.0


async def test_the_backoff_grows_with_crashes_in_a_row_and_resets_after_a_time_without(
    autojump_clock: MockClock,
) -> None:
    backoff = Backoff(initial=1.0, factor=3.0, maximum=20.0, jitter=0.0, reset_after=60.0)
    async with ActorSystem(intensity=RestartIntensity(100, within=1.0)) as system:
        with recording(system) as recorder:
            ref = system.spawn(ScriptedActor, backoff=backoff, options=ONCE)
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
    class Failing(ScriptedActor):
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


@pytest.mark.parametrize("faults", ["a text", object(), FaultPlan])
async def test_faults_that_are_no_plan_are_refused(faults: Any) -> None:
    with pytest.raises(BadCall, match=r"it must be an .*FaultPlan, or None"):
        ActorSystem(faults=faults)


async def test_a_reference_shows_its_path_and_how_the_actor_is() -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, name="one")
        assert await ref.ask("hello") == "hello"
        assert repr(ref) == "<ActorRef /one running>"
        await ref.stop()
    assert repr(ref) == "<ActorRef /one stopped>"


async def test_a_revived_actor_backs_off_as_one_that_never_crashed(autojump_clock: MockClock) -> None:
    async with ActorSystem() as system:
        group = system.supervisor("group", intensity=RestartIntensity(2, within=1000), on_excess="isolate")
        ref = group.spawn(ScriptedActor, options=ONCE, backoff=Backoff(initial=1, factor=10, jitter=0))
        for wait in (1.0, 10.0):
            began = trio.current_time()
            ref.tell(boom)
            assert await ref.ask("back") == "back"
            assert trio.current_time() - began == wait
        ref.tell(boom)
        await trio.sleep(1)
        assert ref.snapshot().state is ActorState.DOWN
        await trio.sleep(2000)
        group.revive(ref.path.rpartition("/")[2])
        assert await ref.ask("back") == "back"
        began = trio.current_time()
        ref.tell(boom)
        assert await ref.ask("back") == "back"
        assert trio.current_time() - began == 1.0
