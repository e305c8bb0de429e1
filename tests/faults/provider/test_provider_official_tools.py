"""The official clients get calls, thoughts and JSON from the simulated provider, by their own helpers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import anthropic
import ollama
import openai
import pytest
import trio
from google import genai
from google.genai import types
from pydantic import BaseModel

from ultra.faults.plan import FaultPlan
from ultra.faults.provider import Call, Failure, Reply, SimulatedProvider, simulated_provider

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Person(BaseModel):
    name: str
    age: int


CALLS = (Call("weather", {"city": "Röme"}), Call("clock", {}))
REPLY = Reply("Let me look.", calls=CALLS, reasoning="It may be warm.")

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
MESSAGES: Any = [{"role": "user", "content": "Ask weather."}]


async def in_thread(function: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(function)


# --- openai's chat -------------------------------------------------------------------------------

CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER, "strict": True}},
    {"type": "function", "function": {"name": "clock", "parameters": {}}},
]


def openai_client(provider: SimulatedProvider) -> openai.OpenAI:
    return openai.OpenAI(base_url=provider.base_url("openai"), api_key="k", max_retries=0)


async def test_openai_gathers_the_calls_of_a_stream(provider: SimulatedProvider) -> None:
    provider.script(REPLY)

    def ask() -> tuple[Any, list[Any]]:
        with (
            openai_client(provider) as client,
            client.chat.completions.stream(model="any", messages=MESSAGES, tools=CHAT_TOOLS[:1]) as stream,
        ):
            kinds: list[Any] = [event.type for event in stream]
            return stream.get_final_completion(), kinds

    completion, kinds = await in_thread(ask)

    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
    called = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert called == [("weather", '{"city":"Röme"}'), ("clock", "{}")]
    assert choice.message.tool_calls[0].function.parsed_arguments == {"city": "Röme"}
    assert kinds.count("tool_calls.function.arguments.done") == 2
    assert kinds.count("tool_calls.function.arguments.delta") > 4


async def test_openai_parses_json_by_a_schema(provider: SimulatedProvider) -> None:
    def ask() -> Any:
        with openai_client(provider) as client:
            return client.chat.completions.parse(model="any", messages=MESSAGES, response_format=Person)

    assert isinstance((await in_thread(ask)).choices[0].message.parsed, Person)


# --- openai's responses --------------------------------------------------------------------------

RESPONSES_TOOLS: Any = [
    {"type": "function", "name": "weather", "parameters": WEATHER, "strict": True},
    {"type": "function", "name": "clock", "parameters": {}, "strict": False},
]

ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.reasoning_summary_part.added",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_summary_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    *[
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
    ]
    * 2,
    "response.completed",
]


async def test_the_events_of_a_response_come_in_their_order(provider: SimulatedProvider) -> None:
    provider.script(REPLY)

    def ask() -> list[Any]:
        with openai_client(provider) as client:
            return list(
                client.responses.create(
                    model="any",
                    input="Ask weather.",
                    tools=RESPONSES_TOOLS,
                    stream=True,
                    include=["reasoning.encrypted_content"],
                )
            )

    events = await in_thread(ask)

    kinds = [event.type for event in events]
    assert [kind for at, kind in enumerate(kinds) if not at or kinds[at - 1] != kind] == ORDER
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1].response
    assert (last.status, last.output_text) == ("completed", "Let me look.")
    assert [item.type for item in last.output] == ["reasoning", "message", "function_call", "function_call"]
    assert last.output[0].encrypted_content
    assert last.usage.output_tokens_details.reasoning_tokens == 5
    assert last.usage.output_tokens > 5


async def test_openai_gathers_a_streamed_response(provider: SimulatedProvider) -> None:
    provider.script(REPLY, Reply("I cannot.", finish="refusal"))

    def ask() -> tuple[Any, Any]:
        with openai_client(provider) as client:
            with client.responses.stream(model="any", input="Ask.", tools=RESPONSES_TOOLS) as stream:
                for _ in stream:
                    pass
                first = stream.get_final_response()
            return first, client.responses.create(model="any", input="Ask.")

    called, refused = await in_thread(ask)

    calls = [(item.name, item.arguments) for item in called.output if item.type == "function_call"]
    assert calls == [("weather", '{"city":"Röme"}'), ("clock", "{}")]
    assert called.output_text == "Let me look."
    assert refused.output[0].content[0].refusal == "I cannot."


async def test_openai_parses_a_response_by_a_schema(provider: SimulatedProvider) -> None:
    def ask() -> Any:
        with openai_client(provider) as client:
            return client.responses.parse(model="any", input="Who?", text_format=Person)

    assert isinstance((await in_thread(ask)).output_parsed, Person)


async def test_a_response_is_cut_at_its_limit_and_fails_as_it_should(provider: SimulatedProvider) -> None:
    provider.script("one two three four", Failure("rate_limit"), Reply("Hel", failure=Failure("server")))

    def ask() -> tuple[Any, list[Any]]:
        with openai_client(provider) as client:
            cut = client.responses.create(model="any", input="Ask.", max_output_tokens=2)
            with pytest.raises(openai.RateLimitError):
                client.responses.create(model="any", input="Ask.")
            return cut, list(client.responses.create(model="any", input="Ask.", stream=True))

    cut, events = await in_thread(ask)

    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (events[-1].type, events[-1].sequence_number) == ("error", len(events) - 1)


async def test_faults_reach_the_responses_api() -> None:
    plan = FaultPlan().http_stream_error(after_events=6, status=500)
    async with simulated_provider(faults=plan) as provider:
        provider.script(REPLY)

        def ask() -> list[Any]:
            with openai_client(provider) as client:
                return list(client.responses.create(model="any", input="Ask.", stream=True))

        events = await in_thread(ask)

    assert [event.type for event in events][-1] == "error"
    assert len(events) == 7


# --- anthropic -----------------------------------------------------------------------------------

ANTHROPIC_TOOLS: Any = [
    {"name": "weather", "input_schema": WEATHER},
    {"name": "clock", "input_schema": {"type": "object"}},
]


def anthropic_client(provider: SimulatedProvider) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=provider.base_url("anthropic"), api_key="k", max_retries=0)


async def test_anthropic_gathers_calls_and_thoughts_and_sends_them_back(provider: SimulatedProvider) -> None:
    provider.script(REPLY, "It is warm.")
    settings: Any = {"model": "any", "max_tokens": 2000, "tools": ANTHROPIC_TOOLS}
    settings["thinking"] = {"type": "enabled", "budget_tokens": 1024}

    def ask() -> tuple[Any, Any]:
        with anthropic_client(provider) as client:
            with client.messages.stream(messages=MESSAGES, **settings) as stream:
                first = stream.get_final_message()
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "21"}
                for block in first.content
                if block.type == "tool_use"
            ]
            said: Any = [
                {"role": "assistant", "content": first.content},
                {"role": "user", "content": results},
            ]
            second = client.messages.create(messages=[*MESSAGES, *said], **settings)
            said[0]["content"] = first.content[1:]
            with pytest.raises(anthropic.BadRequestError, match="Expected `thinking` or `redacted_thinking`"):
                client.messages.create(messages=[*MESSAGES, *said], **settings)
            return first, second

    first, second = await in_thread(ask)

    assert [block.type for block in first.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert first.content[0].signature
    assert [block.input for block in first.content[2:]] == [{"city": "Röme"}, {}]
    assert (first.stop_reason, second.content[0].text) == ("tool_use", "It is warm.")


async def test_anthropic_refuses_a_signature_that_is_not_its_own(provider: SimulatedProvider) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "forged"}
    said: Any = [
        *MESSAGES,
        {"role": "assistant", "content": [thinking, {"type": "text", "text": "Hi."}]},
        *MESSAGES,
    ]

    def ask() -> None:
        with (
            anthropic_client(provider) as client,
            pytest.raises(anthropic.BadRequestError, match="Invalid `signature` in `thinking` block"),
        ):
            client.messages.create(model="any", max_tokens=9, messages=said)

    await in_thread(ask)


async def test_anthropic_parses_json_by_a_schema(provider: SimulatedProvider) -> None:
    def ask() -> Any:
        with anthropic_client(provider) as client:
            return client.messages.parse(model="any", max_tokens=99, messages=MESSAGES, output_format=Person)

    assert isinstance((await in_thread(ask)).parsed_output, Person)


# --- google-genai --------------------------------------------------------------------------------


def gemini_client(provider: SimulatedProvider) -> genai.Client:
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=provider.base_url("gemini")))


async def test_gemini_calls_functions_by_itself(provider: SimulatedProvider) -> None:
    asked: list[str] = []

    def weather(city: str) -> str:
        """Tell the weather."""
        asked.append(city)
        return "21 degrees"

    provider.script(Reply(calls=CALLS[:1], reasoning="It may be warm."))

    def ask() -> Any:
        with gemini_client(provider) as client:
            config = types.GenerateContentConfig(tools=[weather])
            return client.models.generate_content(model="any", contents="Ask weather.", config=config)

    response = await in_thread(ask)

    assert asked == ["Röme"]
    assert response.text.startswith("weather says 21 degrees.")
    assert response.candidates[0].finish_reason == types.FinishReason.STOP


async def test_gemini_streams_calls_with_their_signature(provider: SimulatedProvider) -> None:
    provider.script(REPLY)

    def ask() -> list[Any]:
        with gemini_client(provider) as client:
            return list(client.models.generate_content_stream(model="any", contents="Ask."))

    chunks = await in_thread(ask)

    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    called = [part for part in parts if part.function_call]
    assert [(part.function_call.name, part.function_call.args) for part in called] == [
        ("weather", {"city": "Röme"}),
        ("clock", {}),
    ]
    assert [bool(part.thought_signature) for part in called] == [True, False]


@pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")
async def test_gemini_parses_json_by_a_schema(provider: SimulatedProvider) -> None:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=Person)

    def ask() -> Any:
        with gemini_client(provider) as client:
            return client.models.generate_content(model="any", contents="Who?", config=config)

    assert isinstance((await in_thread(ask)).parsed, Person)


async def test_gemini_counts_what_it_sees_by_its_kind(provider: SimulatedProvider) -> None:
    picture = types.Part.from_bytes(data=b"\x89PNG\r\n\x1a\n" + bytes(9), mime_type="image/png")
    document = types.Part.from_bytes(data=b"%PDF-1.7", mime_type="application/pdf")
    contents: list[Any] = ["What?", picture, document]

    def ask() -> Any:
        with gemini_client(provider) as client:
            return client.models.generate_content(model="any", contents=contents)

    usage = (await in_thread(ask)).usage_metadata

    counts = {each.modality.value: each.token_count for each in usage.prompt_tokens_details}
    assert counts == {"TEXT": 5, "IMAGE": 258, "DOCUMENT": 258}
    assert usage.prompt_token_count == 521


# --- ollama --------------------------------------------------------------------------------------


async def test_ollama_streams_calls_and_keeps_to_a_schema(provider: SimulatedProvider) -> None:
    provider.script(REPLY)

    def ask() -> tuple[list[Any], Any]:
        client = ollama.Client(host=provider.base_url("ollama"))
        with client._client:
            chunks = list(client.chat(model="any", messages=MESSAGES, tools=CHAT_TOOLS, stream=True))
            schema = Person.model_json_schema()
            return chunks, client.chat(model="any", messages=MESSAGES, format=schema)

    chunks, whole = await in_thread(ask)

    called = [call.function for chunk in chunks for call in chunk.message.tool_calls or ()]
    assert [(call.name, call.arguments) for call in called] == [("weather", {"city": "Röme"}), ("clock", {})]
    assert "".join(chunk.message.thinking or "" for chunk in chunks) == "It may be warm."
    assert isinstance(Person.model_validate_json(whole.message.content), Person)
