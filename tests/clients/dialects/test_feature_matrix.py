"""Every feature of a conversation in every dialect, plain and streamed, against the simulated provider.

The provider reads and checks what a client sends with code of its own, as the real APIs do.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Struct
from msgspec.structs import replace

from helpers.dialect_clients import DIALECTS, answer, dialect_client, going_on, last_question, turn_of
from ultra.errors import ModelError
from ultra.faults.plan import FaultPlan
from ultra.faults.provider import Call, Media, Reply, SimulatedProvider, simulated_provider
from ultra.messages.chat import ChatMessage, FilePart, ImagePart, ReasoningPart, TextPart, ToolCall
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.clients import HTTPClient

every_dialect = pytest.mark.parametrize("dialect", DIALECTS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF = b"%PDF-1.7 " + bytes(range(32, 60))
ADDRESS = "https://example.com/cat.png"
HINT = {"type": "ephemeral"}

WEATHER = Tool(
    "weather",
    "What the weather is.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
)
CLOCK = Tool("clock", "What the time is.")
TOOLS = (WEATHER, CLOCK)
ASKED = ModelRequest(messages=(ChatMessage("user", "Is it warm in Rome?"),), tools=TOOLS)

ONE = (Call("weather", {"city": "Röme \U0001f600", "days": 2}),)
TWO = (*ONE, Call("clock", {}))


@asynccontextmanager
async def client_of(
    provider: SimulatedProvider, dialect: str, model: str = "any"
) -> AsyncIterator[HTTPClient]:
    client = dialect_client(provider, dialect, model=model)
    try:
        yield client
    finally:
        await client.aclose()


def user(*parts: TextPart | ImagePart | FilePart) -> ModelRequest:
    return ModelRequest(messages=(ChatMessage("user", parts),))


def arguments_of(calls: tuple[ToolCall, ...]) -> list[tuple[str, Any]]:
    return [(call.name, msgspec.json.decode(call.arguments)) for call in calls]


# --- text, images, documents ---------------------------------------------------------------------


@every_dialect
@streamed_or_not
async def test_text_and_a_system_prompt(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    provider.script("It is 4.")
    async with client_of(provider, dialect) as client:
        completion = await answer(client, ModelRequest.of("2 + 2?", "Be brief."), stream=stream)

    assert (completion.content, completion.finish_reason, completion.tool_calls) == ("It is 4.", "stop", ())
    question = last_question(provider)
    assert (question.system, question.prompt, len(question.messages)) == ("Be brief.", "2 + 2?", 1)


@every_dialect
@streamed_or_not
async def test_the_bytes_of_an_image(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    async with client_of(provider, dialect) as client:
        text = await answer(client, user(TextPart("What is it?")), stream=stream)
        seen = await answer(client, user(TextPart("What is it?"), ImagePart.of(PNG)), stream=stream)

    assert last_question(provider).images == (Media("image", "image/png", len(PNG)),)
    assert last_question(provider).prompt == "What is it?"
    assert seen.usage
    assert text.usage
    assert (seen.usage.input or 0) - (text.usage.input or 0) == 258


@every_dialect
@streamed_or_not
async def test_the_address_of_an_image(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    asked = user(TextPart("What is it?"), ImagePart.of(ADDRESS))
    async with client_of(provider, dialect) as client:
        if dialect == "ollama":  # it takes bytes alone, and nobody has allowed to fetch them
            with pytest.raises(ModelError, match="fetch_urls=True"):
                await answer(client, asked, stream=stream)
            return
        await answer(client, asked, stream=stream)

    assert last_question(provider).images == (Media("image", None, 0, ADDRESS),)


@every_dialect
@streamed_or_not
async def test_a_document(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    parts = (TextPart("Sum it up."), FilePart.of(PDF, name="a.pdf"))
    async with client_of(provider, dialect) as client:
        await answer(client, user(*parts), stream=stream)

    question = last_question(provider)
    if dialect == "ollama":  # it takes none
        assert (question.documents, "'a.pdf'" in question.prompt) == ((), True)
    else:
        assert question.documents == (Media("document", "application/pdf", len(PDF)),)


@every_dialect
@streamed_or_not
async def test_a_hint_of_what_to_cache_goes_only_where_it_is_taken(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    request = ModelRequest(
        messages=(
            ChatMessage("system", (TextPart("Be brief.", HINT),)),
            ChatMessage(
                "user", (TextPart("A long text.", HINT), ImagePart(PNG, None, "image/png", None, HINT))
            ),
        ),
        tools=(replace(WEATHER, cache_control=HINT),),
    )
    async with client_of(provider, dialect) as client:
        await answer(client, request, stream=stream)

    question = last_question(provider)
    assert (question.system, question.prompt, len(question.images)) == ("Be brief.", "A long text.", 1)
    assert ("cache_control" in str(provider.requests[-1].body)) is (dialect == "anthropic")
    assert question.messages[0].cached is (dialect == "anthropic")


@streamed_or_not
async def test_openrouter_takes_hints_of_what_to_cache(provider: SimulatedProvider, *, stream: bool) -> None:
    async with client_of(provider, "openrouter") as client:
        await answer(client, user(TextPart("A long text.", HINT)), stream=stream)

    assert last_question(provider).messages[0].cached
    assert provider.requests[-1].protocol == "openrouter"


# --- tools ---------------------------------------------------------------------------------------


@every_dialect
@streamed_or_not
async def test_a_call_of_a_tool(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    provider.script(Reply(calls=ONE))
    async with client_of(provider, dialect) as client:
        completion = await answer(client, ASKED, stream=stream)

    assert (completion.content, completion.finish_reason) == ("", "tool_calls")
    assert arguments_of(completion.tool_calls) == [("weather", {"city": "Röme \U0001f600", "days": 2})]
    assert completion.usage
    assert completion.usage.output
    question = last_question(provider)
    assert [(tool.name, tool.description, tool.parameters) for tool in question.tools] == [
        (tool.name, tool.description, tool.parameters) for tool in TOOLS
    ]
    assert question.choice == ToolChoice("auto")


@every_dialect
@streamed_or_not
async def test_text_before_calls_made_at_once(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply("Let me look.", calls=TWO))
    async with client_of(provider, dialect) as client:
        completion = await answer(client, ASKED, stream=stream)

    assert (completion.content, completion.finish_reason) == ("Let me look.", "tool_calls")
    assert [name for name, _ in arguments_of(completion.tool_calls)] == ["weather", "clock"]
    assert len({call.id for call in completion.tool_calls}) == 2


@every_dialect
@streamed_or_not
async def test_results_and_errors_of_tools(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply("Let me look.", calls=TWO))
    async with client_of(provider, dialect) as client:
        called = await answer(client, ASKED, stream=stream)
        first, second = called.tool_calls
        request = going_on(
            ASKED,
            turn_of(called),
            ChatMessage("tool", "21 degrees", tool_call_id=first.id),
            ChatMessage("tool", "no clock here", tool_call_id=second.id, is_error=True),
        )
        completion = await answer(client, request, stream=stream)

    assert completion.finish_reason == "stop"
    assert "21 degrees" in completion.content
    question = last_question(provider)
    assert [result.text for result in question.results] == ["21 degrees", "no clock here"]
    assert [call.name for message in question.messages for call in message.calls] == ["weather", "clock"]
    assert (
        "".join(each.text for each in question.messages if each.role in {"assistant", "model"})
        == "Let me look."
    )
    if dialect in {"anthropic", "gemini"}:  # the others have no word for it
        assert [result.is_error for result in question.results] == [False, True]
    if dialect != "ollama":
        assert [result.id for result in question.results] == [first.id, second.id]
    if dialect in {"gemini", "ollama"}:
        assert [result.name for result in question.results] == ["weather", "clock"]


@every_dialect
@streamed_or_not
async def test_images_in_the_results_of_tools(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply(calls=TWO))
    async with client_of(provider, dialect) as client:
        called = await answer(client, ASKED, stream=stream)
        first, second = called.tool_calls
        request = going_on(
            ASKED,
            turn_of(called),
            ChatMessage("tool", (TextPart("a map"), ImagePart.of(PNG)), tool_call_id=first.id),
            ChatMessage("tool", (ImagePart.of(PNG),), tool_call_id=second.id),
        )
        completion = await answer(client, request, stream=stream)

    assert completion.content
    question = last_question(provider)
    assert question.images == (Media("image", "image/png", len(PNG)),) * 2
    results = [result for message in question.messages for result in message.results]
    assert results[0].text == "a map"


CHOICES = [
    (None, ["weather"]),
    (ToolChoice("auto"), ["weather"]),
    (ToolChoice("none"), []),
    (ToolChoice("required"), ["weather"]),
    (ToolChoice("required", parallel=False), ["weather"]),
    (ToolChoice("named", "clock"), ["clock"]),
]


@every_dialect
@streamed_or_not
@pytest.mark.parametrize(("choice", "called"), CHOICES)
async def test_which_tool_must_be_called(
    provider: SimulatedProvider, dialect: str, choice: ToolChoice | None, called: list[str], *, stream: bool
) -> None:
    request = ModelRequest.of("Use your tools.")
    async with client_of(provider, dialect) as client:
        given = replace(request, tools=TOOLS, tool_choice=choice)
        completion = await answer(client, given, stream=stream)

    assert [call.name for call in completion.tool_calls] == called
    assert completion.finish_reason == ("tool_calls" if called else "stop")
    question = last_question(provider)
    if dialect == "ollama":  # it has no choice, so it gets only the tools that it may call
        offered = {"none": [], "named": ["clock"]}.get((choice or ToolChoice()).mode, ["weather", "clock"])
        assert [tool.name for tool in question.tools] == offered
    elif choice is not None:
        known = replace(choice, parallel=None if dialect == "gemini" else choice.parallel)
        assert question.choice == known


@every_dialect
@streamed_or_not
async def test_an_unscripted_model_calls_the_tools_that_are_named(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    request = ModelRequest(messages=(ChatMessage("user", "Ask weather and clock."),), tools=TOOLS)
    async with client_of(provider, dialect) as client:
        completion = await answer(client, request, stream=stream)

    (weather, given), (clock, nothing) = arguments_of(completion.tool_calls)
    assert (weather, clock, nothing) == ("weather", "clock", {})
    assert isinstance(given["city"], str)
    assert 1 <= given["days"] <= 7


async def test_all_dialects_get_the_same_calls_unscripted(provider: SimulatedProvider) -> None:
    request = ModelRequest(messages=(ChatMessage("user", "Ask weather."),), tools=TOOLS)
    found = []
    for dialect in DIALECTS:
        async with client_of(provider, dialect) as client:
            found.append(arguments_of((await answer(client, request, stream=False)).tool_calls))

    assert all(calls == found[0] for calls in found)


@every_dialect
@streamed_or_not
async def test_a_cut_call_is_never_handed_out(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply(calls=TWO))
    async with client_of(provider, dialect) as client:
        request = replace(ASKED, options=SamplingOptions(max_tokens=4))
        completion = await answer(client, request, stream=stream)

    assert (completion.finish_reason, completion.tool_calls) == ("length", ())


@every_dialect
async def test_a_stream_that_is_cut_anywhere_gives_whole_calls_or_an_error(dialect: str) -> None:
    count = 0
    for count in range(40):
        plan = FaultPlan().http_disconnect(after_bytes=100 * count)
        async with simulated_provider(faults=plan) as provider, client_of(provider, dialect) as client:
            provider.script(Reply(calls=ONE))
            try:
                completion = await answer(client, ASKED, stream=True)
            except ModelError:
                continue
            assert arguments_of(completion.tool_calls) == [("weather", ONE[0].arguments)]
            break
    assert count > 2


# --- structured output ---------------------------------------------------------------------------


class Person(Struct):
    name: str
    age: int
    tags: list[str]


@every_dialect
@streamed_or_not
async def test_json_by_a_schema(provider: SimulatedProvider, dialect: str, *, stream: bool) -> None:
    schema = msgspec.json.schema(Person)
    request = replace(ModelRequest.of("Who is it?"), output=JsonSchema("person", schema))
    async with client_of(provider, dialect) as client:
        completion = await answer(client, request, stream=stream)

    assert isinstance(msgspec.json.decode(completion.content, type=Person), Person)
    assert completion.finish_reason == "stop"
    assert last_question(provider).schema == schema


# --- reasoning -----------------------------------------------------------------------------------


@every_dialect
@streamed_or_not
async def test_what_was_thought_before_calls_comes_back_with_them(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply("Let me look.", calls=TWO, reasoning="It may be warm."), "It is warm.")
    async with client_of(provider, dialect) as client:
        called = await answer(client, ASKED, stream=stream)
        results = [ChatMessage("tool", "21", tool_call_id=call.id) for call in called.tool_calls]
        completion = await answer(client, going_on(ASKED, turn_of(called), *results), stream=stream)
        body = msgspec.json.encode(provider.requests[-1].body).decode()

    assert called.reasoning == "It may be warm."
    assert completion.content == "It is warm."
    assert provider.requests[-1].status == 200
    expected = {
        "openai": '"reasoning_content":"It may be warm."',
        "openai_responses": '"encrypted_content":"ultra-encrypted-',
        "anthropic": '"signature":"',
        "gemini": '"thoughtSignature":"',
        "ollama": '"role":"tool"',
    }
    assert expected[dialect] in body


@every_dialect
@streamed_or_not
async def test_what_was_thought_before_text_comes_back_with_it(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    provider.script(Reply("It is warm.", reasoning="It may be warm."), "It is cold.")
    async with client_of(provider, dialect) as client:
        first = await answer(client, ASKED, stream=stream)
        second = await answer(
            client, going_on(ASKED, turn_of(first), ChatMessage("user", "And now?")), stream=stream
        )

    assert (first.reasoning, second.content) == ("It may be warm.", "It is cold.")
    if dialect in {"anthropic", "gemini", "openai_responses"}:
        assert len(first.reasoning_parts) == 1


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ("anthropic", "Expected `thinking` or `redacted_thinking`, but found `tool_use`"),
        ("openai_responses", None),
    ],
)
@streamed_or_not
async def test_calls_without_the_thoughts_before_them_are_refused_as_the_real_api_does(
    provider: SimulatedProvider, dialect: str, message: str | None, *, stream: bool
) -> None:
    provider.script(Reply(calls=ONE, reasoning="It may be warm."))
    async with client_of(provider, dialect) as client:
        called = await answer(client, ASKED, stream=stream)
        bare = ChatMessage("assistant", "", tool_calls=called.tool_calls)
        result = ChatMessage("tool", "21", tool_call_id=called.tool_calls[0].id)
        if message is None:
            assert await answer(client, going_on(ASKED, bare, result), stream=stream)
        else:
            with pytest.raises(ModelError, match=message):
                await answer(client, going_on(ASKED, bare, result), stream=stream)


@every_dialect
@streamed_or_not
async def test_reasoning_of_another_provider_is_left_out(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    foreign = ChatMessage(
        "assistant",
        (ReasoningPart("Hm.", "another", signature="s", encrypted="e", id="r"), TextPart("Let me look.")),
        tool_calls=(ToolCall("foreign_1", "weather", '{"city": "Rome"}'),),
    )
    result = ChatMessage("tool", "21 degrees", tool_call_id="foreign_1")
    model = "gemini-3-pro" if dialect == "gemini" else "any"  # which asks for a signature of every call
    async with client_of(provider, dialect, model) as client:
        completion = await answer(client, going_on(ASKED, foreign, result), stream=stream)

    assert "21 degrees" in completion.content
    assert "Hm." not in str(provider.requests[-1].body)


# --- what the provider refuses -------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if dialect != "ollama"])
@streamed_or_not
async def test_a_result_without_its_call_is_refused(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    request = going_on(ASKED, ChatMessage("tool", "21", tool_call_id="nobody"))
    async with client_of(provider, dialect) as client:
        with pytest.raises(ModelError) as caught:
            await answer(client, request, stream=stream)

    assert (caught.value.status, caught.value.kind) == (400, "bad_request")


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if dialect != "ollama"])
@streamed_or_not
async def test_a_call_without_its_result_is_refused(
    provider: SimulatedProvider, dialect: str, *, stream: bool
) -> None:
    called = ChatMessage("assistant", "", tool_calls=(ToolCall("c1", "weather", "{}"),))
    async with client_of(provider, dialect) as client:
        with pytest.raises(ModelError) as caught:
            await answer(client, going_on(ASKED, called, ChatMessage("user", "And?")), stream=stream)

    assert (caught.value.status, caught.value.kind) == (400, "bad_request")
