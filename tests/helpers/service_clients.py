"""Clients that applications use, each by one form: what is asked of a service, and what came of it.

All of them block, and are called in a thread. Each is imported when it is made.
"""

# ruff: noqa: PLC0415 - the packages are large, and some may be absent

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from helpers.service_protocols import PIXEL

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CLAUDE", "CLIENTS", "LEAVERS", "Asked", "Said"]

SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PARAMETERS: Final = SCHEMA
CLAUDE: Final = "claude-sonnet-4-5"
"""A name by which some clients know that the model takes a schema; the service has a model of this name."""
IMAGE: Final = f"data:image/png;base64,{PIXEL}"


class Asked(NamedTuple):
    """One question; `what` is text, tools, json or image."""

    url: str
    what: str = "text"
    stream: bool = False
    text: str = "Which city?"


class Said(NamedTuple):
    """What a client got; `call` is the name and the arguments of a tool."""

    text: str = ""
    call: tuple[str, dict[str, Any]] | None = None


def _openai(url: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{url}/v1", api_key="any")


def openai_chat(asked: Asked) -> Said:
    content: Any = asked.text
    more: dict[str, Any] = {}
    match asked.what:
        case "image":
            content = [
                {"type": "text", "text": asked.text},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ]
        case "json":
            more["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
        case "tools":
            function = {"name": "weather", "parameters": PARAMETERS}
            more["tools"] = [{"type": "function", "function": function}]
    with _openai(asked.url) as client:
        messages: Any = [{"role": "user", "content": content}]
        if asked.stream:
            with client.chat.completions.stream(model="a", messages=messages, **more) as stream:
                for _ in stream:
                    pass
                message = stream.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(model="a", messages=messages, **more).choices[0].message
    calls = [(each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls or ()]
    return Said(message.content or "", calls[0] if calls else None)


def openai_responses(asked: Asked) -> Said:
    given: Any = asked.text
    more: dict[str, Any] = {}
    match asked.what:
        case "image":
            image = {"type": "input_image", "image_url": IMAGE, "detail": "auto"}
            given = [{"role": "user", "content": [{"type": "input_text", "text": asked.text}, image]}]
        case "json":
            more["text"] = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
        case "tools":
            tool = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
            more["tools"] = [tool]
    with _openai(asked.url) as client:
        if asked.stream:
            with client.responses.stream(model="a", input=given, **more) as stream:
                for _ in stream:
                    pass
                response = stream.get_final_response()
        else:
            response = client.responses.create(model="a", input=given, **more)
    calls = [
        (each.name, json.loads(each.arguments)) for each in response.output if each.type == "function_call"
    ]
    return Said(response.output_text, calls[0] if calls else None)


def anthropic_messages(asked: Asked) -> Said:
    import anthropic

    content: Any = asked.text
    more: dict[str, Any] = {}
    match asked.what:
        case "image":
            source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
            content = [{"type": "image", "source": source}, {"type": "text", "text": asked.text}]
        case "json":
            more["output_config"] = {"format": {"type": "json_schema", "schema": SCHEMA}}
        case "tools":
            more["tools"] = [{"name": "weather", "input_schema": PARAMETERS}]
    with anthropic.Anthropic(base_url=asked.url, api_key="any") as client:
        messages: Any = [{"role": "user", "content": content}]
        given: dict[str, Any] = {"model": "a", "max_tokens": 50, "messages": messages, **more}
        if asked.stream:
            with client.messages.stream(**given) as stream:
                message: Any = stream.get_final_message()
        else:
            message = client.messages.create(**given)
    calls = [(each.name, each.input) for each in message.content if each.type == "tool_use"]
    return Said(
        "".join(each.text for each in message.content if each.type == "text"), calls[0] if calls else None
    )


def _langchain(asked: Asked, *, responses: bool) -> Said:
    from langchain_openai import ChatOpenAI

    given: dict[str, Any] = {"base_url": f"{asked.url}/v1", "api_key": "any"}
    model: Any = ChatOpenAI(model="a", use_responses_api=responses, **given)
    content: Any = asked.text
    match asked.what:
        case "image":
            content = [
                {"type": "text", "text": asked.text},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ]
        case "json":
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
            model = model.bind(response_format=form)
        case "tools":
            model = model.bind_tools([{"name": "weather", "description": "", "parameters": PARAMETERS}])
    messages = [("user", content)]
    if asked.stream:
        message: Any = None
        for chunk in model.stream(messages):
            message = chunk if message is None else message + chunk
    else:
        message = model.invoke(messages)
    calls = [(call["name"], call["args"]) for call in message.tool_calls]
    return Said(message.text, calls[0] if calls else None)


def langchain_chat(asked: Asked) -> Said:
    return _langchain(asked, responses=False)


def langchain_responses(asked: Asked) -> Said:
    return _langchain(asked, responses=True)


def _pydantic(asked: Asked, make: Callable[[], Any]) -> Said:
    from pydantic import BaseModel
    from pydantic_ai import Agent, BinaryContent, NativeOutput

    class Place(BaseModel):
        city: str

    seen: list[tuple[str, dict[str, Any]]] = []

    def weather(city: str) -> str:
        seen.append(("weather", {"city": city}))
        return "Rain."

    given: Any = asked.text
    if asked.what == "image":
        import base64

        given = [asked.text, BinaryContent(base64.b64decode(PIXEL), media_type="image/png")]
    output: Any = NativeOutput(Place) if asked.what == "json" else str

    async def run() -> Any:
        agent: Any = Agent(make(), output_type=output, tools=[weather] if asked.what == "tools" else [])
        if not asked.stream:
            return (await agent.run(given)).output
        async with agent.run_stream(given) as result:
            return await result.get_output()

    found = asyncio.run(run())
    text = found if isinstance(found, str) else found.model_dump_json()
    return Said(text, seen[0] if seen else None)


def _pydantic_openai(asked: Asked, kind: str) -> Said:
    import openai
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers.openai import OpenAIProvider

    def make() -> Any:
        client = openai.AsyncOpenAI(base_url=f"{asked.url}/v1", api_key="any")
        return getattr(models, kind)("a", provider=OpenAIProvider(openai_client=client))

    return _pydantic(asked, make)


def pydantic_chat(asked: Asked) -> Said:
    return _pydantic_openai(asked, "OpenAIChatModel")


def pydantic_responses(asked: Asked) -> Said:
    return _pydantic_openai(asked, "OpenAIResponsesModel")


def pydantic_messages(asked: Asked) -> Said:
    import anthropic
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    def make() -> Any:
        client = anthropic.AsyncAnthropic(base_url=asked.url, api_key="any")
        return AnthropicModel(CLAUDE, provider=AnthropicProvider(anthropic_client=client))

    return _pydantic(asked, make)


def _litellm(asked: Asked, model: str, base: str) -> Said:
    import litellm

    content: Any = asked.text
    more: dict[str, Any] = {}
    match asked.what:
        case "image":
            content = [
                {"type": "text", "text": asked.text},
                {"type": "image_url", "image_url": {"url": IMAGE}},
            ]
        case "json":
            form = {"name": "x", "schema": SCHEMA, "strict": True}
            more["response_format"] = {"type": "json_schema", "json_schema": form}
        case "tools":
            more["tools"] = [{"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}]
    messages = [{"role": "user", "content": content}]
    given: dict[str, Any] = {"model": model, "api_base": base, "api_key": "any", "messages": messages, **more}
    answer: Any = litellm.completion(stream=asked.stream, num_retries=0, **given)
    if asked.stream:
        answer = litellm.stream_chunk_builder(list(answer))
    message = answer.choices[0].message
    calls = [(each.function.name, json.loads(each.function.arguments)) for each in message.tool_calls or ()]
    return Said(message.content or "", calls[0] if calls else None)


def litellm_chat(asked: Asked) -> Said:
    return _litellm(asked, "openai/a", f"{asked.url}/v1")


def litellm_messages(asked: Asked) -> Said:
    return _litellm(asked, f"anthropic/{CLAUDE}", asked.url)


def litellm_responses(asked: Asked) -> Said:
    return _litellm(asked, "openai/responses/a", f"{asked.url}/v1")


CLIENTS: Final[dict[str, Callable[[Asked], Said]]] = {
    each.__name__: each
    for each in (
        *(openai_chat, openai_responses, anthropic_messages),
        *(langchain_chat, langchain_responses),
        *(pydantic_chat, pydantic_responses, pydantic_messages),
        *(litellm_chat, litellm_responses, litellm_messages),
    )
}
"""The clients by their names: the package, and the protocol that it speaks."""


def _leave_response(url: str) -> None:
    with _openai(url) as client, client.responses.create(model="a", input="Q", stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                return


def _leave_message(url: str) -> None:
    import anthropic

    messages: Any = [{"role": "user", "content": "Q"}]
    with (
        anthropic.Anthropic(base_url=url, api_key="any") as client,
        client.messages.create(model="a", max_tokens=9, messages=messages, stream=True) as stream,
    ):
        for event in stream:
            if event.type == "content_block_delta":
                return


LEAVERS: Final = {"openai_responses": _leave_response, "anthropic_messages": _leave_message}
"""Clients that leave a stream once they have read some text."""
