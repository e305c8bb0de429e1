"""What runs cost: every call counts, whatever became of it, and the sum is that of what the result shows."""

from __future__ import annotations

from math import fsum
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.provider_calls import fail
from helpers.run_events import read_all
from ultra import AllAttemptsFailed, ModelError, MultiLLMOrchestrator, RetryPolicy, Timeouts, Usage
from ultra.actors.model.hedging import Hedge
from ultra.clients.pricing import Price
from ultra.faults.provider import Failure, Reply, simulated_provider
from ultra.messages.events import ModelFailed, ModelRetrying
from ultra.messages.results import Completion
from ultra.strategies import Vote
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from ultra.messages.request import ModelRequest
    from ultra.messages.results import OrchestrationResult

PRICE = Price(input=1_000_000, output=1_000_000)
"""A dollar a token."""

USED = Usage(input=3, output=2)
"""Five dollars."""

ONCE = RetryPolicy(max_retries=0)
TWICE = RetryPolicy(max_retries=1, initial=0)


def broken(**fields: Any) -> ModelError:
    return ModelError("it broke off", usage=USED, **fields)


def shown(result: OrchestrationResult) -> float:
    """The sum of the costs that the result shows."""
    costs = [response.cost for step in result.steps for response in step.responses]
    costs += [*(failure.cost for failure in result.failures), result.other_cost]
    return fsum(cost for cost in costs if cost is not None)


def assert_all_counted(result: OrchestrationResult, dollars: float) -> None:
    assert result.cost == pytest.approx(dollars)
    assert shown(result) == pytest.approx(dollars)
    assert fsum(metrics.cost or 0.0 for metrics in result.metrics.values()) == pytest.approx(dollars)


class HangingStream:
    """A stream that has counted something, says a word, and hangs."""

    def __init__(self, text: str) -> None:
        self.usage: Usage | None = None
        self._text = text
        self._said = False

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        if self._said:
            await trio.sleep_forever()
        self._said = True
        self.usage = USED
        return self._text


class Hanging:
    """A client that never gets to the end of its answer."""

    text = "Well, "

    async def respond(self, request: ModelRequest) -> Completion:
        raise NotImplementedError

    def stream_response(self, request: ModelRequest) -> HangingStream:
        return HangingStream(self.text)


class Silent(Hanging):
    """A client that gives no more than a sign of life."""

    text = ""


def orchestrator_of(*clients: object, **settings: Any) -> MultiLLMOrchestrator:
    """An orchestrator with models a, b, ... at the price above."""
    orchestrator = MultiLLMOrchestrator(**{"retry": ONCE, **settings})
    for name, client in zip("abcd", clients, strict=False):
        orchestrator.register_model(name, client, price=PRICE)
    return orchestrator


async def streamed(orchestrator: MultiLLMOrchestrator, **arguments: Any) -> tuple[Any, OrchestrationResult]:
    """The events of a run, and its result."""
    async with orchestrator, orchestrator.stream_responses("Q", **arguments) as run:
        return await read_all(run), await run.result()


@pytest.mark.parametrize("listened", [False, True])
async def test_a_failed_attempt_is_a_part_of_what_the_answer_costs(*, listened: bool) -> None:
    model = FakeModel("yes", usage=USED, failures=[broken()])
    orchestrator = orchestrator_of(model, retry=TWICE)
    if listened:
        events, result = await streamed(orchestrator, stages=["initial"])
        (retry,) = [event for event in events if isinstance(event, ModelRetrying)]
        assert (retry.usage, retry.cost) == (USED, 5)
    else:
        result = await orchestrator.process_responses("Q", stages=["initial"])

    response = result.initial_responses["a"]
    assert (response.usage, response.lost_usage, response.cost) == (USED, USED, 10)
    assert_all_counted(result, 10)
    assert (result.metrics["a"].input_tokens, result.metrics["a"].output_tokens) == (6, 4)


async def test_what_a_model_that_fails_has_cost_stands_in_its_failure_and_in_the_error() -> None:
    def failing() -> FakeModel:
        return FakeModel(failures=[broken(), broken(kind="content", retryable=False)])

    events, result = await streamed(
        orchestrator_of(failing(), FakeModel("yes", usage=USED), retry=TWICE), stages=["initial"]
    )
    (failure,) = result.failures
    assert (failure.usage, failure.cost) == (Usage(input=6, output=4), 10)
    assert [event.failure for event in events if isinstance(event, ModelFailed)] == [failure]
    assert_all_counted(result, 15)

    with pytest.raises(AllAttemptsFailed) as caught:
        await orchestrator_of(failing(), retry=TWICE).get_model_response("a", "Q")
    assert (caught.value.usage, caught.value.cost) == (Usage(input=6, output=4), 10)


@pytest.mark.parametrize("reason", ["length", "refusal", "content_filter"])
async def test_what_empty_and_refused_answers_cost_ends_a_run_with_a_limit(reason: Any) -> None:
    refusing = FakeModel(FakeAnswer(usage=USED, finish_reason=reason))
    good = FakeModel("yes", usage=Usage(input=0, output=0))

    other = FakeModel("no", usage=Usage(input=0, output=0))
    result = await orchestrator_of(refusing, good, other, max_cost=5.0).process_responses("Q")

    assert not result.meta_responses
    assert "was left out" in result.notices[0]
    assert result.failures[0].cost == 5


