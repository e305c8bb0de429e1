"""The tools of a run: whose calls they are by each policy, plain and streamed, on trio and asyncio."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from helpers.event_loops import on_every_loop
from helpers.run_events import assert_well_formed, orchestrator_of, read_all
from ultra import (
    Answer,
    BadCall,
    ChatMessage,
    Completion,
    ModelError,
    MultiLLMOrchestrator,
    OrchestrationResult,
    Price,
    QuorumNotReached,
    ToolCall,
    Usage,
)
from ultra.clients.catalog import ModelInfo
from ultra.messages.events import ModelResponded, StageStarted, ToolsCalled
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from ultra import RunContext
    from ultra.messages.request import ModelRequest

NO_TOOLS = ModelInfo(tools=False)
PARIS = {"city": "Paris"}


def weather(city: str) -> str:
    """Return the weather of a city."""
    return f"sunny in {city}"


def caller(name: str, tool: str = "weather", **fields: Any) -> FakeModel:
    """A model that calls a tool when it has some, and else says its name."""

    def answer(request: ModelRequest) -> Any:
        return FakeAnswer.calling(tool, **PARIS) if request.tools else f"{name} answers"

    return FakeModel(answer, name=name, **fields)


def talker(name: str, **fields: Any) -> FakeModel:
    """A model that never calls a tool."""
    return FakeModel(f"{name} answers", name=name, **fields)


def tools_given(model: FakeModel) -> list[bool]:
    return [bool(call.request.tools) for call in model.calls]


async def ask(
    orchestrator: MultiLLMOrchestrator, prompt: Any = "Weather?", *, streamed: bool = False, **run: Any
) -> OrchestrationResult:
    run.setdefault("tools", [weather])
    if not streamed:
        return await orchestrator.process_responses(prompt, **run)
    async with orchestrator.stream_responses(prompt, **run) as stream:
        events = await read_all(stream)
        assert_well_formed(events)
        result = await stream.result()
    told = [event for event in events if isinstance(event, ToolsCalled)]
    assert [event.calls for event in told] == ([result.tool_calls] if result.tool_calls else [])
    return result


# --- primary -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@on_every_loop
async def test_the_calls_of_the_primary_are_those_of_the_run_and_no_other_model_is_asked(
    *,
    streamed: bool,
) -> None:
    a, b = caller("a"), caller("b")
    result = await ask(orchestrator_of(a, b), streamed=streamed)

    (call,) = result.tool_calls
    assert (call.name, call.arguments) == ("weather", '{"city":"Paris"}')
    assert result.synthesis_source == "tool_calls"
    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "a"
    assert result.final_synthesis.message.tool_calls == result.tool_calls
    assert [step.name for step in result.steps] == ["tools"]
    assert (result.status, result.confidence, result.notices) == ("success", None, [])
    assert (len(a.calls), len(b.calls)) == (1, 0)
    assert "calls weather" in str(result)
    assert msgspec.json.decode(msgspec.json.encode(result), type=OrchestrationResult) == result


@pytest.mark.parametrize("streamed", [False, True])
@on_every_loop
async def test_a_primary_that_calls_none_is_not_asked_again_and_the_others_have_no_tools(
    *,
    streamed: bool,
) -> None:
    a, b = talker("a"), caller("b")
    result = await ask(orchestrator_of(a, b), streamed=streamed, stages=["initial"])

    assert result.tool_calls == ()
    assert {name: str(answer) for name, answer in result["initial_responses"].items()} == {
        "a": "a answers",
        "b": "b answers",
    }
    assert (tools_given(a), tools_given(b)) == ([True], [False])
    assert result["initial_responses"]["a"].cached
    assert result.status == "success"


@on_every_loop
async def test_readers_have_no_tools() -> None:
    a, b = talker("a"), talker("b")
    result = await ask(orchestrator_of(a, b))

    assert tools_given(a) == [True, False, False]  # then meta and synthesis
    assert tools_given(b) == [False, False]
    assert result.synthesis_source == "primary"


async def test_the_answer_of_the_primary_is_paid_once() -> None:
    orchestrator = MultiLLMOrchestrator(max_retries=0, cache_enabled=False)
    paid = talker("a", usage=Usage(1_000_000, 1))
    orchestrator.register_model("a", paid, price=Price(input=1.0, output=1.0))
    result = await ask(orchestrator, stages=["initial"])

    assert result.cost == pytest.approx(1.0, abs=0.01)
    assert len(result.metrics["a"].response_times) == 1


async def test_an_answer_that_used_up_the_budget_stands() -> None:
    orchestrator = MultiLLMOrchestrator(cache_enabled=False)
    for name in ("a", "b"):
        model = talker(name, usage=Usage(1_000_000, 1))
        orchestrator.register_model(name, model, price=Price(input=1.0, output=1.0))
    result = await ask(orchestrator, max_cost=0.5)

    assert str(result.final_synthesis) == "a answers"
    assert list(result["initial_responses"]) == ["a"]
    assert result.status == "degraded"


@on_every_loop
async def test_the_next_model_that_can_has_the_tools_where_the_primary_fails() -> None:
    a = FakeModel(name="a", failures=[ModelError("down", kind="auth", retryable=False)])
    b, c = FakeModel(name="b", info=NO_TOOLS), caller("c")
    result = await ask(orchestrator_of(a, b, c))

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "c"
    assert [failure.model_name for failure in result.failures] == ["a"]
    assert result.status == "degraded"
    assert b.calls == []


async def test_a_primary_that_hangs_leaves_time_to_the_next_and_to_the_answers(
    autojump_clock: object,
) -> None:
    a, b = FakeModel(name="a", seconds=math.inf), talker("b")
    result = await ask(orchestrator_of(a, b), timeout=40, stages=["initial"])

    assert str(result["initial_responses"]["b"]) == "b answers"
    assert len(a.calls) == 1  # it is not asked again
    assert result.response_time == pytest.approx(10.0)


async def test_models_known_to_take_no_tools_are_never_offered_any() -> None:
    a, b = talker("a", info=NO_TOOLS), talker("b")
    await ask(orchestrator_of(a, b), stages=["initial"])

    assert (tools_given(a), tools_given(b)) == ([False], [True])


async def test_a_primary_can_be_named() -> None:
    a, b = caller("a"), caller("b")
    result = await ask(orchestrator_of(a, b), primary="b")

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert a.calls == []


async def test_a_call_of_an_unknown_tool_and_broken_arguments_are_passed_on_and_told() -> None:
    unknown = await ask(orchestrator_of(caller("a", "stocks")))
    broken = FakeAnswer(tool_calls=(ToolCall("1", "weather", '{"city": '),))
    told = await ask(orchestrator_of(FakeModel(broken, name="a")))

    assert [call.name for call in unknown.tool_calls] == ["stocks"]
    assert "'a' calls 'stocks', which is none of the tools: weather" in unknown.notices
    assert [call.arguments for call in told.tool_calls] == ['{"city": ']
    assert "the arguments with which 'a' calls 'weather' are no JSON object" in told.notices
    assert (unknown.status, told.status) == ("degraded", "degraded")


async def test_calls_that_were_cut_off_are_not_made_and_the_next_model_is_asked() -> None:
    call = ToolCall("1", "weather", '{"city": "Pa')
    a = FakeModel(FakeAnswer(tool_calls=(call,), finish_reason="length"), name="a")
    result = await ask(orchestrator_of(a, caller("b")))

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert "may be broken" in result.notices[0]


async def test_ids_that_are_missing_or_taken_are_made_and_others_stay() -> None:
    calls = (
        ToolCall("x", "weather"),
        ToolCall("x", "weather"),
        ToolCall("", "weather"),
        ToolCall("7", "weather"),
    )
    result = await ask(
        orchestrator_of(FakeModel(FakeAnswer(tool_calls=calls), name="a")),
        [
            ChatMessage("user", "Weather?"),
            ChatMessage("assistant", tool_calls=(ToolCall("7", "weather"),)),
            ChatMessage("tool", "sunny", tool_call_id="7"),
        ],
    )

    assert [call.id for call in result.tool_calls] == ["x", "x_2", "call_2", "7_2"]


async def test_an_answer_that_only_calls_a_tool_is_kept_in_the_cache() -> None:
    a = caller("a")
    orchestrator = orchestrator_of(a)
    first, second = await ask(orchestrator), await ask(orchestrator)

    assert len(a.calls) == 1
    assert second.tool_calls == first.tool_calls
    assert second.steps[0].responses[0].cached


# --- a conversation that goes on ---------------------------------------------------------------------

TURNS = [
    ChatMessage("user", "Weather?"),
    ChatMessage("assistant", "I look.", tool_calls=(ToolCall("7", "weather", '{"city":"Paris"}'),)),
    ChatMessage("tool", "sunny", tool_call_id="7", name="weather"),
]


async def test_results_go_to_the_primary_as_they_are_and_to_models_without_tools_in_words() -> None:
    a, b = talker("a"), talker("b")
    result = await ask(orchestrator_of(a, b), TURNS, stages=["initial"])

    assert list(a.calls[0].request.messages) == TURNS
    (told,) = b.calls[0].request.messages
    assert told == ChatMessage(
        "user",
        "Weather?\n\n[Tools were called for this. The calls, and what they gave:]\n"
        'I look.\nweather({"city":"Paris"})\nweather gave:\nsunny',
    )
    assert result.prompt == "Weather?"
    assert "the results of the tools go to 'a', the model of highest weight" in result.notices[0]
    assert result.status == "success"


async def test_who_names_the_primary_needs_no_notice() -> None:
    result = await ask(orchestrator_of(talker("a"), talker("b")), TURNS, primary="b", stages=["initial"])

    assert result.notices == []


# --- vote --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@on_every_loop
async def test_calls_of_a_majority_are_those_of_the_run(*, streamed: bool) -> None:
    models = caller("a", "stocks"), caller("b"), caller("c"), talker("d", info=NO_TOOLS)
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    for model in models:
        orchestrator.register_model(model.name, model)
    result = await ask(orchestrator, streamed=streamed, tool_policy="vote")

    assert [call.name for call in result.tool_calls] == ["weather"]
    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert result.confidence == pytest.approx(2 / 3)
    assert result.confidence_basis == "votes"
    assert [len(response.tool_calls) for response in result.steps[0].responses] == [1, 1, 1]
    assert models[3].calls == []


@on_every_loop
async def test_where_most_call_no_tool_the_ensemble_answers_from_what_they_wrote() -> None:
    a, b, c = talker("a"), caller("b"), talker("c")
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    for model in (a, b, c):
        orchestrator.register_model(model.name, model)
    result = await ask(orchestrator, tool_policy="vote", stages=["initial"])

    assert result.tool_calls == ()
    assert [str(answer) for answer in result["initial_responses"].values()] == [
        "a answers",
        "b answers",
        "c answers",
    ]
    assert [tools_given(model) for model in (a, b, c)] == [[True], [True, False], [True]]


async def test_a_vote_goes_on_without_those_that_fail() -> None:
    broken = FakeModel(name="a", failures=[ModelError("down", kind="auth", retryable=False)])
    result = await ask(orchestrator_of(broken, caller("b"), caller("c")), tool_policy="vote")

    assert len(result.tool_calls) == 1
    assert result.status == "degraded"


async def test_a_quorum_of_all_counts_in_the_vote() -> None:
    broken = FakeModel(name="a", failures=[ModelError("down", kind="auth", retryable=False)])
    with pytest.raises(QuorumNotReached):
        await ask(orchestrator_of(broken, caller("b")), tool_policy="vote", quorum="all")


# --- judge and refuse --------------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [False, True])
@on_every_loop
async def test_the_writer_of_the_synthesis_has_the_tools_and_nobody_else(*, streamed: bool) -> None:
    a, b = caller("a"), caller("b")
    result = await ask(orchestrator_of(a, b), streamed=streamed, tool_policy="judge")

    assert [call.name for call in result.tool_calls] == ["weather"]
    assert result.synthesis_source == "tool_calls"
    assert tools_given(a) == [False, False, True]
    assert tools_given(b) == [False, False]
    assert result.status == "success"


async def test_a_synthesis_that_calls_none_is_the_answer() -> None:
    result = await ask(orchestrator_of(talker("a"), talker("b")), tool_policy="judge")

    assert result.synthesis_source == "primary"
    assert result.notices == []


async def test_it_is_told_where_nobody_writes_a_synthesis_who_could_have_the_tools() -> None:
    result = await ask(orchestrator_of(talker("a")), tool_policy="judge", stages=["initial"])

    assert "no tool was offered: no model that can call tools wrote a synthesis" in result.notices


async def test_refuse_refuses_before_any_call() -> None:
    a = caller("a")
    with pytest.raises(BadCall, match="tool_policy is 'refuse', and the run has tools"):
        await ask(orchestrator_of(a), tool_policy="refuse")
    assert a.calls == []


# --- tool_choice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["primary", "vote", "judge"])
async def test_with_the_choice_none_no_tool_is_offered(policy: Any) -> None:
    a = caller("a")
    result = await ask(orchestrator_of(a), tool_choice="none", tool_policy=policy)

    assert not any(tools_given(a))
    assert str(result.final_synthesis) == "a answers"


async def test_who_does_not_call_what_must_be_called_is_passed_over() -> None:
    a, b = talker("a"), caller("b")
    result = await ask(orchestrator_of(a, b), tool_choice="required")

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"


@pytest.mark.parametrize("policy", ["primary", "vote", "judge"])
async def test_where_no_model_calls_what_must_be_called_the_run_is_degraded(policy: Any) -> None:
    a, b = talker("a"), talker("b")
    result = await ask(orchestrator_of(a, b), tool_choice="weather", tool_policy=policy)

    assert result.status == "degraded"
    assert any(notice.startswith("tool_choice is 'weather'") for notice in result.notices)
    assert result.final_synthesis is not None
    assert tools_given(a).count(True) == 1  # nobody is asked twice


# --- who can -----------------------------------------------------------------------------------------


async def test_a_run_with_tools_of_models_that_can_take_none_is_refused_before_any_call() -> None:
    a, b = talker("a", info=NO_TOOLS), talker("b", info=NO_TOOLS)
    orchestrator = orchestrator_of(a, b)
    with pytest.raises(BadCall, match=r"no model of this run \(a, b\) can take tools; ask a model"):
        await ask(orchestrator)
    with pytest.raises(BadCall, match="primary is 'z'; it must be one of the models that are asked: a, b"):
        await ask(orchestrator, primary="z")
    with pytest.raises(BadCall, match="primary is of type int"):
        await ask(orchestrator, primary=1)
    assert a.calls == b.calls == []


async def test_a_named_primary_must_be_able_to_take_tools() -> None:
    orchestrator = orchestrator_of(talker("a", info=NO_TOOLS), talker("b"))
    with pytest.raises(BadCall, match="'a' cannot take tools"):
        await ask(orchestrator, primary="a")


class Declaring:
    """A client as the guide has them, which declares tools where it answers as a whole, not in its stream."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    async def generate(self, prompt: str, *, tools: Any = None) -> Completion:
        self.given.append(tools)
        return Completion(prompt, tool_calls=(ToolCall("1", "weather"),) if tools else ())

    async def stream(self, prompt: str) -> Any:
        yield prompt


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_declares_tools_gets_them_plain_and_streamed(*, streamed: bool) -> None:
    client = Declaring()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("plain", lambda prompt: prompt, weight=2.0)
    orchestrator.register_model("declaring", client)
    result = await ask(orchestrator, streamed=streamed)

    assert [call.name for call in result.tool_calls] == ["weather"]
    assert client.given[0][0]["function"]["name"] == "weather"


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_only_calls_what_it_was_not_given_has_failed(*, streamed: bool) -> None:
    stray = FakeModel(FakeAnswer.calling("weather"), name="a")
    result = await ask(orchestrator_of(stray, talker("b")), streamed=streamed, tools=None)

    assert list(result["initial_responses"]) == ["b"]
    assert "has no text, but calls 'weather', and no tool was offered" in result.failures[0].message
    assert result.tool_calls == ()


