"""Which turns of a conversation a window holds: the oldest go first, and what goes together goes as one."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart, ToolCall
from ultra.messages.conversation import conversation_of
from ultra.messages.request import ModelRequest
from ultra.messages.tokens import estimate_request
from ultra.messages.tools import Tool
from ultra.prompts.history import (
    TURN_MARKERS,
    after_history,
    answer_tokens,
    fit_history,
    fit_request,
    history_of,
    tokens_of,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
PDF = b"%PDF-1.7 page"
TEXTS = st.text("abc ", min_size=1, max_size=400).filter(str.strip)


def calls_and_results(first: int, texts: list[str]) -> list[ChatMessage]:
    calls = tuple(ToolCall(f"c{first + at}", "look") for at in range(len(texts)))
    results = [
        ChatMessage("tool", text, tool_call_id=call.id) for call, text in zip(calls, texts, strict=True)
    ]
    return [ChatMessage("assistant", "", tool_calls=calls), *results]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[ChatMessage, ...]:
    """Conversations as callers may give them, with tool calls and without."""
    messages = [ChatMessage("system", draw(TEXTS))] if draw(st.booleans()) else []
    if draw(st.booleans()):
        messages.append(ChatMessage("assistant", draw(TEXTS)))
    number = 0
    turns = draw(st.integers(1, 6))
    for turn in range(turns):
        messages.append(ChatMessage("user", draw(TEXTS)))
        for texts in draw(st.lists(st.lists(TEXTS, min_size=1, max_size=3), max_size=3)):
            messages += calls_and_results(number, texts)
            number += len(texts)
        if turn < turns - 1 and draw(st.booleans()):
            messages.append(ChatMessage("assistant", draw(TEXTS)))
    found = conversation_of(messages)
    assert found == tuple(messages)
    return found


def always_kept(messages: tuple[ChatMessage, ...]) -> list[ChatMessage]:
    """System messages, the question, and the newest call after it with its results."""
    question = max(at for at, message in enumerate(messages) if message.role == "user")
    after = [at for at in range(question + 1, len(messages)) if messages[at].role == "assistant"]
    newest = after[-1] if after else len(messages)
    return [
        message
        for at, message in enumerate(messages)
        if message.role == "system" or at == question or at >= newest
    ]


def size(request: ModelRequest) -> int:
    return estimate_request(request) + TURN_MARKERS * len(request.messages)


def is_subsequence(part: tuple[ChatMessage, ...], whole: tuple[ChatMessage, ...]) -> bool:
    rest = iter(whole)
    return all(any(message is each for each in rest) for message in part)


def whole_calls(messages: tuple[ChatMessage, ...]) -> bool:
    """Whether each call stands with its results right behind it, and each result behind its call."""
    called = [call.id for message in messages for call in message.tool_calls]
    return called == [message.tool_call_id for message in messages if message.role == "tool"]


@given(conversations(), st.integers(0, 1500))
def test_a_request_fits_whenever_it_can_and_loses_no_more_than_it_must(
    messages: tuple[ChatMessage, ...], budget: int
) -> None:
    request = ModelRequest(messages=messages, tools=(Tool("look"),))
    fitted = fit_request(request, budget=budget)
    kept = fitted.request.messages
    assert is_subsequence(kept, messages)
    assert is_subsequence(tuple(always_kept(messages)), kept)
    assert whole_calls(kept)
    least = ModelRequest(messages=tuple(always_kept(messages)), tools=request.tools)
    assert size(fitted.request) <= budget or fitted.request == least
    assert fitted.left_out == len(messages) - len(kept)
    assert fitted.tokens == size(request) - size(fitted.request)
    if size(request) <= budget:
        assert fitted.request is request
    said = [message for message in kept if message.role != "system"]
    if fitted.left_out:
        assert said[0].role == "user", "some APIs take no conversation that the assistant begins"


@given(conversations(), st.integers(0, 1500))
def test_what_goes_is_older_than_what_stays(messages: tuple[ChatMessage, ...], budget: int) -> None:
    fixed = {id(message) for message in always_kept(messages)}
    kept = {
        id(message)
        for message in fit_request(ModelRequest(messages=messages), budget=budget).request.messages
    }
    free = [id(message) in kept for message in messages if id(message) not in fixed]
    assert free == sorted(free)


@given(conversations(), st.integers(0, 1500))
def test_a_history_for_readers_fits_always(messages: tuple[ChatMessage, ...], room: int) -> None:
    history = history_of(messages)
    kept = fit_history(history, room)
    assert sum(map(tokens_of, kept.messages)) <= room
    assert is_subsequence(kept.messages, history)
    assert whole_calls(kept.messages)
    assert kept.left_out == len(history) - len(kept.messages)
    assert not kept.left_out or not kept.messages or kept.messages[0].role == "user"


@given(conversations())
def test_a_history_has_all_before_the_question_and_with_it_if_tool_calls_follow(
    messages: tuple[ChatMessage, ...],
) -> None:
    said = tuple(message for message in messages if message.role != "system")
    assert history_of(messages) == (said[:-1] if said[-1].role == "user" else said)


def test_messages_that_a_strategy_adds_stay() -> None:
    old = tuple(ChatMessage(role, "word " * 50) for role in ("user", "assistant"))
    question = ChatMessage("user", "Why?")
    request = ModelRequest(messages=(*old, question))
    added = (ChatMessage("assistant", "Because. " * 50), ChatMessage("user", "Go on."))
    longer = ModelRequest(messages=(*request.messages, *added))
    fitted = fit_request(longer, budget=10, turns=request.messages)
    assert fitted.request.messages == (question, *added)


def test_a_model_that_sees_nothing_is_told_in_words_and_documents_of_text_whole() -> None:
    parts = (ImagePart.of(PNG), FilePart.of(PDF, name="a.pdf"), FilePart.of(b"plain words"), TextPart("Q"))
    request = ModelRequest(messages=(ChatMessage("user", parts),))
    fitted = fit_request(request, images=False, files=False)
    assert (fitted.images, fitted.files) == (1, 1)
    assert fitted.request.prompt == (
        "[An image (image/png) stood here, which is not shown.]\n"
        "[A file 'a.pdf' (application/pdf) stood here, which is not shown.]\nplain words\nQ"
    )
    assert fit_request(request, images=True, files=None).request is request
    only_images = fit_request(request, images=True, files=False)
    assert (only_images.images, only_images.files) == (0, 1)
    assert only_images.request.has_images


def test_another_prompt_stands_in_place_of_the_question_behind_the_same_history() -> None:
    old = (ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello"))
    image = ImagePart.of(PNG)
    request = ModelRequest(
        messages=(ChatMessage("system", "S"), *old, ChatMessage("user", (image, TextPart("Q")))),
        tools=(Tool("look"),),
    )
    made = after_history(request, "Improve it.", "Be brief.")
    assert made.messages == (
        ChatMessage("system", "Be brief."),
        *old,
        ChatMessage("user", (image, TextPart("Improve it."))),
    )
    assert made.tools == ()


def test_tools_stay_beside_tool_calls_but_none_is_to_be_called() -> None:
    messages = (ChatMessage("user", "Q"), *calls_and_results(0, ["42"]))
    request = ModelRequest(messages=messages, tools=(Tool("look"),))
    made = after_history(request, "Compare.", None)
    assert made.messages == (*messages, ChatMessage("user", "Compare."))
    assert made.tools == request.tools
    assert made.tool_choice is not None
    assert made.tool_choice.mode == "none"


def test_the_answer_has_a_quarter_of_the_window_or_what_it_may_take_up_to_a_half() -> None:
    assert [answer_tokens(8000, limit) for limit in (None, 100, 3000, 9000)] == [2000, 2000, 3000, 4000]


def test_fitting_takes_time_linear_in_the_history() -> None:
    def steps(turns: int) -> int:
        messages = [ChatMessage("user", "Q"), ChatMessage("assistant", "A")] * turns
        for number in range(turns):
            messages += calls_and_results(number, ["x"])
        request = ModelRequest(messages=tuple(messages))
        count = 0

        def trace(*_: object) -> object:
            nonlocal count
            count += 1
            return trace

        sys.settrace(trace)  # type: ignore[arg-type]
        try:
            fit_request(request, budget=20)
        finally:
            sys.settrace(None)
        return count

    assert steps(400) < 5 * steps(100)
