"""Read a request to OpenAI's Responses API, and hold it to the rules of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.asked_tools import ANY_OBJECT, choice_of, tool_of
from ultra.faults.provider.media_reading import bad_request, from_base64, from_url
from ultra.faults.provider.neutral import Call, Media, Message, Question, ToolResult
from ultra.faults.provider.protocol import Limit, as_mapping, decode
from ultra.faults.provider.signatures import is_encrypted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["read"]


class _Part(Struct):
    type: str
    text: str = ""
    image_url: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    cache_control: dict[str, Any] | None = None


class _Item(Struct):
    type: str = "message"
    role: str = "user"
    content: str | list[_Part] | None = None
    id: str = ""
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[_Part] = ""
    encrypted_content: str | None = None


class _Tool(Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Choice(Struct):
    type: str
    name: str | None = None


class _Format(Struct):
    type: str
    schema: dict[str, Any] = {}


class _Text(Struct):
    format: _Format | None = None


class _Request(Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    input: str | Annotated[list[_Item], msgspec.Meta(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Limit = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    text: _Text | None = None
    include: list[str] | None = None
    store: bool | None = None


_decoder: Final = msgspec.json.Decoder(_Request)

_SYSTEM: Final = ("system", "developer")

_TEXTS: Final = ("input_text", "output_text", "refusal")

_ENCRYPTED: Final = "reasoning.encrypted_content"


def read(body: bytes) -> Question:
    """Read a request. Raises `Refused`."""
    asked = decode(_decoder, body)
    items = [_Item(content=asked.input)] if isinstance(asked.input, str) else asked.input
    _check(items, stored=asked.store is not False)
    names = {item.call_id: item.name for item in items if item.type == "function_call"}
    messages = [_message(item, f"input[{number}]", names) for number, item in enumerate(items)]
    spoken = [each for each in messages if each is not None]
    system = [asked.instructions or "", *(each.text for each in spoken if each.role in _SYSTEM)]
    given = [each for each in asked.tools or () if each.type == "function"]
    tools = tuple(tool_of(each.name, each.description or "", each.parameters or {}) for each in given)
    choice = asked.tool_choice.name if isinstance(asked.tool_choice, _Choice) else asked.tool_choice
    form = asked.text.format if asked.text is not None else None
    return Question(
        model=asked.model,
        messages=tuple(each for each in spoken if each.role not in _SYSTEM),
        system="\n".join(filter(None, system)),
        stream=bool(asked.stream),
        max_tokens=asked.max_output_tokens,
        tools=tools,
        choice=choice_of(choice, tools, parallel=asked.parallel_tool_calls),
        schema={"json_schema": form.schema, "json_object": ANY_OBJECT}.get(form.type) if form else None,
        show_encrypted=_ENCRYPTED in (asked.include or ()),
        asked=as_mapping(body),
    )


def _check(items: Sequence[_Item], *, stored: bool) -> None:
    """Refuse results without calls, calls without results, and reasoning alone or unknown."""
    calls = {item.call_id for item in items if item.type == "function_call"}
    results = {item.call_id for item in items if item.type == "function_call_output"}
    for item in items:
        if item.type == "function_call_output" and item.call_id not in calls:
            raise bad_request(f"No tool call found for function call output with call_id {item.call_id}.")
        if item.type == "function_call" and item.call_id not in results:
            raise bad_request(f"No tool output found for function call {item.call_id}.")
    for number, item in enumerate(items):
        if item.type != "reasoning":
            continue
        if item.encrypted_content is None and not stored:
            raise bad_request(
                f"Item with id '{item.id}' not found. Items are not persisted when `store` is set to false. "
                "Try again with `store` set to true, or remove this item from your input."
            )
        if item.encrypted_content is not None and not is_encrypted(item.encrypted_content):
            raise bad_request(f"The encrypted content for item {item.id} could not be verified.")
        following = items[number + 1] if number + 1 < len(items) else _Item(role="user")
        if following.type not in {"function_call", "reasoning"} and following.role != "assistant":
            raise bad_request(
                f"Item '{item.id}' of type 'reasoning' was provided without its required following item."
            )


def _message(item: _Item, where: str, names: dict[str, str]) -> Message | None:
    """Return the message that an item is; None: it says nothing that can be read."""
    match item.type:
        case "message":
            parts = item.content if isinstance(item.content, list) else []
            media = _media(parts, f"{where}.content", assistant=item.role == "assistant")
            text = item.content if isinstance(item.content, str) else "".join(part.text for part in parts)
            return Message(item.role, text, media)
        case "function_call":
            return Message("assistant", "", calls=(Call(item.name, item.arguments, item.call_id),))
        case "function_call_output":
            parts = item.output if isinstance(item.output, list) else []
            media = _media(parts, f"{where}.output", assistant=False)
            text = item.output if isinstance(item.output, str) else "".join(part.text for part in parts)
            result = ToolResult(item.call_id, names.get(item.call_id, ""), text)
            return Message("tool", "", media, results=(result,))
        case "reasoning":
            return None
        case kind:
            raise bad_request(f"Invalid value: '{kind}' ({where}.type).")


def _media(parts: Sequence[_Part], where: str, *, assistant: bool) -> tuple[Media, ...]:
    found = []
    for number, part in enumerate(parts):
        place = f"{where}[{number}]"
        if part.cache_control is not None:
            raise bad_request(f"Unknown parameter: '{place}.cache_control'.")
        if part.type in _TEXTS and (part.type == "input_text") is not assistant:
            continue
        if part.type == "input_image" and not assistant:
            found.append(from_url("image", part.image_url, f"{place}.image_url"))
        elif part.type == "input_file" and part.file_url is not None and not assistant:
            found.append(from_url("document", part.file_url, f"{place}.file_url"))
        elif part.type == "input_file" and part.file_data is not None and not assistant:
            plain = not part.file_data.startswith("data:")
            where_data = f"{place}.file_data"
            found.append(
                from_base64("document", part.file_data, "application/pdf", where_data)
                if plain
                else from_url("document", part.file_data, where_data)
            )
        else:
            allowed = (
                "'output_text' and 'refusal'" if assistant else "'input_text', 'input_image' and 'input_file'"
            )
            raise bad_request(
                f"Invalid value: '{part.type}' ({place}.type). Supported values are: {allowed}."
            )
    return tuple(found)
