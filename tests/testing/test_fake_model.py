"""The model for tests, on trio and on each loop of asyncio."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import cycle
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from ultra import (
    AllAttemptsFailed,
    BadCall,
    Completion,
    ModelError,
    MultiLLMOrchestrator,
    RetryPolicy,
    ToolCall,
    Usage,
)
from ultra.clients import StreamingClient
from ultra.clients.adapter import ClientAdapter
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Callable


async def said(model: FakeModel, prompt: str = "Q") -> str:
    return (await model.generate(prompt)).content


async def streamed(model: FakeModel, prompt: str = "Q") -> list[str | Completion]:
    return [piece async for piece in model.stream(prompt)]


# --- what it answers ---------------------------------------------------------------------------------


async def test_without_a_script_it_says_who_was_asked_what() -> None:
    assert await said(FakeModel(name="llama"), "Why?") == "llama: Why?"


async def test_one_answer_is_given_to_each_call() -> None:
    model = FakeModel("Paris.")
    assert [await said(model), await said(model)] == ["Paris.", "Paris."]


async def test_a_list_is_answers_for_one_call_each_and_an_exception_among_them_is_raised() -> None:
    model = FakeModel(["Paris.", ModelError("down"), ConnectionError, "Lyon."])
    assert await said(model) == "Paris."
    with pytest.raises(ModelError, match="down"):
        await said(model)
    with pytest.raises(ConnectionError):
        await said(model)
    assert await said(model) == "Lyon."
    with pytest.raises(ModelError, match=r"'fake' has no answer left: this is call 5 .* 4;") as caught:
        await said(model)
    assert not caught.value.retryable


async def test_an_iterator_may_have_answers_without_end() -> None:
    model = FakeModel(cycle(["heads", "tails"]))
    assert [await said(model) for _ in range(5)] == ["heads", "tails", "heads", "tails", "heads"]


async def test_a_mapping_decides_by_the_first_text_that_is_part_of_the_prompt() -> None:
    model = FakeModel({"capital of France": "Paris.", "France": "A country.", "down": ModelError("as told")})
    assert await said(model, "What is the capital of France?") == "Paris."
    assert await said(model, "What is France?") == "A country."
    with pytest.raises(ModelError, match="as told"):
        await said(model, "Are you down?")
    with pytest.raises(ModelError, match=r"no answer for the prompt 'Who'.*'capital of France', 'France'"):
        await said(model, "Who")


async def test_the_empty_text_stands_for_all_other_prompts() -> None:
    model = FakeModel({"France": "Paris.", "": "I do not know."})
    assert [await said(model, "France?"), await said(model, "Italy?")] == ["Paris.", "I do not know."]


async def test_a_function_decides_by_the_whole_request() -> None:
    def answer(request: ModelRequest) -> str:
        return f"{request.prompt}, {request.system}, {request.options.temperature}"

    assert str(await FakeModel(answer).generate("Q", system="S", temperature=0.5)) == "Q, S, 0.5"


async def test_a_function_may_be_async_and_may_give_or_raise_an_exception() -> None:
    async def answer(request: ModelRequest) -> str | Exception:
        await trio.lowlevel.checkpoint()
        if request.prompt == "raise":
            raise ZeroDivisionError
        return KeyError("given") if request.prompt == "give" else "fine"

    model = FakeModel(answer)
    assert await said(model) == "fine"
    with pytest.raises(KeyError, match="given"):
        await said(model, "give")
    with pytest.raises(ZeroDivisionError):
        await said(model, "raise")


async def test_a_completion_is_answered_as_it_is() -> None:
    completion = Completion(content="Paris", usage=Usage(input=7), finish_reason="length", model="m")
    assert await FakeModel(completion).generate("Q") is completion
    assert await streamed(FakeModel(completion)) == ["Paris", completion]


async def test_a_reply_has_the_fields_of_a_completion_and_a_finish_reason_that_fits() -> None:
    usage = Usage(input=1, output=2)
    calls = (ToolCall(id="1", name="weather", arguments='{"city": "Paris"}'),)
    replies = [
        FakeAnswer("It is ", "Paris.", reasoning="France, so", usage=usage),
        FakeAnswer("It is", finish_reason="length"),
        FakeAnswer(refusal="I cannot."),
        FakeAnswer(tool_calls=calls),
        FakeAnswer(),
    ]
    model = FakeModel(replies)
    assert [await model.generate("Q") for _ in replies] == [
        Completion(content="It is Paris.", reasoning="France, so", usage=usage, finish_reason="stop"),
        Completion(content="It is", finish_reason="length"),
        Completion(content="", refusal="I cannot.", finish_reason="refusal"),
        Completion(content="", tool_calls=calls, finish_reason="tool_calls"),
        Completion(content="", finish_reason="stop"),
    ]


async def test_tokens_are_told_with_every_answer_that_has_none_of_its_own() -> None:
    usage, own = Usage(input=1000, output=500), Usage(input=1, output=1)
    model = FakeModel(["a", FakeAnswer("b", usage=own)], usage=usage)
    assert [(await model.generate("Q")).usage for _ in range(2)] == [usage, own]


# --- streams -----------------------------------------------------------------------------------------


async def test_a_text_is_streamed_word_by_word_and_a_reply_in_its_pieces() -> None:
    *words, last = await streamed(FakeModel(" The capital\nis  Paris. "))
    assert words == [" The ", "capital\n", "is  ", "Paris. "]
    assert last == Completion(content=" The capital\nis  Paris. ", finish_reason="stop")
    assert (await streamed(FakeModel(FakeAnswer("Par", "", "is."))))[:-1] == ["Par", "", "is."]
    assert await streamed(FakeModel("")) == [Completion(content="", finish_reason="stop")]


async def test_a_model_that_does_not_stream_has_no_stream() -> None:
    plain = FakeModel("Paris.", streams=False)
    assert not ClientAdapter(plain).streams
    assert ClientAdapter(FakeModel()).streams
    assert isinstance(FakeModel(), StreamingClient)
    assert await said(plain) == "Paris."


async def test_answers_take_seconds_and_pieces_come_seconds_apart(autojump_clock: MockClock) -> None:
    answers = [FakeAnswer("a", "b", "c"), FakeAnswer("d", "e", seconds=7, piece_seconds=0)]
    model = FakeModel(answers, seconds=3, piece_seconds=2)
    begun = trio.current_time()
    times = [
        trio.current_time() - begun
        for _ in range(2)
        async for piece in model.stream("Q")
        if isinstance(piece, str)
    ]
    assert times == pytest.approx([3, 5, 7, 14, 14])


async def test_a_plain_call_takes_the_seconds_before_the_answer(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    await said(FakeModel(["a b c"], seconds=3, piece_seconds=100))
    assert trio.current_time() - begun == pytest.approx(3)


async def test_seconds_without_end_are_a_model_that_hangs(autojump_clock: MockClock) -> None:
    model = FakeModel(["soon", FakeAnswer(seconds=math.inf)])
    assert await said(model) == "soon"
    with trio.move_on_after(1e6) as scope:
        await said(model)
    assert scope.cancelled_caught


# --- failures ----------------------------------------------------------------------------------------


async def outcomes(model: FakeModel, calls: int) -> list[str]:
    found = []
    for _ in range(calls):
        try:
            found.append(await said(model))
        except Exception as error:  # noqa: BLE001 - the error is the outcome
            found.append(type(error).__name__)
    return found


async def test_the_next_calls_fail_and_take_no_answer_from_the_script() -> None:
    model = FakeModel(["a", "b"]).fail(times=2, error=ConnectionError("gone"))
    assert await outcomes(model, 4) == ["ConnectionError", "ConnectionError", "a", "b"]


async def test_failures_are_raised_one_a_call_in_their_order() -> None:
    model = FakeModel("a", failures=[KeyError("k"), ValueError]).fail(OSError)
    assert await outcomes(model, 4) == ["KeyError", "ValueError", "OSError", "a"]


async def test_calls_with_given_numbers_fail() -> None:
    model = FakeModel("a").fail(at=[2, 4], error=KeyError("k")).fail(at=1)
    assert await outcomes(model, 5) == ["ModelError", "KeyError", "a", "KeyError", "a"]


async def test_without_an_error_of_its_own_a_failure_is_worth_a_retry() -> None:
    with pytest.raises(ModelError) as caught:
        await said(FakeModel().fail())
    assert caught.value.retryable


async def test_a_model_that_recovers_fails_no_more() -> None:
    model = FakeModel("a").fail(times=9).fail(at=3)
    assert await outcomes(model, 1) == ["ModelError"]
    model.recover()
    assert await outcomes(model, 3) == ["a", "a", "a"]


async def test_a_failure_comes_after_the_seconds_that_an_answer_takes(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    assert await outcomes(FakeModel([KeyError("k")], seconds=3).fail(), 2) == ["ModelError", "KeyError"]
    assert trio.current_time() - begun == pytest.approx(6)


async def test_a_stream_breaks_off_after_so_many_pieces() -> None:
    model = FakeModel("one two three").fail(after_pieces=2, error=ConnectionError("the stream broke"))
    stream = model.stream("Q")
    assert [await anext(stream), await anext(stream)] == ["one ", "two "]
    with pytest.raises(ConnectionError, match="the stream broke"):
        await anext(stream)
    assert [str(piece) for piece in await streamed(model)] == ["one ", "two ", "three", "one two three"]


async def test_an_exception_that_is_raised_again_has_only_its_last_traceback() -> None:
    error = KeyError("k")
    model = FakeModel(error)
    lengths = set()
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            await said(model)
        lengths.add(len(caught.traceback))
    assert len(lengths) == 1


async def test_ultra_retries_what_it_fails_with_and_not_a_script_that_is_too_short() -> None:
    model = FakeModel(["Paris."]).fail(times=2)
    orchestrator = MultiLLMOrchestrator(retry=RetryPolicy(initial=0), cache_enabled=False)
    orchestrator.register_model("llama", model)
    response = await orchestrator.get_model_response("llama", "Q")
    assert (response.content, response.attempts) == ("Paris.", 3)
    with pytest.raises(AllAttemptsFailed, match=r"\(1 attempt\).*has no answer left"):
        await orchestrator.get_model_response("llama", "Q")


# --- what it notes -----------------------------------------------------------------------------------


async def test_it_notes_what_it_was_asked() -> None:
    model = FakeModel()
    await model.generate("first", system="Be brief.", temperature=0.5, own="x")
    await streamed(model, "second")
    first, second = model.calls
    assert first.request == ModelRequest.of(
        "first", "Be brief.", SamplingOptions(temperature=0.5, extra={"own": "x"})
    )
    assert (first.number, first.prompt, first.system, first.streamed) == (1, "first", "Be brief.", False)
    assert first.options.given() == {"temperature": 0.5, "own": "x"}
    assert (second.number, second.prompt, second.system, second.streamed) == (2, "second", None, True)
    assert model.prompts == ["first", "second"]


async def test_it_notes_what_became_of_each_call_and_how_many_ran_at_once() -> None:
    model = FakeModel("a", gated=True).fail(at=2)
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(outcomes, model, 1)
            await wait_all_tasks_blocked()
        assert (model.running, len(model.calls)) == (2, 2)
        with trio.move_on_after(0.001):
            await said(model)
        model.gate.set()
    assert [call.outcome for call in model.calls] == ["answered", "failed", "cancelled"]
    assert (model.running, model.most_running, model.cancelled) == (0, 3, 1)
    assert repr(model) == "<FakeModel 'fake', 3 calls: 1 answered, 1 failed, 1 cancelled>"
    assert repr(model.calls[1]) == "<FakeCall 2: failed, 'Q'>"


async def test_a_stream_that_is_left_before_its_end_counts_as_cancelled() -> None:
    model = FakeModel("one two")
    stream = model.stream("Q")
    assert await anext(stream) == "one "
    assert model.running == 1
    await stream.aclose()
    assert (model.running, model.cancelled) == (0, 1)
    assert repr(model.calls) == "[<FakeCall 1: streamed, cancelled, 'Q'>]"


def test_a_model_that_was_not_called_says_so() -> None:
    assert repr(FakeModel(name="llama")) == "<FakeModel 'llama', not called>"
    assert repr(FakeAnswer("a ", "b", seconds=1)) == "FakeAnswer('a ', 'b', seconds=1)"


# --- the gate ----------------------------------------------------------------------------------------


async def test_calls_wait_while_the_gate_is_not_set_and_tell_that_they_have_come() -> None:
    model = FakeModel("a", gated=True)
    assert not model.asked.is_set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(said, model)
        await model.asked.wait()
        await wait_all_tasks_blocked()
        assert model.running == 1
        model.gate.set()
    assert await said(model) == "a"
    model.gate.clear()
    with trio.move_on_after(0.001) as scope:
        await said(model)
    assert scope.cancelled_caught


WRONG: Any = 7
"""No text and no time, as no type checker would let it pass."""


# --- arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FakeModel(WRONG), "the answers of a FakeModel are 7; they must be"),
        (lambda: FakeModel(["a", WRONG]), "an answer of a FakeModel is 7"),
        (lambda: FakeModel({"a": None}), "an answer of a FakeModel is None"),
        (lambda: FakeModel("a", seconds=-1), "seconds is -1; it must be a number of seconds"),
        (lambda: FakeModel("a", piece_seconds=math.nan), "piece_seconds is nan"),
        (lambda: FakeAnswer("a", seconds=-0.5), "seconds is -0.5"),
        (lambda: FakeAnswer("a", WRONG), "a piece of a FakeAnswer is 7"),
        (lambda: FakeModel().fail(times=0), "times is 0"),
        (lambda: FakeModel().fail(at=[1, 0]), "the number of a call is 0"),
        (lambda: FakeModel().fail(times=1, at=1), "give one: how many calls, or which"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        make()


async def test_a_function_that_gives_no_answer_is_told_and_not_retried() -> None:
    model = FakeModel(lambda _request: WRONG)
    with pytest.raises(ModelError, match="an answer of a FakeModel is 7") as caught:
        await said(model)
    assert not caught.value.retryable


# --- the import --------------------------------------------------------------------------------------


def test_importing_it_imports_no_event_loop() -> None:
    code = "import sys, ultra.testing; print({'trio', 'asyncio', 'httpx', 'pytest'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
