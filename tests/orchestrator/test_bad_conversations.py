"""What is no conversation is refused before any call, by each way to ask, with its place and what to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from ultra import BadCall, ChatMessage, FilePart, ImagePart, MultiLLMOrchestrator, Stage
from ultra.messages.chat import ReasoningPart, TextPart, ToolCall
from ultra.messages.functions import FunctionTool
from ultra.messages.media import LARGEST_FILE, LARGEST_IMAGE
from ultra.messages.tools import Tool
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
Q: dict[str, Any] = {"role": "user", "content": "Q"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "R"}


def with_part(part: Any, role: Any = "user") -> list[Any]:
    return [Q, ChatMessage(role, (TextPart("x"), part)), Q]


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ([], r"empty list; it must have at least one message of the role 'user'"),
        ("  ", r"the prompt is empty"),
        ({"role": "user"}, r"must be text \(str\), or a list of messages"),
        (None, r"must be text \(str\), or a list of messages"),
        ([None], r"prompt\[0\] is of type NoneType"),
        ([{"role": "robot", "content": "x"}], r"prompt\[0\]\.role"),
        ([{"role": "user", "content": [{"type": "video"}]}], r"prompt\[0\]\.content\[0\]"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], r"prompt\[0\]\.content\[0\]\.text"),
        ([{"role": "user", "content": ""}], r"prompt\[0\] is empty"),
        ([{"role": "system", "content": "S"}], r"no message of the role 'user'"),
        ([Q, {"role": "assistant", "content": "A"}], r"prompt\[1\], the last message.*'user' or 'tool'"),
        ([Q, RESULT], r"prompt\[1\] is the result of a call 'c1' that no.*put the message"),
        ([Q, {**RESULT, "tool_call_id": None}], r"prompt\[1\].*no tool_call_id"),
        ([Q, CALLS], r"the call 'c1' of prompt\[1\] has no result; end with"),
        ([Q, CALLS, Q], r"prompt\[2\] has the role 'user', but the call 'look|prompt\[2\].*'c1'"),
        ([Q, CALLS, RESULT, RESULT], r"prompt\[3\] is a second result"),
        ([Q, CALLS, RESULT, CALLS, RESULT], r"prompt\[3\]\.tool_calls has the id 'c1'"),
        (
            [
                Q,
                {**CALLS, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "\ud800"}}]},
                RESULT,
            ],
            r"prompt\[1\], the call 'f', cannot be sent as UTF-8",
        ),
        ([{**Q, "tool_calls": [CALL]}, RESULT], r"prompt\[0\] has tool_calls.*only 'assistant'"),
        (with_part(ReasoningPart("thought")), r"prompt\[1\]\.content\[1\] is reasoning"),
        (with_part(ImagePart.of(PNG), "assistant"), r"prompt\[1\]\.content\[1\] is an image or a file"),
        (with_part(ImagePart()), r"prompt\[1\]\.content\[1\] must have either data or url"),
        (
            with_part(ImagePart(PNG)),
            r"prompt\[1\]\.content\[1\], the image, has no media_type; ImagePart\.of",
        ),
        (with_part(ImagePart(b"", media_type="image/png")), r"content\[1\], the image, has no bytes"),
        (
            with_part(ImagePart(bytes(LARGEST_IMAGE + 1), media_type="image/png")),
            r"prompt\[1\]\.content\[1\], the image, has more than 20 MiB; make it smaller",
        ),
        (
            with_part(FilePart(bytes(LARGEST_FILE + 1), media_type="application/pdf")),
            r"prompt\[1\]\.content\[1\], the file, has more than 32 MiB",
        ),
        (
            [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/x;base64,AAAA"}}],
                }
            ],
            r"prompt\[0\]\.content.*no known type; give a PNG",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "/etc/passwd"}}]}],
            r"prompt\[0\]\.content.*must begin with https://",
        ),
    ],
)
async def test_what_is_no_conversation_is_refused_before_any_call(prompt: Any, says: str) -> None:
    model = FakeModel("A")
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", model)
    with pytest.raises(BadCall, match=says):
        await orchestrator.process_responses(prompt)
    with pytest.raises(BadCall, match=says):
        orchestrator.stream_responses(prompt)
    with pytest.raises(BadCall, match=says):
        await orchestrator.get_model_response("a", prompt)
    assert not model.calls


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (b"", "the image is empty"),
        (b"BM bitmap", "give a PNG, JPEG, GIF or WebP image"),
        (bytes(LARGEST_IMAGE + 1), "more than 20 MiB"),
        ("data:image/png;base64,####", "not in base64"),
        ("/no/such/file.png", "cannot be read"),
        ("https://", "is not one of http or https"),
        (3, "of type int; give bytes, a path, a data URL or an address"),
    ],
)
def test_what_is_no_image_is_refused_where_it_is_made(source: Any, says: str) -> None:
    with pytest.raises(BadCall, match=says):
        ImagePart.of(source)


HALF = "cut \ud83d"
"""Half of an emoji."""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"system": HALF}, "the system prompt has a lone surrogate at 4"),
        ({"options": {"stop": HALF}}, "stop has a lone surrogate"),
        ({"options": {"stop": ["END", HALF]}}, "stop has a lone surrogate"),
        ({"options": {"reasoning_effort": HALF}}, "reasoning_effort has a lone surrogate"),
        ({"per_model": {"a": {"role": HALF}}}, "role has a lone surrogate"),
    ],
)
async def test_a_text_beside_the_prompt_that_cannot_be_written_is_refused(
    arguments: dict[str, Any], said: str
) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        model = FakeModel("4")
        orchestrator.register_model("a", model)
        with pytest.raises(BadCall, match=said):
            await orchestrator.process_responses("2+2?", **arguments)
    assert model.calls == []


PDF = b"%PDF-1.7"


def tool(**more: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "look", **more}}]}


def asked(*parts: Any, **more: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "?"}, *parts], **more}]


@pytest.mark.parametrize(
    ("prompt", "arguments", "place"),
    [
        (
            [ChatMessage("user", (TextPart("?"), FilePart(PDF, None, "application/pdf", HALF)))],
            {},
            "prompt[0].content[1]",
        ),
        ([ChatMessage("user", (TextPart("?"), FilePart(None, f"https://a.org/{HALF}")))], {}, "content[1]"),
        ([ChatMessage("user", (TextPart("?"), ImagePart(None, "https://a.org", detail=HALF)))], {}, "ent[1]"),
        ([ChatMessage("user", (TextPart("?", {"type": HALF}),))], {}, "prompt[0].content[0]"),
        ([ChatMessage("user", (TextPart("?", {HALF: "x"}),))], {}, "prompt[0].content[0]"),
        ([ChatMessage("user", "?", name=HALF)], {}, "prompt[0]"),
        (
            asked({"type": "document", "title": HALF, "source": {"type": "text", "data": "a"}}),
            {},
            "prompt[0].content[1]",
        ),
        (asked({"type": "document", "source": {"type": "text", "data": HALF}}), {}, "prompt[0].content[1]"),
        (
            asked({"type": "file", "file": {"filename": HALF, "file_data": "data:text/plain;base64,YQ=="}}),
            {},
            "prompt[0].content[1]",
        ),
        (
            [
                *asked(),
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": HALF}}],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
            ],
            {},
            "prompt[1]",
        ),
        (
            [
                ChatMessage("user", "?"),
                ChatMessage("assistant", "", tool_calls=(ToolCall("1", "f", "{}", HALF),)),
                ChatMessage("tool", "x", tool_call_id="1"),
            ],
            {},
            "prompt[1]",
        ),
        (
            [
                ChatMessage("user", "?"),
                ChatMessage("assistant", (ReasoningPart("a", "openai", encrypted=HALF), TextPart("b"))),
                ChatMessage("user", "?"),
            ],
            {},
            "prompt[1].content[0]",
        ),
        ("?", tool(description=HALF), "'look'"),
        ("?", tool(parameters={"type": "object", "properties": {HALF: {}}}), "'look'"),
        ("?", tool(parameters={"type": "object", "properties": {"a": {"enum": [HALF]}}}), "'look'"),
        ("?", {"output": {"type": "object", "properties": {"a": {"description": HALF}}}}, "schema"),
        ("?", {"options": {"user": HALF}}, "user"),
    ],
)
async def test_every_text_of_a_request_that_cannot_be_written_is_refused_before_any_call(
    prompt: Any, arguments: dict[str, Any], place: str
) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        model = FakeModel("4")
        orchestrator.register_model("a", model)
        with pytest.raises(BadCall) as caught:
            await orchestrator.process_responses(prompt, **arguments)
    assert place in str(caught.value)
    assert model.calls == []


@pytest.mark.parametrize("arguments", [{"models": ["n" * 1_000_000]}, {"strategy": "n" * 1_000_000}])
async def test_an_error_quotes_only_the_beginning_of_a_long_name(arguments: dict[str, Any]) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("a", FakeModel("4"))
        with pytest.raises(BadCall) as caught:
            await orchestrator.process_responses("2+2?", **arguments)
    assert len(str(caught.value)) < 1000


def test_a_stage_whose_system_prompt_cannot_be_written_is_refused() -> None:
    with pytest.raises(BadCall, match="system of stage 'initial' has a lone surrogate"):
        Stage(name="initial", system=HALF)


def test_a_file_whose_name_cannot_be_written_is_refused_where_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"report-\xff.txt")  # a name in another encoding than UTF-8
    path.write_text("A report.", "utf-8")
    with pytest.raises(BadCall, match="the name of the file has a lone surrogate at 7"):
        FilePart.of(path)
    with pytest.raises(BadCall, match="the name of the file has a lone surrogate"):
        FilePart.of(b"A report.", name=HALF)
    assert FilePart.of(path, name="report.txt").name == "report.txt"


def test_a_tool_that_cannot_be_written_is_refused_where_it_is_made() -> None:
    def weather(city: str) -> str:
        return city

    weather.__doc__ = f"Tell the weather. {HALF}"
    with pytest.raises(BadCall, match="the description of the tool 'weather' has a lone surrogate at 22"):
        FunctionTool(weather)
    with pytest.raises(BadCall, match="the parameters of the tool 'f' cannot be written as JSON"):
        Tool("f", parameters={"type": "object", "properties": {"a": object()}})
    endless: dict[str, Any] = {"type": "object"}
    endless["properties"] = endless
    with pytest.raises(BadCall, match="the parameters of the tool 'f' cannot be written as JSON"):
        Tool("f", parameters=endless)
    with pytest.raises(BadCall, match="cache_control of the tool 'f' has a lone surrogate"):
        Tool("f", cache_control={"type": HALF})