async def test_the_grace_counts_from_an_answer_that_was_there_before(autojump_clock: object) -> None:
    a, b = talker("a"), FakeModel(name="b", seconds=math.inf)
    result = await ask(orchestrator_of(a, b), grace=2, stages=["initial"])

    assert list(result["initial_responses"]) == ["a"]
    assert result.response_time == pytest.approx(2.0)


async def test_a_reader_that_refuses_its_prompt_for_its_length_keeps_the_tools() -> None:
    def answer(request: ModelRequest) -> Any:
        if not request.tools:
            return " ".join(f"word{n}" for n in range(4000))
        if len(a.calls) == 2:
            return ModelError("prompt is too long", kind="bad_request", retryable=False)
        return FakeAnswer.calling("weather", **PARIS)

    a = FakeModel(answer, name="a")
    result = await ask(orchestrator_of(a), tool_policy="judge", stages=["initial", "synthesis"])

    assert tools_given(a) == [False, True, True]
    assert len(result.tool_calls) == 1


async def test_samples_are_asked_without_tools_but_for_the_one_that_is_there() -> None:
    a = talker("a")
    result = await ask(orchestrator_of(a), samples=3, stages=["initial"])

    assert tools_given(a) == [True, False, False]
    assert sorted(response.sample for response in result.steps[1].responses) == [0, 1, 2]


