"""The loop of runs and calls of functions, on trio and asyncio."""

from __future__ import annotations

import asyncio
import math
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest
import trio
from trio.lowlevel import in_trio_run

from helpers.event_loops import nap, on_asyncio, on_every_loop
from helpers.run_events import assert_well_formed, orchestrator_of, read_all
from ultra import (
    BadCall,
    ChatMessage,
    DeadlineExceeded,
    FunctionTool,
    ImagePart,
    ModelError,
    MultiLLMOrchestrator,
    OrchestratorClosed,
    Price,
    ToolCall,
    ToolRun,
    UltraError,
    Usage,
)
from ultra.clients.catalog.model_info import ModelInfo
from ultra.messages.events import RunCompleted, ToolEnded, ToolsCalled, ToolStarted
from ultra.testing import AnyLoopEvent, FakeAnswer, FakeModel

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32


def weather(city: str, unit: Literal["C", "F"] = "C") -> str:
    """Return the weather of a city."""
    return f"20 {unit} in {city}"


def scripted(*answers: Any, name: str = "a", **fields: Any) -> FakeModel:
    return FakeModel([*answers], name=name, **fields)


def results(run: ToolRun) -> list[ChatMessage]:
    return [message for message in run.messages if message.role == "tool"]


async def result_of(function: Any, arguments: str = "{}") -> ChatMessage:
    """What a model is told of a call of this function."""
    name = function.tool.name if isinstance(function, FunctionTool) else function.__name__
    call = FakeAnswer(tool_calls=(ToolCall("1", name, arguments),))
    run = await orchestrator_of(scripted(call, "done")).run_tools("Q", [function])
    (message,) = results(run)
    return message


# --- turns -------------------------------------------------------------------------------------------


