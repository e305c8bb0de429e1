"""Turns with tools, told in words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ultra.messages.chat import ChatMessage, ImagePart, TextPart, ToolCall
from ultra.messages.conversation import conversation_of
from ultra.messages.tool_turns import with_tool_turns_told

IMAGE = ImagePart(b"\x89PNG\r\n\x1a\n", media_type="image/png")
CALLS = (ToolCall("1", "f", '{"x":1}'), ToolCall("2", "g"))


def test_a_conversation_without_tools_stays_as_it_is() -> None:
    messages = (ChatMessage("system", "S"), ChatMessage("user", "Q"), ChatMessage("assistant", "A"))

    assert with_tool_turns_told(messages) == messages


def test_what_tools_gave_stands_with_the_question_that_they_were_called_for() -> None:
    told = with_tool_turns_told(
        [
            ChatMessage("user", "Q1"),
            ChatMessage(
                "assistant", "I look.", tool_calls=(ToolCall("1", "f", '{"x":1}'), ToolCall("2", "g"))
            ),
            ChatMessage("tool", "one", tool_call_id="1", name="f"),
            ChatMessage("tool", "no", tool_call_id="2", is_error=True),
            ChatMessage("assistant", "A1"),
            ChatMessage("user", "Q2"),
        ]
    )

    assert told == (
        ChatMessage(
            "user",
            "Q1\n\n[Tools were called for this. The calls, and what they gave:]\n"
            'I look.\nf({"x":1})\ng({})\nf gave:\none\nthe tool failed:\nno',
        ),
        ChatMessage("assistant", "A1"),
        ChatMessage("user", "Q2"),
    )


def test_images_of_question_and_results_stay() -> None:
    (told,) = with_tool_turns_told(
        [
            ChatMessage("user", (TextPart("Q"), IMAGE)),
            ChatMessage("assistant", tool_calls=(ToolCall("1", "f"),)),
            ChatMessage("tool", (IMAGE, TextPart("that")), tool_call_id="1", name="f"),
        ]
    )

    assert [part for part in told.parts if isinstance(part, ImagePart)] == [IMAGE, IMAGE]
    assert [part.text.splitlines()[-1] for part in told.parts if isinstance(part, TextPart)] == [
        "Q",
        "f gave:",
        "that",
    ]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5))
def test_what_is_told_is_a_conversation_that_can_be_answered(turns: list[tuple[int, bool]]) -> None:
    messages = []
    for number, (calls, answered) in enumerate(turns):
        messages.append(ChatMessage("user", f"Q{number}"))
        if calls:
            made = tuple(ToolCall(f"{number}/{each}", "f") for each in range(calls))
            messages.append(ChatMessage("assistant", tool_calls=made))
            messages += [ChatMessage("tool", call.id, tool_call_id=call.id) for call in made]
        if answered and number < len(turns) - 1:
            messages.append(ChatMessage("assistant", f"A{number}"))

    told = with_tool_turns_told(messages)

    assert conversation_of(told) == told
    assert all(not message.tool_calls and message.role != "tool" for message in told)
    text = "\n".join(message.text for message in told)
    assert all(message.text in text for message in messages)
