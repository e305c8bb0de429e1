"""Replies, poison and what handlers leave behind: no message harms another one."""

from __future__ import annotations

import contextvars
import gc
import logging
import weakref
from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.testing import wait_all_tasks_blocked

from helpers.scripted_actors import AT_ONCE, ScriptedActor
from ultra.actors import Actor, ActorOptions, ActorState, AskGroup, Failure
from ultra.errors import ActorCrashed
from ultra.supervisor import ActorSystem, RestartIntensity

OFTEN = RestartIntensity(100, within=1)


class FalsyError(Exception):
    """An exception that is false."""

    def __bool__(self) -> bool:
        return False


class Refusal(Failure, frozen=True):
    """A failure of the user's own."""


class NeedsArgumentsError(Exception):
    """A class of exceptions that cannot be made without arguments."""

    def __init__(self, what: str) -> None:
        super().__init__(what)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (Failure(ValueError("x")), ValueError),
        (Failure(ValueError), ValueError),
        (Failure(FalsyError()), FalsyError),
        (Failure(NeedsArgumentsError), TypeError),
        (Failure("text"), TypeError),  # type: ignore[arg-type]
        (Failure(None), TypeError),  # type: ignore[arg-type]
        (Failure(KeyboardInterrupt()), TypeError),  # type: ignore[arg-type]
        (Failure(StopIteration()), RuntimeError),
        (Refusal(ValueError("x")), ValueError),
    ],
)
async def test_every_failure_reaches_its_asker(failure: Failure, kind: type[Exception]) -> None:
    async def fail(_: Actor) -> object:
        return failure

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor)
        with trio.fail_after(5):
            with pytest.raises(kind):
                await ref.ask(fail)
            with AskGroup[int, Any]() as asks:
                asks.ask(ref, fail, 1)  # type: ignore[arg-type]
                assert (await asks.next()).error is not None
        assert (ref.snapshot().failed, ref.snapshot().restarts) == (2, 0)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_poison_message_spares_those_in_flight_beside_it(*, stubborn: bool) -> None:
    poisoned = 0

    async def innocent(_: Actor) -> str:
        try:
            if poisoned < 3:
                await trio.sleep_forever()
        except trio.Cancelled:
            if stubborn:
                raise OSError("from the cleaning up") from None
            raise
        return "fine"

    async def poison(_: Actor) -> object:
        nonlocal poisoned
        await wait_all_tasks_blocked()
        poisoned += 1
        raise ValueError("poison")

    answers: list[object] = []
    async with ActorSystem(intensity=OFTEN) as system:
        options = ActorOptions(concurrency=10, max_deliveries=3)
        ref = system.spawn(ScriptedActor, options=options, backoff=AT_ONCE)

        async def ask(message: object) -> None:
            try:
                answers.append(await ref.ask(message))
            except ActorCrashed as error:
                answers.append((error.deliveries, type(error.__cause__)))

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for message in [innocent] * 9 + [poison]:
                    nursery.start_soon(ask, message)
    assert sorted(map(str, answers)) == sorted(["fine"] * 9 + [str((3, ValueError))])


async def test_a_message_that_was_spared_is_told_of_the_deliveries_that_count() -> None:
    tries = 0

    async def beside(_: Actor) -> object:
        nonlocal tries
        tries += 1
        if tries == 1:
            await trio.sleep_forever()
        raise ValueError("its own crash")

    async def poison(_: Actor) -> object:
        raise ValueError("poison")

    async with ActorSystem(intensity=OFTEN) as system:
        options = ActorOptions(concurrency=2, max_deliveries=2)
        ref = system.spawn(ScriptedActor, options=options, backoff=AT_ONCE)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ActorCrashed) as caught:
                    await ref.ask(beside)
                assert (caught.value.deliveries, caught.value.blamed) == (2, True)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            ref.tell(poison)
    assert tries == 3