@on_every_loop
async def test_functions_are_called_until_an_answer_comes() -> None:
    a = scripted(
        FakeAnswer.calling("weather", city="Paris"),
        FakeAnswer.calling("weather", city="Rome", unit="F"),
        "Warm.",
    )
    b = FakeModel("b answers", name="b")
    run = await orchestrator_of(a, b).run_tools("Where is it warm?", [weather])

    assert str(run.final_synthesis) == str(run["final_synthesis"]) == "Warm."
    assert [message.role for message in run.messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert [message.text for message in results(run)] == ["20 C in Paris", "20 F in Rome"]
    assert [message.tool_call_id for message in results(run)] == [
        call.id for message in run.messages for call in message.tool_calls
    ]
    assert [len(turn.tool_calls) for turn in run.turns] == [1, 1, 0]
    assert run.result.status == "success"
    assert b.calls == []
    assert str(run).startswith("3 turns, 2 calls of tools, ")
    assert msgspec.json.decode(msgspec.json.encode(run), type=ToolRun) == run


@on_every_loop
async def test_the_conversation_can_go_on() -> None:
    a = scripted(FakeAnswer.calling("weather", city="Paris"), "Warm.", "As I said.")
    orchestrator = orchestrator_of(a)
    run = await orchestrator.run_tools("Where is it warm?", [weather])
    more = await orchestrator.run_tools([*run.messages, ChatMessage("user", "Really?")], [weather])

    assert str(more.final_synthesis) == "As I said."
    assert a.calls[-1].request.messages == more.messages[:-1]


@on_every_loop
async def test_calls_run_side_by_side_on_the_loop_of_the_caller_and_in_threads() -> None:
    variable: ContextVar[str] = ContextVar("variable")
    both = [AnyLoopEvent(), AnyLoopEvent()]
    places: list[object] = []
    here = in_trio_run()

    async def one() -> str:
        both[0].set()
        await both[1].wait()
        places.append((in_trio_run() == here, threading.current_thread() is threading.main_thread()))
        return variable.get()

    async def two() -> str:
        both[1].set()
        await both[0].wait()
        return variable.get()

    def three() -> str:
        places.append(threading.current_thread() is threading.main_thread())
        return variable.get()

    calls = tuple(ToolCall(name, name) for name in ("one", "two", "three"))
    variable.set("seen")
    run = await orchestrator_of(scripted(FakeAnswer(tool_calls=calls), "done")).run_tools(
        "Q", [one, two, three]
    )

    assert [message.text for message in results(run)] == ["seen", "seen", "seen"]
    assert sorted(places, key=str) == [(True, True), False]


@on_every_loop
async def test_the_ensemble_writes_the_last_answer_if_asked() -> None:
    a = FakeModel(
        lambda request: (
            FakeAnswer.calling("weather", city="Paris")
            if request.tools and request.messages[-1].role != "tool"
            else "a answers"
        ),
        name="a",
    )
    b = FakeModel("b answers", name="b")
    run = await orchestrator_of(a, b).run_tools(
        "Q", [weather], final="ensemble", stages=["initial", "synthesis"]
    )

    assert [step.name for step in run.result.steps] == ["tools", "initial", "synthesis"]
    assert list(run.result["initial_responses"]) == ["a", "b"]
    assert "weather gave:\n20 C in Paris" in b.calls[0].prompt


@on_every_loop
async def test_the_model_that_calls_first_has_the_later_turns() -> None:
    a = scripted(ModelError("busy", kind="bad_request", retryable=False), "never", name="a")
    b = scripted(FakeAnswer.calling("weather", city="Paris"), "b knows", name="b")
    run = await orchestrator_of(a, b).run_tools("Q", [weather])

    assert str(run.final_synthesis) == "b knows"
    assert len(a.calls) == 1


async def test_where_that_model_fails_the_next_one_goes_on() -> None:
    a = scripted(
        FakeAnswer.calling("weather", city="Paris"),
        ModelError("gone", kind="auth", retryable=False),
        name="a",
    )
    b = scripted("b knows", name="b")
    run = await orchestrator_of(a, b).run_tools("Q", [weather])

    assert str(run.final_synthesis) == "b knows"
    assert run.result.status == "degraded"
    assert b.calls[0].request.messages[-1].text == "20 C in Paris"


async def test_after_the_last_turn_there_is_an_answer_without_tools() -> None:
    def answer(request: ModelRequest) -> Any:
        return FakeAnswer.calling("weather", city="Paris") if request.tools else "It must be warm."

    a = FakeModel(answer, name="a")
    run = await orchestrator_of(a).run_tools("Q", [weather], max_turns=2)

    assert str(run.final_synthesis) == "It must be warm."
    assert [bool(call.request.tools) for call in a.calls] == [True, True, False]
    assert len(results(run)) == 2
    assert run.result.status == "degraded"
    assert "after 2 turns with calls of tools, the answer was asked for without tools" in run.result.notices


@pytest.mark.parametrize(
    ("script", "given"),
    [
        ([ModelError("down", kind="bad_request")], {}),
        ([FakeAnswer.calling("weather", city="Lyon")], {"max_turns": 1}),  # though no tool was offered
        ([FakeAnswer("late", seconds=math.inf)], {"timeout": 2.0}),
    ],
    ids=["fails", "calls-after-all", "late"],
)
@pytest.mark.parametrize("form", ["plain", "streamed"])
async def test_an_error_of_a_later_turn_has_the_turns_before_it(
    script: list[Any], given: dict[str, Any], form: str, autojump_clock: object
) -> None:
    async def weather(city: str) -> str:  # in no thread, which the clock would not wait for
        return f"20 C in {city}"

    async def run_tools() -> ToolRun:
        if form == "plain":
            return await orchestrator.run_tools("Q", [weather], **given)
        async with orchestrator.stream_tools("Q", [weather], **given) as stream:
            return await stream.result()

    a = scripted(FakeAnswer.calling("weather", city="Paris"), *script, *script)
    orchestrator = MultiLLMOrchestrator(retry=None)
    orchestrator.register_model("a", a, price=Price(input=1.0, output=1.0))
    with pytest.raises(UltraError) as caught:
        await run_tools()

    before = caught.value.tool_run
    assert isinstance(before, ToolRun)
    assert [message.role for message in before.messages] == ["user", "assistant", "tool"]
    assert len(before.turns) == 1
    assert before.cost is not None
    assert before.cost > 0

    again = scripted("Warm.")
    run = await orchestrator_of(again).run_tools(before.messages, [weather])
    assert str(run.final_synthesis) == "Warm."


async def test_an_error_of_the_first_turn_has_no_turns() -> None:
    a = scripted(*[ModelError("down", kind="bad_request")] * 2)
    with pytest.raises(UltraError) as caught:
        await orchestrator_of(a).run_tools("Q", [weather])
    assert caught.value.tool_run is None


async def test_a_choice_is_for_the_first_turn() -> None:
    a = scripted(FakeAnswer.calling("weather", city="Paris"), "Warm.")
    await orchestrator_of(a).run_tools("Q", [weather], tool_choice="required")

    first, second = (call.request.tool_choice for call in a.calls)
    assert first is not None
    assert first.mode == "required"
    assert second is None


async def test_a_vote_goes_on_with_all() -> None:
    def model(name: str) -> FakeModel:
        return scripted(FakeAnswer.calling("weather", city="Paris"), f"{name} knows", name=name)

    run = await orchestrator_of(model("a"), model("b")).run_tools("Q", [weather], tool_policy="vote")

    assert str(run.final_synthesis) == "a knows"
    assert [len(turn.steps[0].responses) for turn in run.turns] == [2, 2]


async def test_costs_and_times_are_summed_and_a_budget_is_for_all_turns() -> None:
    def orchestrator() -> MultiLLMOrchestrator:
        made = MultiLLMOrchestrator(cache_enabled=False)
        calls = [FakeAnswer.calling("weather", city="Paris") for _ in range(3)]
        made.register_model(
            "a", scripted(*calls, "Warm.", usage=Usage(1_000_000, 1)), price=Price(input=1.0, output=1.0)
        )
        return made

    run = await orchestrator().run_tools("Q", [weather])
    cut = await orchestrator().run_tools("Q", [weather], max_cost=1.5)

    assert run.cost == pytest.approx(4.0, abs=0.01)
    assert cut.cost == pytest.approx(2.0, abs=0.01)
    assert len(cut.turns) == 2
    assert cut.result.status == "degraded"
    assert (
        "the calls of tools were not made: the turns have cost 2 dollars, and may cost 1.5"
        in cut.result.notices
    )


# --- what a model is told ------------------------------------------------------------------------------


class Point(msgspec.Struct):
    x: int
    y: int = 0


async def test_arguments_are_decoded_by_their_types_and_results_are_json() -> None:
    def move(point: Point, by: list[int]) -> Point:
        return Point(point.x + by[0], point.y + by[1])

    message = await result_of(move, '{"point": {"x": 1}, "by": [2, 3]}')

    assert (message.content, message.is_error, message.name) == ('{"x":3,"y":3}', False, "move")


@pytest.mark.parametrize(
    ("given", "content"),
    [
        ("as it is", "as it is"),
        (None, "null"),
        ([1, "b"], '[1,"b"]'),
        ("a\ud800b", "a\ufffdb"),
        (ImagePart(PNG, media_type="image/png"), (ImagePart(PNG, media_type="image/png"),)),
    ],
)
async def test_text_is_a_result_as_it_is_an_image_is_one_and_all_else_is_json(
    given: Any, content: Any
) -> None:
    def tool() -> Any:
        return given

    assert (await result_of(tool)).content == content


async def test_text_and_images_together_are_parts() -> None:
    image = ImagePart(PNG, media_type="image/png")

    def tool() -> Any:
        return ["Look:", image]

    message = await result_of(tool)
    assert message.text == "Look:"
    assert message.parts[1] == image


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"city": ', "the arguments are not allowed: DecodeError: Input data was truncated"),
        ('{"city": 1}', "the arguments are not allowed: ValidationError: Expected `str`, got `int`"),
        ("{}", "the arguments are not allowed: ValidationError: Object missing required field `city`"),
        (
            '{"city": "P", "zip": 1}',
            "the arguments are not allowed: ValidationError: Object contains unknown",
        ),
        ("[]", "the arguments are not allowed: ValidationError: Expected `object`, got `array`"),
    ],
)
async def test_wrong_arguments_are_a_result_that_the_model_can_mend(arguments: str, told: str) -> None:
    message = await result_of(weather, arguments)

    assert message.is_error
    assert message.text.startswith(told)


