"""Code of users inside the supervision loop: whatever it raises or does, no other actor notices."""

from __future__ import annotations

import logging
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, ScriptedActor, boom
from ultra.actors import Actor, ActorOptions
from ultra.errors import BadCall, StrayCancelled, UsageError
from ultra.supervisor import ActorSystem, RestartIntensity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.supervisor import LifecycleEvent, Restart, RestartStrategy

ONCE = ActorOptions(max_deliveries=1)


class LyingError(Exception):
    """An exception whose own methods raise, or lie."""

    def __str__(self) -> str:
        raise RuntimeError("broken __str__")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("broken __eq__")

    def __hash__(self) -> int:
        raise RuntimeError("broken __hash__")

    def __bool__(self) -> bool:
        return False


async def lie(_: Actor) -> object:
    raise LyingError


@pytest.mark.parametrize("on_excess", ["isolate", "escalate"])
async def test_an_exception_that_cannot_be_told_is_a_crash_like_any_other(on_excess: Any) -> None:
    async with ActorSystem() as system:
        sibling = system.spawn(ScriptedActor)
        pool = system.supervisor(
            "pool", on_excess=on_excess, intensity=RestartIntensity(1), restart="temporary"
        )
        ref = pool.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE, name="liar")
        ref.tell(lie)
        ref.tell(lie)
        ended = await ref.watch()
        assert ended.error is None or isinstance(ended.error, LyingError)
        assert "cannot be told: __str__ raised RuntimeError" in str(ref.snapshot().last_error)
        assert await sibling.ask("hello") == "hello"


@pytest.fixture
def broken_logging() -> Iterator[None]:
    def broken(_: logging.LogRecord) -> bool:
        raise ZeroDivisionError("in a filter")

    logger = logging.getLogger("ultra.supervisor")
    logger.addFilter(broken)
    yield
    logger.removeFilter(broken)


@pytest.mark.usefixtures("broken_logging")
async def test_a_log_filter_that_raises_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        ref.tell(boom)
        assert await ref.ask("hello") == "hello"
    assert "ZeroDivisionError: in a filter" in capsys.readouterr().err


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
@pytest.mark.parametrize("kind", ["crashed", "restarting", "started", "stopped"])
async def test_an_observer_may_stop_the_child_that_it_is_told_of(
    strategy: RestartStrategy, restart: Restart, kind: str
) -> None:
    def stop(event: LifecycleEvent) -> None:
        if event.kind == kind and event.path == bad.path:
            bad.request_stop()

    async with ActorSystem(strategy=strategy) as system:
        good = system.spawn(ScriptedActor)
        bad = system.spawn(ScriptedActor, name="bad", restart=restart, options=ONCE, backoff=AT_ONCE)
        with system.observe(stop):
            bad.tell(boom)
            await wait_all_tasks_blocked()
            assert await good.ask("hello") == "hello"
            await bad.stop()
            assert await good.ask("hello") == "hello"


async def test_an_observer_may_spawn_revive_and_stop_all() -> None:
    def react(event: LifecycleEvent) -> None:
        events.append(event.kind)
        if event.kind == "crashed" and len(events) < 10:
            system.spawn(ScriptedActor, name=f"another-{len(events)}")
        if event.kind == "down":
            system.root.revive("bad")

    events: list[str] = []
    async with ActorSystem(on_excess="isolate", intensity=RestartIntensity(0)) as system:
        bad = system.spawn(ScriptedActor, name="bad", options=ONCE)
        with system.observe(react):
            bad.tell(boom)
            await wait_all_tasks_blocked()
            assert await bad.ask("hello") == "hello"
            assert len(system.tree().children) == 2
    assert events[:3] == ["started", "crashed", "down"] or events[:3] == ["crashed", "down", "revived"]


async def test_an_observer_that_raises_ends_nothing_and_the_others_are_told_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: LifecycleEvent) -> None:
        raise LyingError if event.kind == "crashed" else stray

    stray = await stray_cancelled()
    told: list[tuple[str, str]] = []
    async with ActorSystem() as system:
        good = system.spawn(ScriptedActor, name="good")
        bad = system.spawn(ScriptedActor, name="bad", options=ONCE, backoff=AT_ONCE)
        with (
            system.observe(fail),
            system.observe(lambda event: told.append((event.path, event.kind))),
        ):
            await wait_all_tasks_blocked()
            bad.tell(boom)
            assert await bad.ask("hello") == "hello"
            assert await good.ask("hello") == "hello"
    assert [kind for path, kind in told if path == "/bad"] == ["started", "crashed", "restarting", "started"]
    assert caplog.text.count("lifecycle observer failed") == len(told)


@pytest.mark.parametrize("drain", [False, True])
@pytest.mark.parametrize("slow", [False, True])
async def test_a_factory_may_stop_its_own_actor(*, drain: bool, slow: bool) -> None:
    class Slow(ScriptedActor):
        async def on_start(self) -> None:
            await trio.lowlevel.checkpoint()

    def factory() -> ScriptedActor:
        ref.request_stop(drain=drain)
        return Slow(handled) if slow else ScriptedActor(handled)

    handled: list[object] = []
    async with ActorSystem() as system:
        ref = system.spawn(factory)
        after = system.spawn(ScriptedActor)
        ref.tell("waits")
        assert (await ref.watch()).error is None
        assert handled == ["waits"] * drain
        assert await after.ask("hello") == "hello"
        assert len(system.tree().children) == 1