class Refined(MultiLLMOrchestrator):
    """A class whose own method is what every run goes through."""

    async def process_responses(self, prompt: Any, *args: Any, **run: Any) -> OrchestrationResult:
        result = await super().process_responses(prompt, *args, **run)
        result.notices.append("refined")
        return result


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_overridden_process_responses_has_the_tools(*, streamed: bool) -> None:
    orchestrator = Refined()
    orchestrator.register_model("a", caller("a"))
    result = await ask(orchestrator, streamed=streamed)

    assert len(result.tool_calls) == 1
    assert result.notices == ["refined"]


async def test_a_strategy_of_the_callers_own_knows_nothing_of_tools() -> None:
    class Longest:
        async def run(self, context: RunContext) -> Answer:
            assert context.request.tools == ()
            with context.step("initial"):
                answers = [await context.ask(model, context.request) for model in context.models]
            return Answer(max(answers, key=lambda answer: len(answer.content)), "selected")

    a, b = talker("a"), FakeModel("b has more to say", name="b")
    result = await ask(orchestrator_of(a, b), strategy=Longest())

    assert str(result.final_synthesis) == "b has more to say"
    assert (tools_given(a), tools_given(b)) == ([True], [False])
    called = await ask(orchestrator_of(caller("a")), strategy=Longest())
    assert len(called.tool_calls) == 1


async def test_events_tell_of_both_steps() -> None:
    async with orchestrator_of(talker("a"), talker("b")).stream_responses(
        "Weather?", ["initial"], tools=[weather]
    ) as run:
        events = await read_all(run)

    assert [event.stage for event in events if isinstance(event, StageStarted)] == ["tools", "initial"]
    answered = [(event.stage, event.model_name) for event in events if isinstance(event, ModelResponded)]
    assert sorted(answered) == [("initial", "a"), ("initial", "b"), ("tools", "a")]