async def test_an_unknown_tool_is_a_result_that_names_the_tools() -> None:
    a = scripted(FakeAnswer.calling("stocks"), "done")
    (message,) = results(await orchestrator_of(a).run_tools("Q", [weather]))

    assert message.is_error
    assert message.text == "there is no tool 'stocks'; there are: weather"


@on_every_loop
async def test_an_exception_of_a_function_is_a_result_with_its_text_and_no_secret() -> None:
    async def fails(n: int) -> None:
        raise ValueError(f"no {n} with Bearer abcdefghijklmnop at https://x/?key=sk-123456789012345")

    def leaves() -> None:
        raise SystemExit(3)

    def endless() -> None:
        raise RuntimeError("x" * 100_000)

    calls = (ToolCall("1", "fails", '{"n": 7}'), ToolCall("2", "leaves"), ToolCall("3", "endless"))
    run = await orchestrator_of(scripted(FakeAnswer(tool_calls=calls), "done")).run_tools(
        "Q", [fails, leaves, endless]
    )

    one, two, three = results(run)
    assert one.is_error
    assert two.is_error
    assert one.text == "ValueError: no 7 with Bearer [redacted] at https://x/?key=[redacted]"
    assert two.text == "SystemExit: 3"
    assert len(three.text) < 3_000


