"""What callers give as a prompt: texts, messages, and the dicts of OpenAI's and Anthropic's APIs."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra import BadCall, ChatMessage, FilePart, ImagePart, ModelRequest, TextPart, ToolCall
from ultra.messages.chat import ReasoningPart
from ultra.messages.conversation import conversation_of, with_system
from ultra.messages.media import LARGEST_IMAGE
from ultra.messages.openai_form import messages_as_openai
from ultra.messages.rendering import as_text, without_media

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + bytes(16)
PNG_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
PDF = b"%PDF-1.7\n" + bytes(8)
PDF_URL = "data:application/pdf;base64," + base64.b64encode(PDF).decode()
QUESTION = {"role": "user", "content": "Q"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "7"}


def test_a_text_is_one_message_of_the_user() -> None:
    assert conversation_of("Q") == (ChatMessage("user", "Q"),)


def test_messages_in_openais_form_are_taken() -> None:
    conversation = conversation_of(
        [
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF_URL}},
                ],
            },
            CALLED,
            RESULT,
        ]
    )

    assert conversation == (
        ChatMessage("system", "Be brief."),
        ChatMessage(
            "user",
            (
                TextPart("What is this?"),
                ImagePart(PNG, None, "image/png", "low"),
                ImagePart(url="https://example.org/a.png"),
                FilePart(PDF, None, "application/pdf", "a.pdf"),
            ),
        ),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", '{"x":1}'),)),
        ChatMessage("tool", "7", tool_call_id="c1"),
    )


def test_messages_in_anthropics_form_are_taken() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    conversation = conversation_of(
        [
            {"role": "user", "content": [{"type": "image", "source": image}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "redacted_thinking", "data": "zzz"},
                    {"type": "text", "text": "I look it up."},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"x": 1}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "no", "is_error": True},
                    {"type": "text", "text": "Well?", "cache_control": {"type": "ephemeral"}},
                ],
            },
        ]
    )

    assert conversation[0].content == (ImagePart(PNG, None, "image/png"),)
    assert conversation[1] == ChatMessage(
        "assistant",
        (
            ReasoningPart("Hm.", "anthropic", signature="s"),
            ReasoningPart(provider="anthropic", encrypted="zzz"),
            TextPart("I look it up."),
        ),
        tool_calls=(ToolCall("c1", "f", '{"x":1}'),),
    )
    assert conversation[2] == ChatMessage("tool", "no", tool_call_id="c1", is_error=True)
    assert conversation[3].content == (TextPart("Well?", {"type": "ephemeral"}),)


def test_messages_of_an_sdk_are_taken() -> None:
    from openai.types.chat import ChatCompletionMessage  # noqa: PLC0415 - slow to import

    answer = ChatCompletionMessage(role="assistant", content="Hello!")
    assert conversation_of([QUESTION, answer, QUESTION])[1] == ChatMessage("assistant", "Hello!")


def test_what_an_sdk_gave_is_taken_inside_a_message_too() -> None:
    from anthropic.types import TextBlock, ThinkingBlock, ToolUseBlock  # noqa: PLC0415 - slow to import
    from openai.types.chat import ChatCompletionMessageToolCall  # noqa: PLC0415

    blocks = [
        ThinkingBlock(type="thinking", thinking="hm", signature="s"),
        TextBlock(type="text", text="I look.", citations=None),
        ToolUseBlock(type="tool_use", id="c1", name="f", input={"x": 1}),
    ]
    results = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "7"}]}
    assert conversation_of([QUESTION, {"role": "assistant", "content": blocks}, results])[1] == ChatMessage(
        "assistant",
        (ReasoningPart("hm", "anthropic", signature="s"), TextPart("I look.")),
        tool_calls=(ToolCall("c1", "f", '{"x":1}'),),
    )

    calls = [ChatCompletionMessageToolCall.model_validate(CALL)]
    called = {"role": "assistant", "content": None, "tool_calls": calls}
    assert conversation_of([QUESTION, called, RESULT])[1].tool_calls == (ToolCall("c1", "f", '{"x":1}'),)


def test_system_messages_at_the_beginning_and_the_system_prompt_are_joined() -> None:
    given = [{"role": "system", "content": "B"}, {"role": "system", "content": "C"}, QUESTION]
    assert with_system(conversation_of(given), "A")[0] == ChatMessage("system", "A\n\nB\n\nC")


def test_a_hint_of_what_to_cache_stays_at_its_part() -> None:
    hint = {"type": "ephemeral"}
    given = [{"role": "system", "content": [{"type": "text", "text": "B", "cache_control": hint}]}, QUESTION]
    assert with_system(conversation_of(given), "A")[0].content == (TextPart("A"), TextPart("B", hint))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (7, r"the prompt is of type int; it must be text \(str\), or a list of messages"),
        (QUESTION, "the prompt is of type dict"),
        ("  ", "the prompt is empty"),
        ([], "an empty list; it must have at least one message of the role 'user'"),
        ([7], r"prompt\[0\] is of type int; it must be a ChatMessage, or a mapping"),
        (
            [QUESTION, {"content": "x"}],
            r"prompt\[1\]: .*missing required field `role`; it must be .*assistant",
        ),
        (
            [{"role": "boss", "content": "x"}],
            r"prompt\[0\].role: Invalid enum value 'boss'; it must be one of: system, developer, user",
        ),
        (
            [{"role": "user", "content": [{"text": "x"}]}],
            r"prompt\[0\].content\[0\]: .*field `type`; it must be one of: text, .*image_url",
        ),
        (
            [{"role": "user", "content": [{"type": "smell"}]}],
            r"prompt\[0\].content\[0\].type: .*'smell'; it must be one of: text, .*image_url",
        ),
        ([{"role": "user", "content": 7}], r"prompt\[0\].content: Expected .*got `int`"),
        ([{"role": "user", "content": "\ud800"}], r"prompt\[0\].content\[0\] cannot be sent as UTF-8"),
        ([{"role": "user", "content": " "}], r"prompt\[0\] is empty; .* must have text, an image or a file"),
        ([{"role": "system", "content": "x"}], "no message of the role 'user'"),
        ([QUESTION, {"role": "assistant", "content": "x"}], r"prompt\[1\], the last message, has the role"),
        ([QUESTION, RESULT], r"prompt\[1\] is the result of a call 'c1' that no assistant's message"),
        ([QUESTION, CALLED, QUESTION], r"prompt\[2\] has the role 'user', but the call 'c1' of prompt\[1\]"),
        ([QUESTION, CALLED], r"the call 'c1' of prompt\[1\] has no result; end with a message of the role"),
        ([QUESTION, CALLED, RESULT, RESULT], r"prompt\[3\] is a second result of the call 'c1'"),
        ([QUESTION, CALLED, {"role": "tool", "content": "x"}], r"prompt\[2\] .* no tool_call_id"),
        ([{**QUESTION, "tool_calls": [CALL]}], r"prompt\[0\] has tool_calls, but the role 'user'"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "/etc/passwd"}]}],
            r"prompt\[0\].content\[0\]: '/etc/passwd' is no address",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,AAAA"}]}],
            r"prompt\[0\].content\[0\]: the image is of no known type; give a PNG, JPEG, GIF or WebP image",
        ),
        (
            [
                QUESTION,
                CALLED,
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [
                                {"type": "text", "text": "x"},
                                {"type": "image", "source": {"type": "url", "url": "/etc/passwd"}},
                            ],
                        }
                    ],
                },
            ],
            r"prompt\[2\].content\[0\].content\[1\]: '/etc/passwd' is no address",
        ),
        ([{**QUESTION, "images": ["iVBORw0"]}], r"prompt\[0\] has the key 'images', .*parts of the content"),
        ([{"role": "user", "parts": [{"text": "Q"}]}], r"prompt\[0\] has the key 'parts', .*as 'content'"),
        (
            [QUESTION, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, QUESTION],
            r"prompt\[1\] has the key 'function_call', .*'tool_calls'",
        ),
    ],
)
def test_a_bad_conversation_is_refused_with_its_place(prompt: Any, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        conversation_of(prompt)


def test_lists_none_and_mappings_in_a_message_become_what_it_has() -> None:
    picture = ImagePart.of("https://example.org/a.png")
    loose: list[Any] = [
        ChatMessage("user", [TextPart("Q"), picture]),  # type: ignore[arg-type]
        ChatMessage("assistant", None, tool_calls=[ToolCall("c1", "f", {"x": 1})]),  # type: ignore[arg-type]
        ChatMessage("tool", "7", tool_call_id="c1"),
    ]

    assert conversation_of(loose) == (
        ChatMessage("user", (TextPart("Q"), picture)),
        ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", '{"x":1}'),)),
        ChatMessage("tool", "7", tool_call_id="c1"),
    )


WRONG: Any = {
    "number": ChatMessage("user", 7),  # type: ignore[arg-type]
    "role": ChatMessage("boss", "x"),  # type: ignore[arg-type]
    "one part": ChatMessage("user", TextPart("x")),  # type: ignore[arg-type]
    "text": ChatMessage("user", ("x",)),  # type: ignore[arg-type]
    "mapping": ChatMessage("user", ({"type": "text", "text": "x"},)),  # type: ignore[arg-type]
    "no text": ChatMessage("user", (TextPart(None),)),  # type: ignore[arg-type]
    "a call": ChatMessage("assistant", "", tool_calls=ToolCall("c1", "f")),  # type: ignore[arg-type]
    "id": ChatMessage("assistant", "", tool_calls=(ToolCall(1, "f"),)),  # type: ignore[arg-type]
    "arguments": ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "f", {"x": object()}),)),  # type: ignore[arg-type]
    "error": ChatMessage("tool", "x", tool_call_id="c1", is_error="yes"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("number", r"prompt\[1\].content is of type int; give text, or a tuple of TextPart"),
        ("role", r"prompt\[1\].role: Invalid enum value 'boss'"),
        ("one part", r"prompt\[1\].content is of type TextPart; give text, or a tuple"),
        ("text", r"prompt\[1\].content\[0\] is of type str; give text, or a tuple of TextPart"),
        ("mapping", r"prompt\[1\].content\[0\] is of type dict"),
        ("no text", r"prompt\[1\].content\[0\].text: Expected `str`, got `null`"),
        ("a call", r"prompt\[1\].tool_calls is of type ToolCall; give a tuple of ToolCall objects"),
        ("id", r"prompt\[1\].tool_calls\[0\].id: Expected `str`, got `int`"),
        ("arguments", r"prompt\[1\].tool_calls\[0\].arguments cannot be written as JSON"),
        ("error", r"prompt\[1\].is_error: Expected `bool`, got `str`"),
    ],
)
def test_a_message_with_a_wrong_type_inside_is_refused_with_its_place(wrong: str, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        conversation_of([QUESTION, WRONG[wrong]])


def test_images_are_told_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "photo.txt"
    path.write_bytes(PNG)

    for source in (PNG, path, str(path), PNG_URL.replace("image/png", "image/jpeg")):
        assert ImagePart.of(source) == ImagePart(PNG, None, "image/png")
    assert ImagePart.of(b"RIFF\0\0\0\0WEBP").media_type == "image/webp"
    path.write_text("words")
    assert FilePart.of(path) == FilePart(b"words", None, "text/plain", "photo.txt")


def test_an_image_of_an_unknown_type_or_above_the_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadCall, match="of no known type"):
        ImagePart.of(b"hello")
    with pytest.raises(BadCall, match="more than 20 MiB"):
        ImagePart.of(PNG + bytes(LARGEST_IMAGE))
    (tmp_path / "paper.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(BadCall, match=r"the image 'paper.pdf' is of no known type; give a PNG"):
        ImagePart.of(tmp_path / "paper.pdf")
    (tmp_path / "x.bin").write_bytes(bytes(8))
    with pytest.raises(BadCall, match=r"the file 'x.bin' is of no known type; give a PDF"):
        FilePart.of(tmp_path / "x.bin")
    with pytest.raises(BadCall, match="cannot be read"):
        ImagePart.of(tmp_path / "none.png")
    for address in ("https://", "ftp://example.com/a.png", "file:///tmp/a.png"):
        with pytest.raises(
            BadCall, match=r"'(https|ftp|file)://.*' of the image is not one of http or https"
        ):
            ImagePart.of(address)


def test_neither_repr_nor_rich_shows_the_bytes_of_an_image() -> None:
    assert repr(ImagePart.of(PNG)) == "ImagePart(24 bytes, media_type='image/png')"
    assert ImagePart.of(PNG).__rich_repr__() == [("", "24 bytes, media_type='image/png'")]


def test_a_conversation_as_text_names_roles_and_tells_images() -> None:
    image = {"type": "image_url", "image_url": {"url": PNG_URL}}
    text = {"type": "text", "text": "What?"}
    given = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": [text, image]},
        CALLED,
        RESULT,
    ]
    assert as_text(conversation_of(given)) == (
        "S\n\n"
        "User: What?\n[An image (image/png) stood here, which is not shown.]\n\n"
        'Assistant: [calls f({"x":1})]\n\n'
        "Tool result: 7"
    )


def test_images_can_be_replaced_by_words() -> None:
    messages = (ChatMessage("user", (TextPart("Q"), ImagePart.of(PNG), FilePart.of(PDF, name="a.pdf"))),)
    spoken = without_media(messages, files=True)
    assert spoken[0].content == (
        TextPart("Q"),
        TextPart("[An image (image/png) stood here, which is not shown.]"),
        FilePart.of(PDF, name="a.pdf"),
    )


def test_the_question_is_the_text_of_the_users_last_message() -> None:
    request = ModelRequest.of([QUESTION, CALLED, RESULT], "S")
    assert request.prompt == "Q"
    assert request.system == "S"
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]


texts = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)
IMAGES = [PNG_URL, "https://a.example/b"]
turns = st.lists(
    st.tuples(
        texts, texts, st.booleans(), st.lists(st.sampled_from([PNG_URL, "https://a.example/b"]), max_size=2)
    ),
    min_size=1,
    max_size=4,
)


@given(turns)
def test_openais_form_goes_there_and_back(drawn: list[tuple[str, str, bool, list[str]]]) -> None:
    given_messages: list[dict[str, Any]] = []
    for number, (question, answer, calls, images) in enumerate(drawn):
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in images]
        given_messages.append({"role": "user", "content": [{"type": "text", "text": question}, *parts]})
        call = {"id": f"c{number}", "function": {"name": "f", "arguments": "{}"}}
        if calls:
            given_messages.append({"role": "assistant", "content": answer, "tool_calls": [call]})
            given_messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": answer})
        else:
            given_messages.append({"role": "assistant", "content": answer})
    given_messages.append(QUESTION)

    conversation = conversation_of(given_messages)

    assert conversation_of(messages_as_openai(conversation)) == conversation
    request = ModelRequest(messages=conversation)
    assert msgspec.json.decode(msgspec.json.encode(request), type=ModelRequest) == request


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("kind", [ImagePart, FilePart])
def test_a_pipe_and_a_device_are_no_files_and_are_not_waited_for(
    kind: type[ImagePart | FilePart], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero", "/dev/null"):
        with pytest.raises(BadCall, match="is a device or a pipe, and no file"):
            kind.of(path)
    with pytest.raises(BadCall, match="cannot be read"):
        kind.of(tmp_path)
