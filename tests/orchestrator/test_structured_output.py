"""Runs and single requests with `output=`: what is asked, checked, asked for once more, and returned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pydantic
import pytest

from helpers.event_loops import on_every_loop
from ultra import (
    AllAttemptsFailed,
    BadCall,
    Completion,
    ModelError,
    MultiLLMOrchestrator,
    OrchestrationResult,
    QuorumNotReached,
    Stage,
    StrategyFailed,
    Usage,
)
from ultra.clients.pricing import Price
from ultra.events import Event, ModelFailed, ModelRetrying, ModelStarted, RunCompleted
from ultra.strategies import Answer, BestOf, RunContext, Vote
from ultra.testing import FakeAnswer, FakeModel

NO_JSON = "I would say it is one."
HALF = '{"total": 1, "cur'
WRONG = '{"total": "one"}'
FENCED = 'Here it is:\n```json\n{"total": 1}\n```\nAnything else?'


class Bill(msgspec.Struct):
    total: float
    currency: str = "EUR"


class BillModel(pydantic.BaseModel):
    total: float
    currency: str = "EUR"


SCHEMA = {"type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]}


def orchestrator(**models: Any) -> MultiLLMOrchestrator:
    """An orchestrator of these clients, of falling weight."""
    made = MultiLLMOrchestrator(max_retries=0)
    for number, (name, client) in enumerate(models.items()):
        made.register_model(name, client, 9.0 - number)
    return made


async def streamed(made: MultiLLMOrchestrator, **run: Any) -> tuple[OrchestrationResult, list[Event]]:
    async with made.stream_responses("How much?", **run) as stream:
        events = [event async for event in stream]
        return await stream.result(), events


# --- what a run gives ------------------------------------------------------------------------------------


@on_every_loop
@pytest.mark.parametrize("kind", [Bill, BillModel, SCHEMA])
async def test_the_output_of_a_run_is_a_value_of_the_type_that_was_given(kind: Any) -> None:
    made = orchestrator(a=FakeModel(FENCED), b=FakeModel('{"total": 1.0}'))

    plain = await made.process_responses("How much?", output=kind)
    result, events = await streamed(made, output=kind)

    expected = {"total": 1.0} if kind is SCHEMA else kind(total=1.0)
    for each in (plain, result):
        assert each.output == each["output"] == expected
        assert each.final_synthesis is not None
        assert msgspec.json.decode(each.final_synthesis.content) == {"total": 1}
        assert each.initial_responses["a"].output["total"] == 1.0
        assert each.status == "success"
    assert isinstance(events[-1], RunCompleted)
    sent = msgspec.json.decode(msgspec.json.encode(events[-1]))
    assert (
        sent["result"]["output"] == result.plain_output == ({"total": 1} if kind is SCHEMA else plain_bill())
    )


def plain_bill() -> dict[str, Any]:
    return {"total": 1.0, "currency": "EUR"}


class EuroPrice(pydantic.BaseModel):
    """Its validator changes what it gets, and refuses what it has made of it."""

    euros: float

    @pydantic.field_validator("euros", mode="before")
    @classmethod
    def parsed(cls, value: str) -> str:
        return value.removesuffix(" EUR")


@on_every_loop
@pytest.mark.parametrize("strategy", ["synthesize", "vote", "fields"])
async def test_a_type_whose_validator_changes_what_it_gets_reads_the_answer_and_not_its_own_work(
    strategy: str,
) -> None:
    made = orchestrator(a=FakeModel('{"euros": "5 EUR"}'))

    result, events = await streamed(made, strategy=strategy, output=EuroPrice)
    response = await made.get_model_response("a", "How much?", output=EuroPrice)

    assert result.output == response.output == EuroPrice(euros="5")  # type: ignore[arg-type]
    assert result.plain_output == {"euros": 5.0}
    assert isinstance(events[-1], RunCompleted)


@on_every_loop
@pytest.mark.parametrize("error", [ValueError("enough"), SystemExit("enough")])
async def test_a_type_that_refuses_in_the_end_what_it_took_before_fails_the_run_and_nothing_else(
    error: BaseException,
) -> None:
    made = 0

    class Moody(msgspec.Struct):
        total: float

        def __post_init__(self) -> None:
            nonlocal made
            made += 1
            if made == last:
                raise error

    last = 0
    many = orchestrator(a=FakeModel('{"total": 1}'))
    async with many:
        await many.process_responses("How much?", strategy="vote", output=Moody)
        last, made = made, 0  # the value that the caller gets is made last
        with pytest.raises(StrategyFailed, match="enough"):
            await many.process_responses("How much?", strategy="vote", output=Moody)
        last = 0
        assert (await many.process_responses("How much?", output=Moody)).status == "success"
        assert [child.restarts for child in many.tree().children] == [0, 0]


@on_every_loop
async def test_one_request_has_its_output_too() -> None:
    made = orchestrator(a=FakeModel([NO_JSON, FENCED]))
    response = await made.get_model_response("a", "How much?", output=Bill)
    assert response.output == Bill(1.0)
    assert (response.content, response.attempts) == ('{"total": 1}', 2)

    unregistered = await made.get_model_response(FakeModel("[1, 2]"), "Which?", output=list[int])
    assert unregistered.output == [1, 2]


async def test_without_an_output_nothing_is_read_and_nothing_asked() -> None:
    model = FakeModel(FENCED)
    result = await orchestrator(a=model).process_responses("How much?")
    assert result.output is None
    assert str(result.final_synthesis) == FENCED
    assert all(call.request.output is None for call in model.calls)


# --- who is asked for what -------------------------------------------------------------------------------


async def test_initial_and_synthesis_want_the_output_and_meta_and_judge_do_not() -> None:
    models = {name: FakeModel(lambda request: "A: 7" if request.output is None else FENCED) for name in "ab"}
    made = MultiLLMOrchestrator(judge="a")
    for name, model in models.items():
        made.register_model(name, model)

    result = await made.process_responses("How much?", output=Bill, stages=["initial", "meta", "synthesis"])

    assert result.output == Bill(1.0)
    wanted = [call.request.output is not None for model in models.values() for call in model.calls]
    # a: the answer, the grades, the analysis, the synthesis; b: the answer, the analysis.
    assert sorted(wanted) == [False, False, False, True, True, True]
    assert all("JSON schema" in call.prompt for call in models["b"].calls if call.request.output)


async def test_a_synthesis_with_a_prompt_of_its_own_wants_the_output_too() -> None:
    model = FakeModel(FENCED)
    stage = Stage(name="synthesis", prompt=lambda _: "Merge.", reads="initial", asks="first")
    result = await orchestrator(a=model).process_responses("Q", output=Bill, stages=["initial", stage])
    assert result.output == Bill(1.0)
    assert model.calls[-1].request.output is not None


class Plain:
    """A client of the guide."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.prompts: list[str] = []

    async def generate(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.answers.pop(0)


class Declaring:
    """A client that takes the schema itself."""

    def __init__(self) -> None:
        self.given: list[tuple[str, Any]] = []

    async def generate(self, prompt: str, *, output: Any = None) -> str:
        self.given.append((prompt, output))
        return '{"total": 1}'


class Streaming(Plain):
    async def stream(self, prompt: str) -> AsyncIterator[str]:
        text = await self.generate(prompt)
        for begin in range(0, len(text), 3):
            yield text[begin : begin + 3]


@on_every_loop
@pytest.mark.parametrize("kind", [Plain, Streaming])
async def test_a_client_of_the_guide_gets_the_schema_in_words_and_the_errors_as_a_conversation(
    kind: type[Plain],
) -> None:
    client = kind(WRONG, FENCED)
    result, _ = await streamed(
        orchestrator(a=client), output=Bill, stages=["initial", "synthesis"], models=["a"]
    )
    assert result.initial_responses["a"].output == {"total": 1.0, "currency": "EUR"}
    first, second = client.prompts[:2]
    assert first.startswith("How much?\n\nAnswer with one JSON value")
    assert '"required":["total"]' in first
    assert second.startswith(f"User: How much?\n\nAssistant: {WRONG}\n\nUser: Your answer does not satisfy")
    assert "$.total" in second
    assert second.count("Answer with one JSON value") == 1


async def test_a_client_that_declares_output_gets_the_schema_and_no_words() -> None:
    client = Declaring()
    await orchestrator(a=client).get_model_response("a", "How much?", output=Bill)
    ((prompt, output),) = client.given
    assert prompt == "How much?"
    assert output["json_schema"]["schema"]["required"] == ["total"]


# --- answers that do not satisfy it ----------------------------------------------------------------------


@on_every_loop
@pytest.mark.parametrize("wrong", [NO_JSON, HALF, WRONG])
async def test_what_does_not_satisfy_the_schema_is_asked_for_once_more_with_the_errors(wrong: str) -> None:
    model = FakeModel([wrong, FENCED, FENCED])
    result, events = await streamed(orchestrator(a=model), output=Bill, stages=["initial", "synthesis"])
    assert result.status == "success"
    response = result.initial_responses["a"]
    assert response.attempts == 2
    roles = [message.role for message in model.calls[1].request.messages]
    assert roles == ["user", "assistant", "user"]
    assert model.calls[1].request.messages[1].text == wrong
    told = [event for event in events if isinstance(event, ModelRetrying)]
    assert [event.kind for event in told] == ["content"]
    started = [event for event in events if isinstance(event, ModelStarted) and event.stage == "initial"]
    assert len(started) == 1


@on_every_loop
async def test_a_model_that_is_wrong_twice_has_failed_and_its_cost_counts() -> None:
    made = MultiLLMOrchestrator(max_retries=0)
    model = FakeModel([WRONG, HALF], usage=Usage(input=100, output=10))
    made.register_model("a", model, 2.0, price=Price(input=1.0, output=1.0))
    made.register_model("b", FakeModel(FENCED))

    result, events = await streamed(made, output=Bill, stages=["initial", "synthesis"])

    (failure,) = result.failures
    assert (failure.model_name, failure.kind, failure.attempts) == ("a", "content", 2)
    assert "does not satisfy the schema, twice" in failure.message
    assert failure.usage is not None
    assert (failure.usage.input, failure.usage.output) == (200, 20)
    assert failure.cost == pytest.approx(2 * 110e-6)
    assert result.cost == pytest.approx(2 * 110e-6)
    assert result.status == "degraded"
    assert result.output == Bill(1.0)
    assert any(isinstance(event, ModelFailed) for event in events)


@on_every_loop
async def test_the_cost_of_a_wrong_answer_counts_where_the_next_one_is_right() -> None:
    made = MultiLLMOrchestrator(max_retries=0)
    usage = Usage(input=100, output=10)
    made.register_model(
        "a", FakeModel([WRONG, FENCED, FENCED], usage=usage), price=Price(input=1.0, output=1.0)
    )
    response = await made.get_model_response("a", "How much?", output=Bill)
    assert response.cost == pytest.approx(2 * 110e-6)
    assert response.lost_usage == usage
    result = await made.process_responses("How much else?", output=Bill, stages=["initial"])
    assert result.cost == pytest.approx(110e-6)


@on_every_loop
async def test_where_every_model_is_wrong_twice_the_run_fails() -> None:
    made = orchestrator(a=FakeModel(WRONG), b=FakeModel(NO_JSON))
    with pytest.raises(QuorumNotReached, match="does not satisfy the schema"):
        await made.process_responses("How much?", output=Bill)
    with pytest.raises(AllAttemptsFailed) as failure:
        await made.get_model_response("a", "How much?", output=Bill)
    assert isinstance(failure.value.__cause__, ModelError)
    assert failure.value.__cause__.kind == "content"


async def test_a_second_request_that_fails_counts_the_first_one_too() -> None:
    made = MultiLLMOrchestrator(max_retries=0)
    usage = Usage(input=100, output=10)
    answers: list[Any] = [FakeAnswer(WRONG, usage=usage), ModelError("down", usage=usage)]
    made.register_model("a", FakeModel(answers), price=Price(input=1.0, output=1.0))
    with pytest.raises(AllAttemptsFailed) as failure:
        await made.get_model_response("a", "How much?", output=Bill)
    assert failure.value.cost == pytest.approx(2 * 110e-6)
    assert failure.value.attempts == 2


async def test_an_answer_that_was_cut_off_is_not_asked_for_again() -> None:
    model = FakeModel(FakeAnswer(HALF, finish_reason="length"))
    result = await orchestrator(a=model, b=FakeModel(FENCED)).process_responses(
        "How much?", output=Bill, stages=["initial"]
    )
    assert [failure.model_name for failure in result.failures] == ["a"]
    assert "stopped at its limit of tokens" in result.failures[0].message
    assert len(model.calls) == 1


async def test_the_next_model_writes_the_synthesis_where_the_first_one_cannot() -> None:
    def answer(request: Any) -> str:
        return WRONG if any("Candidate" in each.text for each in request.messages) else FENCED

    result = await orchestrator(a=FakeModel(answer), b=FakeModel(FENCED)).process_responses(
        "How much?", output=Bill
    )
    assert result.synthesis_source == "fallback"
    assert result.output == Bill(1.0)


async def test_where_no_model_can_write_the_synthesis_the_best_candidate_stands() -> None:
    def answer(request: Any) -> str:
        return WRONG if any("Candidate" in each.text for each in request.messages) else FENCED

    result = await orchestrator(a=FakeModel(answer), b=FakeModel(answer)).process_responses("Q", output=Bill)
    assert result.synthesis_source == "best_candidate"
    assert result.output == Bill(1.0)


class Retold:
    """A strategy that changes the text of an answer."""

    async def run(self, context: RunContext) -> Answer:
        with context.step("initial"):
            (response,) = await context.ask_all(context.request)
        return Answer(msgspec.structs.replace(response, content="Roughly one."), "selected")


async def test_a_strategy_whose_answer_does_not_satisfy_the_schema_fails_the_run() -> None:
    with pytest.raises(StrategyFailed, match="no whole JSON"):
        await orchestrator(a=FakeModel(FENCED)).process_responses("Q", output=Bill, strategy=Retold())


async def test_an_exception_in_the_callers_own_type_is_an_answer_that_does_not_satisfy_it() -> None:
    class Even(msgspec.Struct):
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise ValueError("n must be even")

    model = FakeModel(['{"n": 1}', '{"n": 2}'])
    response = await orchestrator(a=model).get_model_response("a", "Q", output=Even)
    assert response.output == Even(2)
    assert "n must be even" in model.calls[1].request.messages[-1].text


# --- the cache -------------------------------------------------------------------------------------------


async def test_a_wrong_answer_in_the_cache_is_corrected_from_the_cache() -> None:
    model = FakeModel([WRONG, FENCED])
    made = orchestrator(a=model)
    for _ in range(3):
        response = await made.get_model_response("a", "How much?", output=Bill)
        assert response.output == Bill(1.0)
    assert len(model.calls) == 2


@on_every_loop
async def test_two_wrong_answers_in_the_cache_do_not_stand_for_ever() -> None:
    model = FakeModel([WRONG, HALF, FENCED, FENCED])
    made = orchestrator(a=model)
    with pytest.raises(AllAttemptsFailed):
        await made.get_model_response("a", "How much?", output=Bill)
    response = await made.get_model_response("a", "How much?", output=Bill)
    assert response.output == Bill(1.0)
    result = await made.process_responses("How much?", output=Bill, stages=["initial"])
    assert not result.failures
    assert len(model.calls) == 4


# --- agreement, votes, picking ---------------------------------------------------------------------------


async def test_equal_outputs_are_equal_answers_however_they_are_written() -> None:
    made = orchestrator(
        a=FakeModel('{"total": 1, "currency": "EUR"}'),
        b=FakeModel('```json\n{"currency": "EUR", "total": 1.0}\n```'),
        c=FakeModel('{"total": 2, "currency": "EUR"}'),
    )
    result = await made.process_responses("How much?", output=Bill, strategy=Vote(at_once=True))
    assert result.output == Bill(1.0)
    assert result.confidence == pytest.approx(17 / 24)
    result = await made.process_responses("How much?", output=Bill, stages=["initial"])
    assert [response.quality for response in result.initial_responses.values()] == [
        pytest.approx(8 / 15),
        pytest.approx(9 / 16),
        pytest.approx(0.01 * 7 / 24, abs=0.01),
    ]


async def test_a_unanimous_output_is_kept() -> None:
    from ultra.strategies import Synthesize  # noqa: PLC0415 - for this test alone

    made = orchestrator(a=FakeModel(FENCED), b=FakeModel('{"total": 1.0}'))
    strategy = Synthesize(keep_unanimous=True)
    result = await made.process_responses("How much?", output=Bill, strategy=strategy)
    assert (result.synthesis_source, result.output) == ("unanimous", Bill(1.0))


async def test_best_of_picks_a_structured_answer_and_verifies_its_json() -> None:
    made = orchestrator(a=FakeModel('{"total": 1}'), b=FakeModel('Well: {"total": 2}.'))

    def verify(text: str) -> bool:
        return bool(msgspec.json.decode(text)["total"] == 2)

    result = await made.process_responses("How much?", output=Bill, strategy=BestOf(verify=verify))
    assert (result.output, result.confidence) == (Bill(2.0), 1.0)


async def test_every_sample_is_checked() -> None:
    model = FakeModel([WRONG, FENCED, FENCED])
    result = await orchestrator(a=model).process_responses(
        "How much?", output=Bill, samples=2, strategy="vote"
    )
    assert len(result.steps[0].responses) == 2
    assert result.output == Bill(1.0)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["a bill", {"type": "strin"}, {"nothing": 1}, object])
async def test_what_is_no_form_of_an_answer_is_refused_before_any_call(wrong: Any) -> None:
    model = FakeModel(FENCED)
    made = orchestrator(a=model)
    with pytest.raises(BadCall, match="output"):
        await made.process_responses("Q", output=wrong)
    with pytest.raises(BadCall, match="output"):
        made.stream_responses("Q", output=wrong)
    with pytest.raises(BadCall, match="output"):
        await made.get_model_response("a", "Q", output=wrong)
    assert not model.calls


async def test_a_completion_with_tool_calls_is_no_answer_yet_and_passes() -> None:
    from ultra.messages.chat import ToolCall  # noqa: PLC0415 - for this test alone

    call = ToolCall("1", "look", "{}")
    model = FakeModel(Completion("", tool_calls=(call,), finish_reason="tool_calls"))
    response = await orchestrator(a=model).get_model_response("a", "Q", output=Bill)
    assert (response.tool_calls, response.output) == ((call,), None)