async def test_a_pydantic_model_is_a_result_as_json() -> None:
    pydantic = pytest.importorskip("pydantic", reason="pydantic is an extra")
    city = pydantic.create_model("City", name=(str, ...), people=(int, ...))

    def tool() -> object:
        return [city(name="Oslo", people=7)]

    assert (await result_of(tool)).text == '[{"name":"Oslo","people":7}]'


async def test_a_model_that_does_not_see_is_told_in_words_of_an_image_that_a_tool_gave() -> None:
    def chart() -> ImagePart:
        return ImagePart.of(PNG)

    call = FakeAnswer(tool_calls=(ToolCall("1", "chart", "{}"),))
    blind = scripted(call, "I cannot see it.", info=ModelInfo(images=False))

    run = await orchestrator_of(blind).run_tools("Q", [chart])

    assert str(run.final_synthesis) == "I cannot see it."
    assert "image" in blind.calls[1].request.messages[2].text
    assert any("image" in notice for notice in run.result["notices"])


async def test_a_result_that_cannot_be_json_is_told() -> None:
    def tool() -> object:
        return object()

    message = await result_of(tool)

    assert message.is_error
    assert message.text == "the result of the tool, a object, cannot be written as JSON"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (ImagePart(data=b"x"), "the image, has no media_type; ImagePart.of"),
        (ImagePart(), "must have either data or url"),
        (ImagePart(data=b"", media_type="image/png"), "has no bytes"),
        (ImagePart(url=7), "got `int`"),  # type: ignore[arg-type]
    ],
)
async def test_a_bad_image_of_a_function_is_a_result_that_says_so(given: Any, told: str) -> None:
    def tool() -> object:
        return given

    message = await result_of(tool)

    assert message.is_error
    assert told in message.text


@on_asyncio
async def test_a_function_that_is_cancelled_by_something_else_has_failed() -> None:
    async def tool() -> None:
        raise asyncio.CancelledError

    assert (await result_of(tool)).is_error


async def test_methods_and_objects_that_can_be_called_are_functions() -> None:
    class Tools:
        async def greet(self, name: str) -> str:
            return f"Hello {name}"

    message = await result_of(Tools().greet, '{"name": "Ann"}')
    assert message.text == "Hello Ann"
    assert (await result_of(FunctionTool(weather), '{"city": "Rome"}')).text == "20 C in Rome"


# --- events --------------------------------------------------------------------------------------------


@on_every_loop
async def test_events_of_all_turns_are_one_stream() -> None:
    a = scripted(FakeAnswer.calling("weather", city="Paris"), FakeAnswer("It is ", "warm."))
    async with orchestrator_of(a).stream_tools("Q", [weather]) as stream:
        events = await read_all(stream)  # type: ignore[arg-type]
        run = await stream.result()

    assert_well_formed(events)
    told = [event for event in events if isinstance(event, ToolsCalled | ToolStarted | ToolEnded)]
    assert [type(event) for event in told] == [ToolsCalled, ToolStarted, ToolEnded]
    assert [event.round for event in told] == [0, 0, 0]
    assert isinstance(told[2], ToolEnded)
    assert told[2].message == results(run)[0]
    assert isinstance(events[-1], RunCompleted)
    assert events[-1].result == run.result
    assert {event.run_id for event in events} == {stream.run_id}
    assert str(run.final_synthesis) == "It is warm."


# --- cancellation and time -------------------------------------------------------------------------------


