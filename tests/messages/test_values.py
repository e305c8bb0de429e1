"""What actors say to each other are values: each survives the way to another process and back."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.value_types import (
    NoValueError,
    Sample,
    messages_of_ultra,
    reply_type,
    samples,
    structs_of,
    there_and_back,
)
from ultra import MultiLLMOrchestrator, RetryPolicy
from ultra._support.randomness import seeded
from ultra.actors import ActorOptions, AskResult, Failure, Message, Terminated
from ultra.actors.coordinator.messages import Execute
from ultra.actors.model.messages import Generate
from ultra.actors.runtime.ask_group import _GroupEnvelope
from ultra.actors.runtime.inbox import Inbox
from ultra.actors.runtime.incarnation import Exit
from ultra.actors.runtime.message import Envelope
from ultra.errors.values import ErrorValue
from ultra.messages.events import Event
from ultra.messages.options import RunOptions
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.results import ModelResponse, OrchestrationResult, Step
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool
from ultra.simulation.determinism import run_seeded
from ultra.strategies import BestOf, Stage, Strategy, StrategySpec, Synthesize, Vote
from ultra.strategies.catalog import make_strategy, spec_of
from ultra.strategies.stages import INITIAL
from ultra.supervisor import Backoff, LifecycleEvent, RestartIntensity
from ultra.supervisor.spec import ChildSpec
from ultra.supervisor.supervisor import Environment
from ultra.testing import FakeAnswer, FakeModel

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
# No name here is that of another option.
OPTIONS = st.dictionaries(st.text("abcdef", min_size=1, max_size=5), PLAIN, max_size=2)
ABOVE_0 = st.floats(min_value=0, exclude_min=True)
COUNTS = st.integers(1, 2**64 - 1)
NAMES = st.text("aB1_-", min_size=1, max_size=5)
FINITE = st.floats(allow_nan=False, allow_infinity=False)

SECONDS = st.floats(min_value=0, exclude_min=True, max_value=1e6)

KNOWN: dict[tuple[type, str], Sample] = {
    (RunOptions, "timeout"): st.none() | ABOVE_0,
    (RunOptions, "quorum"): st.just("all") | COUNTS,
    (RunOptions, "grace"): st.none() | st.floats(min_value=0),
    (RunOptions, "max_cost"): st.none() | ABOVE_0,
    (RunOptions, "samples"): COUNTS,
    (SamplingOptions, "temperature"): st.none() | FINITE,
    (SamplingOptions, "top_p"): st.none() | FINITE,
    (SamplingOptions, "max_tokens"): st.none() | COUNTS,
    (SamplingOptions, "extra"): OPTIONS,
    (StrategySpec, "options"): OPTIONS,
    (Tool, "name"): NAMES,
    (Tool, "parameters"): OPTIONS,  # none of these names is "type"
    (ModelResponse, "output"): PLAIN,
    (OrchestrationResult, "plain_output"): PLAIN,
    (JsonSchema, "name"): NAMES,
    (JsonSchema, "schema"): OPTIONS,
    (ErrorValue, "args"): st.lists(PLAIN, max_size=2),
    (ErrorValue, "attributes"): OPTIONS,
    (ErrorValue, "errors"): st.lists(
        st.builds(ErrorValue, module=NAMES, type=NAMES, text=st.text(max_size=5)), max_size=2
    ),
    (ActorOptions, "concurrency"): st.integers(1, 9),
    (ActorOptions, "capacity"): st.integers(10, 2**64 - 1),
    (ActorOptions, "max_deliveries"): COUNTS,
    (ActorOptions, "start_timeout"): SECONDS,
    (ActorOptions, "stop_timeout"): SECONDS,
    (ActorOptions, "grace"): SECONDS,
    (Backoff, "initial"): SECONDS,
    (Backoff, "factor"): st.floats(1, 10),
    (Backoff, "maximum"): SECONDS.map(lambda seconds: 1e6 + seconds),
    (Backoff, "jitter"): st.floats(0, 1),
    (Backoff, "reset_after"): SECONDS,
    (RestartIntensity, "max_restarts"): st.integers(0, 100),
    (RestartIntensity, "within"): SECONDS,
}
"""What these fields take, where their type does not say it."""

MESSAGES = messages_of_ultra()
PARTS = (ModelRequest, RunOptions, StrategySpec, Step)

LIVE: dict[type[Any], str] = {
    Envelope: "carries a message and is none: it has the tasks that wait for the reply",
    _GroupEnvelope: "as above",
    AskResult: "what an ask returns or raises, in the process of the asker",
    Exit: "an argument of a call within the runtime",
    ChildSpec: "what a program tells its own supervisor: it has the factory of the actor",
    Environment: "what the supervisors of one system share: its dead letters, observers, random numbers",
}
"""What the runtime and supervision hold that never leaves the process, and why; see docs/semantics.md."""

OF_THE_RUNTIME = structs_of("ultra.actors.runtime", "ultra.supervisor", "ultra.errors")


def check_values(kind: Any) -> None:
    """Fail unless values of this type arrive in another process as they were sent.

    Raises:
        NoValueError: the type allows what cannot be sent.
    """

    @settings(max_examples=25)
    @given(samples(kind, KNOWN))
    def survives(value: Any) -> None:
        arrived = there_and_back(value, kind)
        assert arrived == value
        assert type(arrived) is type(value)
        # 1 is equal to True, and 1.0; they are not written in the same way.
        assert msgspec.msgpack.encode(arrived) == msgspec.msgpack.encode(value)

    survives()


def test_all_messages_are_found() -> None:
    assert {Execute, Generate} < {*MESSAGES}
    assert [reply_type(message) for message in (Execute, Generate)] == [OrchestrationResult, ModelResponse]


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_arrives_as_it_was_sent(message: type[Message[Any]]) -> None:
    check_values(message)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_reply_to_a_message_arrives_as_it_was_sent(message: type[Message[Any]]) -> None:
    check_values(reply_type(message))


@pytest.mark.parametrize("event", get_args(Event))
def test_an_event_arrives_as_it_was_sent(event: type[Event]) -> None:
    check_values(event)


@pytest.mark.parametrize("kind", OF_THE_RUNTIME)
def test_what_the_runtime_tells_is_a_value_unless_it_is_named_here(kind: type[msgspec.Struct]) -> None:
    if kind in LIVE:
        with pytest.raises((NoValueError, NameError)):  # NameError: a type that its module does not import
            check_values(kind)
    else:
        check_values(kind)


def test_replies_and_events_with_errors_are_among_what_the_runtime_tells() -> None:
    assert {Failure, Terminated, LifecycleEvent, *LIVE} <= {*OF_THE_RUNTIME}


def test_a_result_with_an_output_arrives_with_it_as_plain_values() -> None:
    class Bill(msgspec.Struct):
        total: float

    result = OrchestrationResult(run_id="r", prompt="Q", plain_output={"total": 1.0}).with_output(Bill(1.0))
    assert result.output == result["output"] == Bill(1.0)
    arrived = there_and_back(result, OrchestrationResult)
    assert arrived.output == arrived["output"] == {"total": 1.0}
    assert msgspec.json.decode(msgspec.json.encode(result))["output"] == {"total": 1.0}
    assert arrived == result


def test_an_event_arrives_where_any_event_is_expected() -> None:
    check_values(Event)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_message_arrives_as_it_was_sent(part: type[msgspec.Struct]) -> None:
    check_values(part)


# --- proof that the test sees what it is for ---------------------------------------------------------


class WithCallback(Message[None], frozen=True):
    on_done: Callable[[str], None]


class WithPart(Message[None], frozen=True):
    parts: tuple[WithCallback, ...]


class WithAnything(Message[None], frozen=True):
    payload: Any


class WithError(Message[None], frozen=True):
    error: Exception | None = None


class Drifting(Message[None], frozen=True):
    count: int

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "count", self.count // 2)


class Silent(Message[Any], frozen=True):
    """Does not say what comes back."""


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (WithCallback, "WithCallback.on_done"),
        (WithPart, "WithCallback.on_done"),
        (WithAnything, "WithAnything.payload"),
        (WithError, "WithError.error"),
        (reply_type(Silent), "Any"),
    ],
)
def test_a_message_that_may_hold_what_is_no_value_is_found(message: Any, field: str) -> None:
    with pytest.raises(NoValueError, match=field):
        check_values(message)


def test_a_message_that_arrives_as_another_is_found() -> None:
    with pytest.raises(AssertionError):
        check_values(Drifting)


# --- messages that are sent for real -----------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    [
        Synthesize(),
        Synthesize(stages=("initial", "synthesis")),
        Synthesize(stages=(INITIAL,)),
        Vote(),
        BestOf(),
    ],
)
def test_the_strategy_of_a_run_is_named_by_a_value(strategy: Strategy) -> None:
    spec = spec_of(strategy)
    assert there_and_back(spec, StrategySpec) == spec
    assert make_strategy(there_and_back(spec, StrategySpec)) == strategy


@pytest.mark.parametrize("function", [BestOf(verify=bool), Synthesize(stages=(Stage(name="a", prompt=str),))])
def test_a_strategy_with_functions_is_named_without_them(function: Strategy) -> None:
    spec = spec_of(function)
    assert spec.options == {}
    assert there_and_back(spec, StrategySpec) == spec


@pytest.mark.parametrize("strategy", ["synthesize", "vote", "best_of"])
def test_a_run_whose_messages_travel_goes_as_one_whose_messages_do_not(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def told() -> list[Event]:
        orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(max_retries=1, initial=0))
        orchestrator.register_model(
            "stream", FakeModel(FakeAnswer("to", "ken"), name="stream").fail(after_pieces=1), weight=3
        )
        orchestrator.register_model("other", FakeModel("token", name="other"), weight=2)
        orchestrator.register_model("broken", FakeModel(failures=[RuntimeError("down")] * 9))
        arguments: dict[str, Any] = {"options": {"seed": 7, "key": "value"}, "samples": 2, "timeout": 60}
        async with orchestrator, orchestrator.stream_responses("Q", strategy=strategy, **arguments) as run:
            return [event async for event in run]

    with seeded(Random(1)):
        plain = run_seeded(told, random=Random(1))
    sent: list[type] = []
    put, succeed = Inbox.put, Envelope.succeed

    def put_travelled(self: Inbox, envelope: Envelope, *, may_wait: bool) -> Any:
        sent.append(type(envelope.message))
        envelope.message = there_and_back(envelope.message, type(envelope.message))
        return put(self, envelope, may_wait=may_wait)

    def succeed_travelled(self: Envelope, reply: object) -> None:
        succeed(self, there_and_back(reply, type(reply)))

    monkeypatch.setattr(Inbox, "put", put_travelled)
    monkeypatch.setattr(Envelope, "succeed", succeed_travelled)
    with seeded(Random(1)):
        travelled = run_seeded(told, random=Random(1))

    assert {*sent} == {Execute, Generate}
    assert shape(msgspec.to_builtins(travelled)) == shape(msgspec.to_builtins(plain))


def shape(value: Any) -> Any:
    """Events as plain values, without what is never the same in two runs."""
    match value:
        case dict():
            return {key: shape(item) for key, item in value.items() if key not in ("run_id", "timestamp")}
        case list() | tuple():
            return [shape(item) for item in value]
        case _:
            return value