async def test_a_model_that_the_run_gives_up_costs_what_was_counted_until_then(
    autojump_clock: MockClock,
) -> None:
    events, result = await streamed(
        orchestrator_of(Hanging(), FakeModel("yes", usage=USED)), stages=["initial"], timeout=5
    )
    (failure,) = result.failures
    assert (failure.error, failure.usage, failure.cost) == ("DeadlineExceeded", USED, 5)
    assert [event.failure.cost for event in events if isinstance(event, ModelFailed)] == [5]
    assert (result.cost, shown(result)) == (10, 10)


async def test_a_straggler_after_the_grace_costs_what_was_counted(autojump_clock: MockClock) -> None:
    orchestrator = orchestrator_of(Hanging(), FakeModel("yes", usage=USED))
    _, result = await streamed(orchestrator, stages=["initial"], grace=1)
    assert (result.failures[0].cost, result.cost, shown(result)) == (5, 10, 10)
    assert orchestrator.get_metrics()["a"].cost == 5  # the call has ended, and counted


async def test_a_call_that_became_needless_costs_what_was_counted(autojump_clock: MockClock) -> None:
    sure = [FakeModel("The answer is 4.", usage=USED, seconds=1) for _ in range(2)]
    _, result = await streamed(orchestrator_of(*sure, Hanging()), strategy=Vote(at_once=True))
    assert not result.failures
    assert (result.other_cost, result.cost, shown(result)) == (5, 15, 15)


async def test_an_attempt_that_takes_too_long_costs_what_was_counted(autojump_clock: MockClock) -> None:
    orchestrator = orchestrator_of(Hanging(), retry=TWICE, timeouts=Timeouts(attempt=2))
    async with orchestrator, orchestrator.stream_responses("Q", stages=["initial"]) as run:
        events = await read_all(run)
        with pytest.raises(Exception, match="needs"):
            await run.result()
    (failure,) = [event.failure for event in events if isinstance(event, ModelFailed)]
    assert (failure.attempts, failure.usage, failure.cost) == (2, Usage(input=6, output=4), 10)
    assert orchestrator.get_metrics()["a"].cost == 10


async def test_a_hedge_that_loses_in_the_middle_of_its_stream_counts(autojump_clock: MockClock) -> None:
    orchestrator = MultiLLMOrchestrator(retry=ONCE)
    orchestrator.register_model(
        "a", [Silent(), FakeModel("yes", usage=USED)], price=PRICE, hedge=Hedge(after=1)
    )
    _, result = await streamed(orchestrator, stages=["initial"])

    response = result.initial_responses["a"]
    assert (response.usage, response.lost_usage) == (USED, USED)
    assert_all_counted(result, 10)
    assert result.metrics["a"].hedges_won == 1


@pytest.mark.parametrize("fails", [False, True])
async def test_what_the_judge_costs_counts_when_it_fails_too(*, fails: bool) -> None:
    judge = FakeModel("A: 9", usage=USED, failures=[broken(retryable=False)] if fails else [])
    orchestrator = MultiLLMOrchestrator(judge="judge", retry=ONCE)
    orchestrator.register_model("a", FakeModel("yes", usage=USED), price=PRICE)
    orchestrator.register_model("judge", judge, price=PRICE)

    result = await orchestrator.process_responses("Q", stages=["initial"], models=["a"])

    assert (result.other_cost, result.cost, shown(result)) == (5, 10, 10)


async def test_a_price_that_is_not_known_is_none_and_not_0() -> None:
    orchestrator = MultiLLMOrchestrator(retry=TWICE)
    orchestrator.register_model("a", FakeModel("yes", usage=USED, failures=[broken()]))
    result = await orchestrator.process_responses("Q", stages=["initial"])

    response = result.initial_responses["a"]
    assert (result.cost, result.other_cost, response.cost, result.metrics["a"].cost) == (None,) * 4
    assert response.lost_usage == USED
    assert result.metrics["a"].input_tokens == 6


async def test_an_attempt_of_which_nothing_was_counted_has_no_cost() -> None:
    failing = FakeModel(failures=[ModelError("gone"), ModelError("gone", usage="many")])
    result = await orchestrator_of(failing, FakeModel("yes", usage=USED), retry=TWICE).process_responses(
        "Q", stages=["initial"]
    )
    assert (result.failures[0].usage, result.failures[0].cost) == (None, None)
    assert_all_counted(result, 5)


@pytest.mark.parametrize(("protocol", "counts"), [("anthropic", True), ("gemini", True), ("openai", False)])
async def test_a_provider_that_breaks_off_a_stream_has_counted_the_prompt(
    protocol: str, *, counts: bool
) -> None:
    reply = Reply(("Well,", " then"), failure=Failure("overloaded"))
    async with simulated_provider() as provider:
        provider.script(reply)
        error, heard = await fail(provider, protocol, stream=True)
    assert heard == "Well, then"
    assert (isinstance(error.usage, Usage) and bool(error.usage.input)) is counts