@on_every_loop
async def test_leaving_the_block_cancels_functions() -> None:
    started, ended = AnyLoopEvent(), []

    async def tool() -> None:
        try:
            started.set()
            await nap(3600)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    a = scripted(FakeAnswer.calling("tool"), "done")
    async with orchestrator_of(a).stream_tools("Q", [tool]):
        await started.wait()

    assert len(ended) == 1
    assert ended[0] in {"Cancelled", "CancelledError"}


async def test_a_timeout_is_for_all_turns_together(autojump_clock: object) -> None:
    async def slow() -> str:
        await trio.sleep(4)
        return "done"

    calls = [FakeAnswer.calling("slow") for _ in range(5)]
    started = trio.current_time()
    with pytest.raises(DeadlineExceeded, match="the tools had not ended when the time was over: 'slow'"):
        await orchestrator_of(scripted(*calls)).run_tools("Q", [slow], timeout=10)

    assert trio.current_time() - started == pytest.approx(10)


async def test_a_thread_that_hangs_does_not_hold_the_deadline(autojump_clock: object) -> None:
    gate = threading.Event()

    def hangs() -> None:
        gate.wait(60)

    try:
        with pytest.raises(DeadlineExceeded, match="'hangs'"):
            await orchestrator_of(scripted(FakeAnswer.calling("hangs"))).run_tools("Q", [hangs], timeout=1)
    finally:
        gate.set()


async def test_a_model_that_hangs_fails_by_the_deadline(autojump_clock: object) -> None:
    a = scripted(FakeAnswer(seconds=math.inf), name="a")
    b = scripted("b knows", name="b")
    run = await orchestrator_of(a, b).run_tools("Q", [weather], timeout=8)

    assert str(run.final_synthesis) == "b knows"
    assert run.response_time < 8


# --- bad calls -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("functions", "given", "told"),
    [
        ([], {}, "functions is empty"),
        (weather, {}, "functions is of type function; it must be a list of functions"),
        ([weather, "weather"], {}, r"functions\[1\] is of type str; it must be a function with types"),
        ([weather, weather], {}, "has the name 'weather' more than once"),
        ([lambda x: x], {}, "has no type"),
        ([weather], {"max_turns": 0}, "max_turns"),
        ([weather], {"final": "all"}, "final is 'all'; it must be one of: 'model', 'ensemble'"),
        ([weather], {"stages": ["initial"]}, "stages is how the ensemble answers; give final='ensemble'"),
        ([weather], {"strategy": "vote"}, "strategy is how the ensemble answers"),
        ([weather], {"tool_policy": "judge"}, "give final='ensemble'"),
        ([weather], {"tools": [weather]}, "leave tools= out"),
        ([weather], {"tool_policy": "refuse"}, "tool_policy is 'refuse'"),
        ([weather], {"max_turn": 3}, "unknown setting 'max_turn' of a run"),
        ([weather], {"models": ["z"]}, "'z'"),
    ],
)
async def test_wrong_arguments_are_refused_before_any_call(functions: Any, given: Any, told: str) -> None:
    a = FakeModel(name="a")
    orchestrator = orchestrator_of(a)
    with pytest.raises(BadCall, match=told):
        await orchestrator.run_tools("Q", functions, **given)
    with pytest.raises(BadCall, match=told):
        orchestrator.stream_tools("Q", functions, **given)
    assert a.calls == []


async def test_an_overridden_method_that_takes_no_tools_is_refused_before_any_call() -> None:
    class Narrow(MultiLLMOrchestrator):
        async def process_responses(self, prompt: Any) -> Any:  # type: ignore[override]
            return await super().process_responses(prompt)

    a, orchestrator = FakeModel(name="a"), Narrow()
    orchestrator.register_model("a", a)

    with pytest.raises(
        BadCall, match=r"Narrow\.process_responses overrides .* and cannot run tools with these"
    ):
        await orchestrator.run_tools("Q", [weather])
    with pytest.raises(BadCall, match="cannot run tools"):
        orchestrator.stream_tools("Q", [weather])
    assert a.calls == []


async def test_a_closed_orchestrator_runs_no_tools() -> None:
    orchestrator = orchestrator_of(FakeModel(name="a"))
    async with orchestrator:
        pass
    with pytest.raises(OrchestratorClosed):
        await orchestrator.run_tools("Q", [weather])