async def test_a_message_that_may_be_given_only_once_is_told_that_it_is_not_to_blame() -> None:
    async def poison(_: Actor) -> object:
        raise ValueError("poison")

    async with ActorSystem() as system:
        options = ActorOptions(concurrency=2, max_deliveries=1)
        ref = system.spawn(ScriptedActor, options=options, backoff=AT_ONCE)
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(ActorCrashed, match="for no fault of this message") as caught:
                    await ref.ask(wait)
                assert not caught.value.blamed

            async def wait(_: Actor) -> object:
                return await trio.sleep_forever()

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            ref.tell(poison)


VARIABLE = contextvars.ContextVar("VARIABLE", default="nobody")


class Uncomparable:
    """Cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_a_message_does_not_see_the_context_variables_of_another(concurrency: int) -> None:
    async def set_it(_: Actor) -> object:
        before = VARIABLE.get()
        VARIABLE.set("alice")
        await trio.lowlevel.checkpoint()
        return before, VARIABLE.get()

    async def set_another(_: Actor) -> object:
        VARIABLE.set(Uncomparable())  # type: ignore[arg-type]
        return VARIABLE.get()

    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(concurrency=concurrency))
        for _ in range(4):
            assert await ref.ask(set_it) == ("nobody", "alice")
            await ref.ask(set_another)


@pytest.mark.parametrize("method", ["on_start", "on_stop"])
async def test_a_wide_actor_that_starts_before_a_message_has_come_waits_for_one(method: str) -> None:
    async def nothing(_: Actor) -> None:
        pass

    early = type("Early", (ScriptedActor,), {method: nothing})
    async with ActorSystem() as system:
        ref = system.spawn(early, options=ActorOptions(concurrency=3))
        await wait_all_tasks_blocked()
        snapshot = ref.snapshot()
        assert (snapshot.state, snapshot.restarts) == (ActorState.RUNNING, 0)
        assert await ref.ask("hello") == "hello"
        assert ref.snapshot().restarts == 0


async def test_bursts_never_bring_more_workers_than_the_concurrency_allows() -> None:
    async def wait(_: Actor) -> object:
        await gate.wait()
        return None

    gate = trio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(concurrency=100))
        for _ in range(3):
            gate = trio.Event()
            for _ in range(300):
                ref.tell(wait)
            await wait_all_tasks_blocked()
            assert ref.snapshot().in_flight == 100
            gate.set()
            await wait_all_tasks_blocked()
        assert ref.snapshot().handled == 900


async def test_workers_end_after_a_burst_and_come_back() -> None:
    async def wait(_: Actor) -> object:
        await gate.wait()
        return None

    gate = trio.Event()
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, options=ActorOptions(concurrency=500))
        for _ in range(2):
            gate = trio.Event()
            before = trio.lowlevel.current_statistics().tasks_living
            for _ in range(500):
                ref.tell(wait)
            await wait_all_tasks_blocked()
            assert ref.snapshot().in_flight == 500
            gate.set()
            await wait_all_tasks_blocked()
            assert ref.snapshot().in_flight == 0
            assert trio.lowlevel.current_statistics().tasks_living < before + 80


async def test_a_crash_leaves_no_reference_cycle(caplog: pytest.LogCaptureFixture) -> None:
    class Payload:
        pass

    async def crash(_: Actor) -> object:
        payload = Payload()
        alive.add(payload)
        raise ValueError("boom")

    caplog.set_level(logging.CRITICAL + 1, "ultra")  # records keep tracebacks
    alive: weakref.WeakSet[Payload] = weakref.WeakSet()
    gc.collect()
    gc.disable()
    try:
        async with ActorSystem(intensity=RestartIntensity(100, within=1e-9)) as system:
            options = ActorOptions(max_deliveries=1)
            ref = system.spawn(ScriptedActor, options=options, backoff=AT_ONCE)
            for _ in range(20):
                with pytest.raises(ActorCrashed):
                    await ref.ask(crash)
                await trio.sleep(0.0001)
            assert len(alive) < 4
    finally:
        gc.enable()
