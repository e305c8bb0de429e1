"""Faults of actors: what each of them does to the actor, and to those who talk to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from ultra.actors import Actor, ActorOptions, Message, SystemMessage
from ultra.errors import ActorCrashed, ActorStopped, AskTimeout, InboxFull
from ultra.faults import FaultPlan, InjectedFault
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra.actors import ActorRef

MANY = RestartIntensity(1000, within=1.0)
AT_ONCE = Backoff(initial=0.0)


class Ping(Message[str], frozen=True):
    text: str = ""


class Urgent(SystemMessage[str], frozen=True):
    text: str = ""


class Echo(Actor):
    """Notes what it handles."""

    def __init__(self, seen: list[str] | None = None) -> None:
        self._seen = seen if seen is not None else []

    async def receive(self, message: object) -> object:
        assert isinstance(message, (Ping, Urgent))
        self._seen.append(message.text)
        return message.text


def _system(plan: FaultPlan) -> ActorSystem:
    return ActorSystem(faults=plan, intensity=MANY)


def _echo(
    system: ActorSystem, seen: list[str] | None = None, options: ActorOptions | None = None
) -> ActorRef:
    return system.spawn(Echo, seen, name="echo", backoff=AT_ONCE, options=options)


async def test_a_crash_before_handling_has_no_effects_and_the_message_is_delivered_again() -> None:
    seen: list[str] = []
    plan = FaultPlan().crash("/echo", times=1)
    async with _system(plan) as system:
        echo = _echo(system, seen)
        assert await echo.ask(Ping("a")) == "a"

        assert seen == ["a"]
        assert echo.snapshot().restarts == 1
        assert echo.snapshot().redelivered == 1


async def test_a_crash_after_handling_has_had_its_effects_and_has_them_again() -> None:
    seen: list[str] = []
    plan = FaultPlan().crash("/echo", before=False, times=1)
    async with _system(plan) as system:
        assert await _echo(system, seen).ask(Ping("a")) == "a"

    assert seen == ["a", "a"]
    assert plan.counts == {"crash": 1}


async def test_a_message_that_crashes_the_actor_each_time_fails_its_ask() -> None:
    plan = FaultPlan().crash("/echo", error=ZeroDivisionError)
    async with _system(plan) as system:
        echo = _echo(system)
        with pytest.raises(ActorCrashed) as caught:
            await echo.ask(Ping("a"))

    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert [(letter.message_type, letter.reason) for letter in system.dead_letters] == [("Ping", "crashed")]


@pytest.mark.parametrize("error", [OSError("mine"), lambda: OSError("mine")], ids=["instance", "function"])
async def test_a_crash_raises_the_error_that_was_asked_for(error: Exception) -> None:
    plan = FaultPlan().crash("/echo", error=error, times=1)
    async with _system(plan) as system:
        echo = _echo(system)
        await echo.ask(Ping("a"))

        assert echo.snapshot().last_error == "OSError: mine"


async def test_a_failed_start_is_tried_again() -> None:
    plan = FaultPlan().crash_on_start("/echo", times=2)
    async with _system(plan) as system:
        echo = _echo(system)
        assert await echo.ask(Ping("a")) == "a"

        assert echo.snapshot().restarts == 2
        assert echo.snapshot().last_error is not None
    assert plan.counts == {"crash_on_start": 2}


async def test_a_message_that_hangs_keeps_its_handler_until_it_is_cancelled(
    autojump_clock: MockClock,
) -> None:
    plan = FaultPlan().hang("/echo", times=1)
    async with _system(plan) as system:
        echo = _echo(system, options=ActorOptions(cancel_abandoned=True))
        with pytest.raises(AskTimeout):
            await echo.ask(Ping("a"), timeout=3.0)

        assert await echo.ask(Ping("b"), timeout=3.0) == "b"


@pytest.mark.parametrize(("seconds", "least", "most"), [(2.0, 2.0, 2.0), ((1.0, 3.0), 1.0, 3.0)])
async def test_a_delay_puts_off_the_handling(
    seconds: float, least: float, most: float, autojump_clock: MockClock
) -> None:
    async with _system(FaultPlan(seed=1).delay("/echo", seconds)) as system:
        await _echo(system).ask(Ping("a"))

        assert least <= trio.current_time() <= most + 1e-9


async def test_several_faults_meet_one_message_in_the_order_of_the_rules(autojump_clock: MockClock) -> None:
    plan = FaultPlan().delay("/echo", 1.0).delay("/echo", 2.0).crash("/echo", times=1)
    async with _system(plan) as system:
        await _echo(system).ask(Ping("a"))

        assert trio.current_time() == 6.0  # both delays, a crash, and both again
    assert [(injection.fault, injection.time) for injection in plan.injections] == [
        ("delay", 0.0),
        ("delay", 0.0),
        ("crash", 0.0),
        ("delay", 3.0),
        ("delay", 3.0),
    ]


async def test_a_dropped_message_reaches_nobody_and_its_ask_times_out(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    async with _system(FaultPlan().drop("/echo", times=2)) as system:
        echo = _echo(system, seen)
        echo.tell(Ping("told"))
        with pytest.raises(AskTimeout):
            await echo.ask(Ping("asked"), timeout=5.0)
        await echo.ask(Ping("heard"))

        assert seen == ["heard"]
        assert [(letter.message_type, letter.reason) for letter in system.dead_letters] == [
            ("Ping", "fault"),
            ("Ping", "fault"),
        ]
        counts = echo.snapshot()
        assert (counts.sent, counts.handled, counts.dead_lettered) == (3, 1, 2)


async def test_whoever_asked_by_a_dropped_message_is_told_when_the_actor_ends() -> None:
    async with trio.open_nursery() as nursery, _system(FaultPlan().drop("/echo")) as system:
        echo = _echo(system)

        async def ask_in_vain() -> None:
            with pytest.raises(ActorStopped):
                await echo.ask(Ping("a"))

        nursery.start_soon(ask_in_vain)
        await wait_all_tasks_blocked()


async def test_an_actor_that_has_ended_refuses_messages_also_where_they_would_be_dropped() -> None:
    async with _system(FaultPlan().drop("/echo")) as system:
        echo = _echo(system)
        await echo.stop()

        with pytest.raises(ActorStopped):
            await echo.ask(Ping("a"))


async def test_a_duplicate_is_handled_right_after_the_message_and_its_reply_reaches_nobody() -> None:
    seen: list[str] = []
    async with _system(FaultPlan().duplicate("/echo", times=1)) as system:
        echo = _echo(system, seen)
        echo.tell(Ping("a"))
        assert await echo.ask(Ping("b")) == "b"

        assert seen == ["a", "a", "b"]
        assert echo.snapshot().sent == echo.snapshot().handled == 3


async def test_a_duplicate_that_finds_no_room_is_not_counted_as_injected() -> None:
    plan = FaultPlan().duplicate("/echo")
    async with _system(plan) as system:
        echo = _echo(system, options=ActorOptions(capacity=1))
        await echo.ask(Ping("a"))

        assert echo.snapshot().rejected == 1
    assert plan.counts == {"duplicate": 0}
    assert "never matched" not in str(plan)


async def test_a_message_overtakes_in_its_lane_only(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    plan = FaultPlan().delay("/echo", 1.0, times=1).reorder("/echo", times=1, skip=5)
    async with _system(plan) as system:
        echo = _echo(system, seen)

        async def send(*messages: object) -> None:
            for message in messages:
                echo.tell(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, Ping("first"))
            await wait_all_tasks_blocked()  # in hand, and delayed
            nursery.start_soon(send, Ping("a 1"), Ping("a 2"), Urgent("u"))
            await wait_all_tasks_blocked()
            nursery.start_soon(send, Ping("b 1"), Ping("b 2"))
            await wait_all_tasks_blocked()
        await trio.sleep(2.0)

    assert seen == ["first", "u", "a 1", "a 2", "b 1", "b 2"]
    assert plan.counts["reorder"] == 0  # what came right before it was the sender's own


async def test_a_late_message_may_be_handled_before_earlier_ones_of_others(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    plan = FaultPlan().delay("/echo", 1.0, times=1).reorder("/echo", times=1, skip=3)
    async with _system(plan) as system:
        echo = _echo(system, seen)

        async def send(*texts: str) -> None:
            for text in texts:
                echo.tell(Ping(text))

        async with trio.open_nursery() as nursery:
            for texts in (["first"], ["a 1", "a 2"], ["b 1"]):
                nursery.start_soon(send, *texts)
                await wait_all_tasks_blocked()
        await trio.sleep(2.0)

    assert seen == ["first", "b 1", "a 1", "a 2"]
    assert plan.counts["reorder"] == 1


async def test_a_full_inbox_meets_whoever_sends(autojump_clock: MockClock) -> None:
    seen: list[str] = []
    plan = FaultPlan().fill("/echo", seconds=1.0, times=1)
    async with _system(plan) as system:
        echo = _echo(system, seen, ActorOptions(capacity=3))
        with pytest.raises(InboxFull):
            echo.tell(Ping("refused"))
        await echo.send(Ping("waited"))

        assert trio.current_time() == 1.0
        await echo.ask(Ping("asked"))
        assert seen == ["waited", "asked"]
        assert trio.current_time() == 3.0
        counts = echo.snapshot()
        assert (counts.sent, counts.handled, counts.rejected) == (6, 5, 1)


async def test_an_inbox_can_be_filled_in_part() -> None:
    plan = FaultPlan().fill("/echo", messages=2, times=1)
    async with _system(plan) as system:
        echo = _echo(system, options=ActorOptions(capacity=10))
        await echo.ask(Ping("a"))

        assert echo.snapshot().handled == 3


async def test_system_messages_are_not_kept_out_by_a_full_inbox() -> None:
    plan = FaultPlan().fill("/echo", message=Urgent)
    async with _system(plan) as system:
        assert await _echo(system, options=ActorOptions(capacity=1)).ask(Urgent("u")) == "u"

    assert plan.counts == {"fill": 0}


async def test_actors_that_no_rule_is_about_are_left_alone() -> None:
    plan = FaultPlan().crash("/other").drop("/other/*").crash_on_start("/other")
    async with _system(plan) as system:
        assert await _echo(system).ask(Ping("a")) == "a"

    assert sum(plan.counts.values()) == 0


async def test_a_rule_added_later_applies_from_then_on() -> None:
    plan = FaultPlan()
    async with _system(plan) as system:
        echo = _echo(system, options=ActorOptions(max_deliveries=1))
        await echo.ask(Ping("a"))
        plan.crash("/echo")

        with pytest.raises(ActorCrashed, match="InjectedFault"):
            await echo.ask(Ping("b"))


def test_an_injected_fault_is_told_from_all_others() -> None:
    assert issubclass(InjectedFault, RuntimeError)


class Considerate(Echo):
    """Decides for itself about handlers whose askers have gone."""

    options = ActorOptions(cancel_abandoned=True)

    def on_abandon(self, handler: object) -> None:
        """Go on."""


async def test_a_delayed_message_whose_asker_has_gone_never_reaches_the_actor(
    autojump_clock: MockClock,
) -> None:
    seen: list[str] = []
    async with _system(FaultPlan().delay("/echo", 1.0)) as system:
        echo = system.spawn(Considerate, seen, name="echo")
        with pytest.raises(AskTimeout):
            await echo.ask(Ping("too late"), timeout=0.5)
        await trio.sleep(1.0)

        assert seen == []
        [letter] = system.dead_letters
        assert (letter.message_type, letter.reason) == ("Ping", "abandoned")
        assert echo.snapshot().in_flight == 0