async def test_a_factory_that_stops_its_actor_and_raises_ends_it() -> None:
    def factory() -> ScriptedActor:
        ref.request_stop()
        raise OSError("no")

    async with ActorSystem() as system:
        ref = system.spawn(factory)
        await ref.watch()
        assert not system.tree().children


@pytest.mark.parametrize(
    "arguments",
    [
        {"backoff": 0.5},
        {"options": {"concurrency": 2}},
        {"name": 5},
        {"restart": "always"},
    ],
)
async def test_an_argument_of_a_wrong_type_is_refused_by_spawn(arguments: dict[str, Any]) -> None:
    async with ActorSystem() as system:
        with pytest.raises(BadCall):
            system.spawn(ScriptedActor, **arguments)
        assert not system.tree().children


async def test_other_wrong_types_are_refused_where_they_are_given() -> None:
    class WithOptionsOfAnotherType(ScriptedActor):
        options: ClassVar[Any] = {"concurrency": 9}

    async def make() -> ScriptedActor:
        return ScriptedActor()

    arguments: dict[str, Any]
    wrong: dict[str, Any]
    for arguments in ({"intensity": 3}, {"intensity": (3, 5.0)}, {"random": 42}):
        with pytest.raises(BadCall):
            ActorSystem(**arguments)
    assert ActorSystem(random=Random(1)) is not None
    async with ActorSystem() as system:
        for wrong in ({"intensity": 3}, {"backoff": 0.5}):
            with pytest.raises(BadCall):
                system.supervisor("pool", **wrong)
        factory: Any
        for factory in (object, ScriptedActor(), make, WithOptionsOfAnotherType):
            with pytest.raises(BadCall):
                system.spawn(factory)


async def stray_cancelled() -> BaseException:
    with trio.move_on_after(0):
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            return error
    raise AssertionError


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("in_a_group", [False, True])
async def test_a_stray_cancelled_is_a_crash(*, nested: bool, in_a_group: bool) -> None:
    async def raise_again(_: Actor) -> object:
        raise kept

    kept = await stray_cancelled()
    if in_a_group:
        kept = BaseExceptionGroup("kept", [kept, ValueError("as well")])
    async with ActorSystem() as system:
        pool = system.supervisor("pool") if nested else system
        sibling = pool.spawn(ScriptedActor)
        ref = pool.spawn(ScriptedActor, options=ONCE, backoff=AT_ONCE)
        ref.tell(raise_again)
        assert await ref.ask("hello") == "hello"
        assert await sibling.ask("hello") == "hello"
        assert ref.snapshot().restarts == 1
        assert "Cancelled" in str(ref.snapshot().last_error) or in_a_group
    assert "Cancelled" in str(StrayCancelled(kept)) or in_a_group


async def test_a_supervisor_that_ends_without_being_told_is_an_error_of_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ultra.supervisor.supervision_loop import SupervisionLoop  # noqa: PLC0415 - as a friend

    kept = await stray_cancelled()

    async def broken(*_: object) -> None:
        raise kept

    monkeypatch.setattr(SupervisionLoop, "_loop", broken)
    with pytest.RaisesGroup(pytest.RaisesExc(RuntimeError, match="that nobody told to")):
        async with ActorSystem():
            await trio.sleep_forever()


async def test_an_ask_from_elsewhere_waits_for_a_nested_start_and_is_answered() -> None:
    class Slow(ScriptedActor):
        async def on_start(self) -> None:
            entered.set()
            await gate.wait()

    entered, gate = trio.Event(), trio.Event()
    answers: list[object] = []
    async with ActorSystem() as system:
        system.supervisor("outer").supervisor("inner").spawn(Slow)
        last = system.spawn(ScriptedActor)

        async def ask() -> None:
            answers.append(await last.ask("hello"))

        async with trio.open_nursery() as nursery:
            await entered.wait()
            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert answers == []
            gate.set()
        assert answers == ["hello"]


async def test_an_escalation_leaves_as_a_group_even_where_groups_are_loose() -> None:
    async def main() -> None:
        async with ActorSystem(intensity=RestartIntensity(0)) as system:
            system.spawn(ScriptedActor, options=ONCE).tell(boom)
            await trio.sleep_forever()

    def run() -> None:
        with (
            pytest.warns(trio.TrioDeprecationWarning, match="strict_exception_groups"),
            pytest.raises(ExceptionGroup),
        ):
            trio.run(main, strict_exception_groups=False)

    await trio.to_thread.run_sync(run)


async def test_on_start_cannot_ask_a_sibling_that_starts_after_it() -> None:
    class Parent(ScriptedActor):
        async def on_start(self) -> None:
            for ref in (sibling, nephew):
                with pytest.raises(UsageError, match="starts only when the on_start that asks it"):
                    await ref.ask("too early")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask_from_below, ref)
            assert await elder.ask("in time") == "in time"
            sibling.tell("later")

        async def _ask_from_below(self, ref: Any) -> None:
            with pytest.raises(UsageError):
                await ref.ask("too early")

    async with ActorSystem() as system:
        elder = system.spawn(ScriptedActor)
        parent = system.spawn(Parent)
        sibling = system.spawn(ScriptedActor)
        nephew = system.supervisor("pool").spawn(ScriptedActor)
        assert await parent.ask("hello") == "hello"
        assert await nephew.ask("hello") == "hello"
        assert parent.snapshot().restarts == 0
        assert sibling.snapshot().handled == 1
