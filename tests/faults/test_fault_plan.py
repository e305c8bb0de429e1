"""Rules: what is allowed in a plan, when a rule applies, and what a plan tells of itself."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ultra.actors import Actor, Message
from ultra.actors.coordinator.messages import Execute
from ultra.actors.model.messages import Generate
from ultra.errors import BadCall
from ultra.faults import FAULTS, FaultPlan, FaultyTransport, InjectedFault
from ultra.faults.rules import Fault
from ultra.messages.request import ModelRequest
from ultra.orchestrator.orchestrator import MultiLLMOrchestrator
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

if TYPE_CHECKING:
    from trio.testing import MockClock

MANY = RestartIntensity(1000, within=1.0)
AT_ONCE = Backoff(initial=0.0)


class Ping(Message[str], frozen=True):
    text: str = ""


class Pong(Ping, frozen=True):
    pass


class Staged(Message[str], frozen=True):
    stage: str


class Echo(Actor):
    async def receive(self, message: object) -> object:
        return message


def _kinds_of(fault: type[Fault]) -> list[str]:
    names = [fault.name] if "name" in vars(fault) else []
    return [name for cls in fault.__subclasses__() for name in _kinds_of(cls)] + names


# --- what is not allowed ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 1.5}, "above 0 and up to 1"),
        ({"probability": -0.1}, "above 0 and up to 1"),
        ({"probability": 0}, "above 0 and up to 1"),
        ({"probability": True}, "above 0 and up to 1"),
        ({"probability": float("nan")}, "above 0 and up to 1"),
        ({"times": 0}, "could never apply"),
        ({"times": 1.5}, "could never apply"),
        ({"skip": -1}, "whole number"),
        ({"after": -1.0}, "seconds since"),
        ({"after": float("inf")}, "seconds since"),
        ({"after": 5.0, "until": 5.0}, "could never apply"),
        ({"message": ()}, "matches nothing"),
        ({"message": 3}, "matches nothing"),
        ({"message": ""}, "matches nothing"),
        ({"stage": ""}, "matches nothing"),
        ({"message": Ping, "stage": "initial"}, "such messages have no stage"),
        ({"message": Execute, "stage": "initial"}, "such messages have no stage"),
        ({"seconds": 1.0}, "cannot be added|no setting"),
        ({"error": "text"}, "cannot be raised"),
        ({"error": KeyboardInterrupt}, "cannot be raised"),
    ],
)
def test_a_rule_that_is_not_allowed_or_could_never_apply_is_a_bad_call(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadCall, match=message):
        FaultPlan().add("crash", "/echo", **settings)


@pytest.mark.parametrize("path", ["echo", "", "/", "/a//b", "/a/", "/a**", "/[a", "/[]", "/]a[", 7, None])
def test_a_path_that_no_actor_can_have_is_a_bad_call(path: Any) -> None:
    with pytest.raises(BadCall, match="pattern"):
        FaultPlan().crash(path)


@pytest.mark.parametrize("url", ["", "ftp://x", "api.openai.com", "/v1/*", 7])
def test_a_url_that_no_exchange_can_have_is_a_bad_call(url: Any) -> None:
    with pytest.raises(BadCall, match="pattern"):
        FaultPlan().http_status(url)


@pytest.mark.parametrize(
    ("fault", "target", "settings", "message"),
    [
        ("delay", "/a", {"seconds": -1.0}, "seconds is -1.0"),
        ("delay", "/a", {"seconds": (2.0, 1.0)}, "pair"),
        ("delay", "/a", {"seconds": (1.0, 2.0, 3.0)}, "pair"),
        ("delay", "/a", {"seconds": float("inf")}, "seconds is inf"),
        ("fill", "/a", {"messages": 0}, "1 or more"),
        ("fail_call", "*", {"status": 200}, "no failure"),
        ("fail_call", "*", {"status": 500, "error": ValueError}, "not both"),
        ("fail_call", "*", {"error": ValueError, "retry_after": 1.0}, "together with a status"),
        ("fail_call", "", {}, "model pattern"),
        ("garble_call", "*", {"garbage": "salad"}, "noise, empty, type"),
        ("cut_stream", "*", {"pieces": -1}, "whole number"),
        ("http_status", "*", {"status": 99}, "200 to 599"),
        ("http_disconnect", "*", {"after_bytes": -1}, "0 or more"),
        ("http_slow_body", "*", {"seconds": 1.0, "piece": 0}, "1 or more"),
        ("http_huge_body", "*", {"size": 0}, "1 or more"),
        ("crash", "/a", {"before": "no"}, "True or False"),
        ("fail_call", "*", {"status": 429, "retry_after": "2"}, "seconds, 0 or more"),
        ("fail_call", "*", {"message": Ping}, "no setting 'message'"),
        ("crash_on_start", "/a", {"stage": "meta"}, "no setting 'stage'"),
        ("http_status", "*", {"retry_after": float("inf")}, "seconds, 0 or more"),
        ("http_status", "*", {"body": "text"}, "give bytes"),
        ("http_status", "*", {"stage": "meta"}, "no setting 'stage'"),
        ("http_content_type", "*", {"value": "a\r\nb"}, "text of a header"),
    ],
)
def test_settings_of_each_fault_are_checked(
    fault: str, target: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadCall, match=message):
        FaultPlan().add(fault, target, **settings)


def test_an_unknown_fault_is_a_bad_call_that_names_all_faults() -> None:
    with pytest.raises(BadCall, match=r"unknown fault 'explode'.*crash.*http_huge_body"):
        FaultPlan().add("explode", "/echo")


def test_a_missing_or_unknown_setting_is_a_bad_call() -> None:
    with pytest.raises(BadCall, match="cannot be added"):
        FaultPlan().add("cut_stream", "*")
    with pytest.raises(BadCall, match=r"no setting 'probabilty'; conditions are: .*probability"):
        FaultPlan().crash("/echo", probabilty=0.5)  # type: ignore[call-arg]


def test_every_fault_can_be_added_by_its_name() -> None:
    assert sorted(FAULTS) == sorted(_kinds_of(Fault))


def test_a_rule_behind_one_that_leaves_it_nothing_is_a_bad_call() -> None:
    plan = FaultPlan().crash("/a/*")

    with pytest.raises(BadCall, match=r"could never apply.*'crash /a/\*'"):
        plan.hang("/a/*", message=Ping)
    with pytest.raises(BadCall, match=r"'hang /a/b' could never apply"):
        plan.hang("/a/b")
    plan.hang("/a/b/c")
    plan.hang("/?/b")  # also of other actors than those of the first rule
    with pytest.raises(BadCall, match="'hang_call llama' could never apply"):
        FaultPlan().fail_call("l*").hang_call("llama")


@pytest.mark.parametrize(
    "first",
    [
        {"times": 1},
        {"probability": 0.5},
        {"skip": 1},
        {"message": Pong},
        {"after": 1.0},
        {"until": 9.0},
        {"before": False},
    ],
)
def test_a_rule_behind_one_that_leaves_it_something_is_allowed(first: dict[str, Any]) -> None:
    plan = FaultPlan().crash("/a", **first).hang("/a", message=Ping)

    assert len(plan.rules) == 2


@pytest.mark.parametrize("plan", ["crash", FaultPlan, object()])
def test_what_is_no_plan_is_a_bad_call_wherever_one_is_given(plan: Any) -> None:
    with pytest.raises(BadCall, match=r"must be an ultra\.faults\.FaultPlan"):
        MultiLLMOrchestrator(faults=plan)
    with pytest.raises(BadCall, match=r"must be an ultra\.faults\.FaultPlan"):
        ActorSystem(faults=plan)
    with pytest.raises(BadCall, match="must be a FaultPlan"):
        FaultyTransport(plan)


def test_a_transport_that_is_none_is_a_bad_call() -> None:
    with pytest.raises(BadCall, match="for async clients"):
        FaultyTransport(FaultPlan(), httpx.HTTPTransport())  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 1.5, "x", True])
def test_a_seed_that_is_no_whole_number_is_a_bad_call(seed: Any) -> None:
    with pytest.raises(BadCall, match="seed="):
        FaultPlan(seed)


# --- when a rule applies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/echo", "/echo", True),
        ("/echo", "/echo/x", False),
        ("/models/*/actor", "/models/llama/actor", True),
        ("/models/*/actor", "/models/actor", False),
        ("/models/*/actor", "/models/a/b/actor", False),
        ("/models/open*", "/models/openai:gpt", True),
        ("/*/a?", "/x/ab", True),
        ("/**", "/a/b/c", True),
        ("/a/**/z", "/a/z", True),
        ("/a/**/z", "/a/b/c/z", True),
        ("/a/**/z", "/a/b/c", False),
        ("/[ab]", "/b", True),
    ],
)
def test_a_path_pattern_matches_names_one_by_one(pattern: str, path: str, expected: bool) -> None:  # noqa: FBT001
    rule = FaultPlan().crash(pattern).rules[0]

    assert rule.matches_target(path) is expected


@pytest.mark.parametrize(
    ("message", "matching"),
    [
        (Ping, [Ping(), Pong()]),
        (Pong, [Pong()]),
        ("P*", [Ping(), Pong()]),
        ("Pong", [Pong()]),
        ((Pong, "Staged"), [Pong(), Staged("meta")]),
    ],
)
def test_a_rule_can_be_about_some_messages(message: Any, matching: list[object]) -> None:
    rule = FaultPlan().crash("/echo", message=message).rules[0]
    assert rule.matches_message is not None

    assert [other for other in (Ping(), Pong(), Staged("meta")) if rule.matches_message(other)] == matching


def test_a_rule_can_be_about_a_stage() -> None:
    rule = FaultPlan().crash("/echo", stage="met*").rules[0]
    assert rule.matches_message is not None

    assert rule.matches_message(Staged("meta"))
    assert rule.matches_message(Generate(id="1", stage="meta", request=ModelRequest.of("x")))
    assert not rule.matches_message(Staged("initial"))
    assert not rule.matches_message(Ping())


def test_times_and_skip_count_matches() -> None:
    rule = FaultPlan().crash("/echo", times=2, skip=1).rules[0]

    assert [rule.fires(float) for _ in range(5)] == [False, True, True, False, False]


def test_a_window_opens_and_closes() -> None:
    rule = FaultPlan().crash("/echo", after=1.0, until=2.0).rules[0]

    assert [rule.fires(lambda now=now: now) for now in (0.9, 1.0, 1.9, 2.0)] == [False, True, True, False]  # type: ignore[misc]


def test_equal_seeds_give_equal_chances_and_other_rules_do_not_change_them() -> None:
    def chances(plan: FaultPlan) -> list[bool]:
        return [plan.rules[0].fires(float) for _ in range(100)]

    alone = chances(FaultPlan(7).crash("/echo", probability=0.5))
    with_others = FaultPlan(7).crash("/echo", probability=0.5).drop("/echo", probability=0.5)
    with_others.rules[1].fires(float)

    assert chances(with_others) == alone
    assert chances(FaultPlan(8).crash("/echo", probability=0.5)) != alone
    assert 25 < sum(alone) < 75


# --- what a plan tells -----------------------------------------------------------------------------


async def test_a_plan_prints_its_seed_its_rules_and_what_it_did(autojump_clock: MockClock) -> None:
    plan = FaultPlan(seed=7).crash("/echo", message=Ping, times=1, skip=1).drop("/nobody")
    async with ActorSystem(faults=plan, intensity=MANY) as system:
        echo = system.spawn(Echo, name="echo", backoff=AT_ONCE)
        await echo.ask(Ping("the text of the message"))
        await trio.sleep(2.5)
        await echo.ask(Ping("the text of the message"))

    assert str(plan).splitlines() == [
        "FaultPlan(seed=7): 1 fault injected",
        "  1. crash /echo times=1 skip=1 message=Ping: 1 time, of 2 matches",
        "  2. drop /nobody: never matched",
        "       2.500 s  crash  /echo  Ping",
    ]
    assert plan.counts == {"crash": 1, "drop": 0}
    assert repr(plan) == "FaultPlan(seed=7) <2 rules>"


async def test_a_plan_in_use_logs_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    plan = FaultPlan(seed=7).crash("/echo", error=InjectedFault)
    for _ in range(2):
        async with ActorSystem(faults=plan):
            pass

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "fault injection is on" in warnings[0]
    assert "seed=7" in warnings[0]
    assert "crash /echo" in warnings[0]


async def test_injections_can_be_observed_as_they_are_made() -> None:
    plan = FaultPlan(seed=1).delay("/echo", 0.0)
    seen = []
    async with ActorSystem(faults=plan) as system:
        echo = system.spawn(Echo, name="echo")
        with plan.observe(lambda injection: seen.append((injection.fault, injection.message))):
            await echo.ask("seen")
        await echo.ask("unseen")

    assert seen == [("delay", "seen")]


def test_a_seed_is_chosen_where_none_is_given() -> None:
    assert FaultPlan().seed != FaultPlan().seed
