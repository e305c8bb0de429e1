"""What Ultra's dialects send is what the official SDKs send for the same conversation, field by field.

Both talk to the simulated provider, which answers both alike and keeps what it was sent: a question with
images and a document, an answer that thinks and calls two tools, their results, and the same once more
with a schema.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import openai
import pytest
import trio
from google import genai
from google.genai import types

from helpers.dialect_clients import answer, dialect_client, going_on, turn_of
from ultra.faults.provider import Call, Reply, SimulatedProvider, simulated_provider
from ultra.faults.provider.gemini import camel
from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PDF = b"%PDF-1.7 " + bytes(range(32, 60))
PNG_64, PDF_64 = (base64.b64encode(data).decode() for data in (PNG, PDF))
ADDRESS = "https://example.com/cat.png"

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
NOTHING: dict[str, Any] = {"type": "object", "properties": {}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}

CALLS = (Call("weather", {"city": "Rome"}, "call_1"), Call("clock", {}, "call_2"))
REPLIES = (Reply("Let me look.", calls=CALLS, reasoning="It may be warm."), '{"name": "Rome"}')


# --- the same in Ultra's form --------------------------------------------------------------------


async def ultra(provider: SimulatedProvider, dialect: str) -> None:
    document = FilePart.of(PDF, name="a.pdf")
    address = ImagePart.of(ADDRESS, detail="low")
    media = (ImagePart.of(PNG, detail="high"), *(() if dialect == "ollama" else (address, document)))
    hint = {"type": "ephemeral"} if dialect == "anthropic" else None
    asked = ModelRequest(
        messages=(
            ChatMessage("system", (TextPart("Be brief.", hint),)),
            ChatMessage("user", (TextPart("What is it?", hint), *media)),
        ),
        tools=(Tool("weather", "What the weather is.", WEATHER), Tool("clock", "What the time is.")),
        tool_choice=ToolChoice("auto", parallel=True if dialect not in {"gemini", "ollama"} else None),
        options=SamplingOptions(max_tokens=500)
        if dialect == "anthropic"  # its SDK takes no temperature any more
        else SamplingOptions(temperature=0.5, max_tokens=500, top_p=0.9),
    )
    client = dialect_client(provider, dialect)
    called = await answer(client, asked, stream=False)
    request = going_on(
        asked,
        turn_of(called),
        ChatMessage("tool", "21 degrees", tool_call_id="call_1"),
        ChatMessage("tool", "no clock", tool_call_id="call_2", is_error=True),
        ChatMessage("user", "Where is it?"),
    )
    last = ModelRequest(
        messages=request.messages,
        tools=request.tools,
        tool_choice=ToolChoice("none"),
        output=JsonSchema("person", PERSON),
        options=request.options,
    )
    assert (await answer(client, last, stream=False)).content == '{"name": "Rome"}'
    await client.aclose()


# --- the same with the SDKs ----------------------------------------------------------------------


def openai_chat(url: str) -> None:
    def tool(name: str, text: str, parameters: dict[str, Any]) -> Any:
        return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}

    tools = [tool("weather", "What the weather is.", WEATHER), tool("clock", "What the time is.", NOTHING)]
    settings: Any = {"model": "any", "tools": tools, "temperature": 0.5, "max_tokens": 500, "top_p": 0.9}
    image = {"url": f"data:image/png;base64,{PNG_64}", "detail": "high"}
    file = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF_64}"}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": image},
                {"type": "image_url", "image_url": {"url": ADDRESS, "detail": "low"}},
                {"type": "file", "file": file},
            ],
        },
    ]
    with openai.OpenAI(base_url=url, api_key="k") as client:
        first = client.chat.completions.create(
            messages=messages, tool_choice="auto", parallel_tool_calls=True, **settings
        )
        choice = first.choices[0]
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Let me look.")
        assert choice.message.tool_calls
        results = zip(choice.message.tool_calls, ("21 degrees", "no clock"), strict=True)
        messages += [
            choice.message,
            *({"role": "tool", "tool_call_id": call.id, "content": text} for call, text in results),
            {"role": "user", "content": "Where is it?"},
        ]
        schema: Any = {"name": "person", "schema": PERSON, "strict": True}
        client.chat.completions.create(
            messages=messages,
            tool_choice="none",
            response_format={"type": "json_schema", "json_schema": schema},
            **settings,
        )


def openai_responses(url: str) -> None:
    def tool(name: str, text: str, parameters: dict[str, Any]) -> Any:
        about = {"name": name, "description": text, "parameters": parameters, "strict": False}
        return {"type": "function", **about}

    tools = [tool("weather", "What the weather is.", WEATHER), tool("clock", "What the time is.", NOTHING)]
    settings: Any = {
        "model": "any",
        "instructions": "Be brief.",
        "tools": tools,
        "temperature": 0.5,
        "max_output_tokens": 500,
        "top_p": 0.9,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    image = f"data:image/png;base64,{PNG_64}"
    said: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": image, "detail": "high"},
                {"type": "input_image", "image_url": ADDRESS, "detail": "low"},
                {
                    "type": "input_file",
                    "filename": "a.pdf",
                    "file_data": f"data:application/pdf;base64,{PDF_64}",
                },
            ],
        }
    ]
    with openai.OpenAI(base_url=url, api_key="k") as client:
        first = client.responses.create(input=said, tool_choice="auto", parallel_tool_calls=True, **settings)
        assert (first.status, first.output_text) == ("completed", "Let me look.")
        assert [item.type for item in first.output] == [
            "reasoning",
            "message",
            "function_call",
            "function_call",
        ]
        said += first.output
        calls = [item for item in first.output if item.type == "function_call"]
        for call, text in zip(calls, ("21 degrees", "no clock"), strict=True):
            said.append({"type": "function_call_output", "call_id": call.call_id, "output": text})
        said.append({"role": "user", "content": "Where is it?"})
        form: Any = {"type": "json_schema", "name": "person", "schema": PERSON, "strict": True}
        client.responses.create(input=said, tool_choice="none", text={"format": form}, **settings)


def anthropic_messages(url: str) -> None:
    hint = {"cache_control": {"type": "ephemeral"}}
    tools = [
        {"name": "weather", "description": "What the weather is.", "input_schema": WEATHER},
        {"name": "clock", "description": "What the time is.", "input_schema": NOTHING},
    ]
    settings: Any = {
        "model": "any",
        "system": [{"type": "text", "text": "Be brief.", **hint}],
        "tools": tools,
        "max_tokens": 500,
    }
    image = {"type": "base64", "media_type": "image/png", "data": PNG_64}
    file = {"type": "base64", "media_type": "application/pdf", "data": PDF_64}
    messages: list[Any] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?", **hint},
                {"type": "image", "source": image},
                {"type": "image", "source": {"type": "url", "url": ADDRESS}},
                {"type": "document", "source": file, "title": "a.pdf"},
            ],
        }
    ]
    with anthropic.Anthropic(base_url=url, api_key="k") as client:
        choice: Any = {"type": "auto", "disable_parallel_tool_use": False}
        first = client.messages.create(messages=messages, tool_choice=choice, **settings)
        assert [block.type for block in first.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert first.stop_reason == "tool_use"
        messages += [
            {"role": "assistant", "content": first.content},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "call_1", "content": "21 degrees"},
                    {"type": "tool_result", "tool_use_id": "call_2", "content": "no clock", "is_error": True},
                    {"type": "text", "text": "Where is it?"},
                ],
            },
        ]
        config: Any = {"format": {"type": "json_schema", "schema": PERSON}}
        client.messages.create(
            messages=messages, tool_choice={"type": "none"}, output_config=config, **settings
        )


def gemini(url: str) -> None:
    declared = [
        types.FunctionDeclaration(
            name="weather", description="What the weather is.", parameters_json_schema=WEATHER
        ),
        types.FunctionDeclaration(
            name="clock", description="What the time is.", parameters_json_schema=NOTHING
        ),
    ]

    def config(mode: types.FunctionCallingConfigMode, **more: Any) -> types.GenerateContentConfig:
        calling = types.FunctionCallingConfig(mode=mode)
        return types.GenerateContentConfig(
            system_instruction="Be brief.",
            tools=[types.Tool(function_declarations=declared)],
            tool_config=types.ToolConfig(function_calling_config=calling),
            temperature=0.5,
            max_output_tokens=500,
            top_p=0.9,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            **more,
        )

    question = [
        types.Part.from_text(text="What is it?"),
        types.Part.from_bytes(data=PNG, mime_type="image/png"),
        types.Part.from_uri(file_uri=ADDRESS, mime_type="image/png"),
        types.Part.from_bytes(data=PDF, mime_type="application/pdf"),
    ]
    contents: list[Any] = [types.Content(role="user", parts=question)]
    options = types.HttpOptions(base_url=url)
    with genai.Client(api_key="k", http_options=options) as client:
        mode = types.FunctionCallingConfigMode
        first = client.models.generate_content(model="any", contents=contents, config=config(mode.AUTO))
        assert first.function_calls
        assert [call.name for call in first.function_calls] == ["weather", "clock"]
        assert first.candidates
        answered = [
            types.FunctionResponse(id="call_1", name="weather", response={"result": "21 degrees"}),
            types.FunctionResponse(id="call_2", name="clock", response={"error": "no clock"}),
        ]
        parts = [types.Part(function_response=each) for each in answered]
        contents += [
            first.candidates[0].content,
            types.Content(role="user", parts=[*parts, types.Part.from_text(text="Where is it?")]),
        ]
        schema = {"response_mime_type": "application/json", "response_json_schema": PERSON}
        client.models.generate_content(model="any", contents=contents, config=config(mode.NONE, **schema))


def ollama_chat(url: str) -> None:
    def tool(name: str, text: str, parameters: dict[str, Any]) -> Any:
        return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}

    tools = [tool("weather", "What the weather is.", WEATHER), tool("clock", "What the time is.", NOTHING)]
    options = {"temperature": 0.5, "top_p": 0.9, "num_predict": 500}
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?", "images": [PNG]},
    ]
    client = ollama.Client(host=url)
    with client._client:
        _ollama_chat(client, messages, tools, options)


def _ollama_chat(client: ollama.Client, messages: list[Any], tools: list[Any], options: Any) -> None:
    first = client.chat(model="any", messages=messages, tools=tools, options=options)
    assert first.message.tool_calls
    assert [call.function.arguments for call in first.message.tool_calls] == [{"city": "Rome"}, {}]
    messages += [
        first.message,
        {"role": "tool", "tool_name": "weather", "content": "21 degrees"},
        {"role": "tool", "tool_name": "clock", "content": "no clock"},
        {"role": "user", "content": "Where is it?"},
    ]
    # Ollama has no choice of tools, so that of none is that no tool is sent.
    client.chat(model="any", messages=messages, options=options, format=PERSON)


SDKS: dict[str, Callable[[str], None]] = {
    "openai": openai_chat,
    "openai_responses": openai_responses,
    "anthropic": anthropic_messages,
    "gemini": gemini,
    "ollama": ollama_chat,
}

DIFFERENCES: dict[str, dict[str, str]] = {
    "openai": {
        "messages[2].annotations": "the SDK sends back what the answer had; nothing can be in it here",
        "messages[2].refusal": "the same; it is null",
    },
    "openai_responses": {
        "input[2].content": "the short form of the same text, which other servers of this API take, too",
        "input[2].id": "an id means something only where the provider stores",
        "input[2].status": "the provider sets it",
        "input[2].type": "the short form of a message has none",
        "input[3].id": "calls are known by their call_id",
        "input[3].status": "the provider sets it",
        "input[4].id": "calls are known by their call_id",
        "input[4].status": "the provider sets it",
    },
    "gemini": {"systemInstruction.role": "the API ignores it"},
    "ollama": {"tools": "the SDK sends an empty list for no tools"},
}
"""By dialect: where the payloads differ, and why."""


def differences(theirs: Any, ours: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two JSON values differ: each path, and both values there; what is absent is `...`."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        names = sorted({*theirs, *ours})
        pairs = [(f"{path}.{name}".lstrip("."), theirs.get(name, ...), ours.get(name, ...)) for name in names]
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        pairs = [(f"{path}[{at}]", *both) for at, both in enumerate(zip(theirs, ours, strict=True))]
    else:
        return {} if theirs == ours else {path: (theirs, ours)}
    found: dict[str, tuple[Any, Any]] = {}
    for place, their, our in pairs:
        found |= differences(their, our, place)
    return found


@pytest.mark.parametrize("dialect", SDKS)
async def test_a_dialect_sends_what_the_official_sdk_sends(dialect: str) -> None:
    theirs = await sent(lambda provider: with_sdk(provider, dialect))
    ours = await sent(lambda provider: ultra(provider, dialect))

    assert len(theirs) == len(ours) == 2
    found = differences(theirs[0], ours[0]) | differences(theirs[1], ours[1])
    documented = DIFFERENCES.get(dialect, {})
    assert {path: values for path, values in found.items() if path not in documented} == {}
    assert documented.keys() - found.keys() == set(), "a difference that is none any more"


async def sent(talk: Callable[[SimulatedProvider], Awaitable[None]]) -> list[Any]:
    """The bodies of the requests of one conversation; each has a provider of its own, with the same ids."""
    async with simulated_provider() as provider:
        provider.script(*REPLIES)
        await talk(provider)
        assert [request.status for request in provider.requests] == [200, 200]
        gemini = provider.requests[0].protocol == "gemini"
        return [as_sent_to_gemini(request.body) if gemini else request.body for request in provider.requests]


def as_sent_to_gemini(body: Any) -> Any:
    """A request in one form: Google takes names in camel case and others, and both alphabets of base64.

    Thoughts in words are left out: the API wants the signature back, and Ultra sends that alone.
    """
    body = camel(body)
    for turn in body["contents"]:
        turn["parts"] = [part for part in turn["parts"] if not part.get("thought")]
        for part in turn["parts"]:
            if "thoughtSignature" in part:
                part["thoughtSignature"] = part["thoughtSignature"].translate(str.maketrans("-_", "+/"))
    return body


async def with_sdk(provider: SimulatedProvider, dialect: str) -> None:
    await trio.to_thread.run_sync(SDKS[dialect], provider.base_url(dialect))
