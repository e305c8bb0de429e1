"""Read a request to Anthropic's Messages API, and hold it to the rules of the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Struct

from ultra.faults.provider.asked_tools import choice_of, tool_of
from ultra.faults.provider.media_reading import bad_request, from_base64, from_url
from ultra.faults.provider.neutral import Call, Media, Message, Question, ToolResult
from ultra.faults.provider.protocol import decode
from ultra.faults.provider.signatures import is_signature_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ultra.faults.provider.neutral import MediaKind

__all__ = ["THOUGHT_CALLS", "read"]

THOUGHT_CALLS: Final = "toolu_thought_"
"""How the ids of calls begin that a model made after thinking, which must come back with its thinking."""


class _Source(Struct):
    type: str
    media_type: str | None = None
    data: str = ""
    url: str = ""


class _Block(Struct):
    type: str = "text"
    text: str = ""
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    source: _Source | None = None
    id: str = ""
    name: str = ""
    input: dict[str, Any] = {}
    tool_use_id: str = ""
    content: str | list[_Block] = ""
    is_error: bool = False
    cache_control: dict[str, Any] | None = None


class _Message(Struct):
    role: str
    content: str | list[_Block]

    @property
    def blocks(self) -> list[_Block]:
        return [_Block(text=self.content)] if isinstance(self.content, str) else self.content


class _Tool(Struct):
    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}


class _Choice(Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Struct):
    type: str


class _Format(Struct):
    type: str
    schema: dict[str, Any]


class _OutputConfig(Struct):
    format: _Format | None = None
    effort: str | None = None


class _Request(Struct):
    model: Annotated[str, msgspec.Meta(min_length=1)]
    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    max_tokens: Annotated[int, msgspec.Meta(ge=1)]
    system: str | list[_Block] = ""
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None


class _CountRequest(_Request):
    max_tokens: int = 1


_decoder: Final[msgspec.json.Decoder[_Request]] = msgspec.json.Decoder(_Request)
_count_decoder: Final[msgspec.json.Decoder[_Request]] = msgspec.json.Decoder(_CountRequest)

_MODES: Final = {"auto": "auto", "any": "required", "none": "none"}


def read(body: bytes, *, counting: bool) -> Question:
    """Read a request, or one that only asks how many tokens it has. Raises `Refused`."""
    asked = decode(_count_decoder if counting else _decoder, body)
    thinks = asked.thinking is not None and asked.thinking.type in {"enabled", "adaptive"}
    if asked.messages and asked.messages[0].role != "user":
        raise bad_request('messages: first message must use the "user" role')
    _check_calls(asked.messages)
    _check_thinking(asked.messages, thinks=thinks)
    tools = tuple(tool_of(each.name, each.description, each.input_schema) for each in asked.tools or ())
    choice = asked.tool_choice or _Choice("auto")
    if thinks and choice.type in {"any", "tool"}:
        raise bad_request("Thinking may not be enabled when tool_choice forces tool use.")
    config = asked.output_config or _OutputConfig()
    serial = choice.disable_parallel_tool_use
    return Question(
        model=asked.model,
        messages=tuple(_message(each, f"messages.{number}") for number, each in enumerate(asked.messages)),
        system=_text(asked.system),
        stream=bool(asked.stream),
        max_tokens=asked.max_tokens,
        stop=tuple(asked.stop_sequences or ()),
        tools=tools,
        choice=choice_of(
            _MODES.get(choice.type, choice.name), tools, parallel=None if serial is None else not serial
        ),
        schema=config.format.schema if config.format is not None else None,
    )


def _text(content: str | list[_Block]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def _message(given: _Message, where: str) -> Message:
    media: list[Media] = []
    calls: list[Call] = []
    results: list[ToolResult] = []
    for number, block in enumerate(given.blocks):
        place = f"{where}.content.{number}"
        match block.type:
            case "text" | "thinking" | "redacted_thinking":
                if block.type == "text" and not block.text and not isinstance(given.content, str):
                    raise bad_request(f"{place}: text content blocks must be non-empty")
            case "image" | "document":
                media.append(_media(block, place))
            case "tool_use":
                calls.append(Call(block.name, block.input, block.id))
            case "tool_result":
                text = _text(block.content)
                results.append(ToolResult(block.tool_use_id, "", text, block.is_error))
                inner = [] if isinstance(block.content, str) else block.content
                media += [_media(each, place) for each in inner if each.type in {"image", "document"}]
            case kind:
                raise bad_request(
                    f"{place}: Input tag '{kind}' found using 'type' does not match any of the tags"
                )
    hinted = any(block.cache_control is not None for block in given.blocks)
    return Message(given.role, _text(given.content), tuple(media), tuple(calls), tuple(results), hinted)


def _media(block: _Block, where: str) -> Media:
    source = block.source
    kind: MediaKind = "image" if block.type == "image" else "document"
    match source:
        case _Source(type="base64"):
            return from_base64(kind, source.data, source.media_type, f"{where}.source.base64.data")
        case _Source(type="url"):
            return from_url(kind, source.url, f"{where}.source.url.url")
        case _Source(type="text") if kind == "document":
            return Media(kind, "text/plain", len(source.data.encode()))
        case _:
            raise bad_request(f"{where}.source: Field required")


def _check_calls(messages: Sequence[_Message]) -> None:
    """Refuse results that do not stand right behind their calls, in the words of the API."""
    waiting: set[str] = set()
    for number, message in enumerate(messages):
        blocks = message.blocks
        for place, block in enumerate(blocks):
            if block.type == "tool_result" and block.tool_use_id not in waiting:
                raise bad_request(
                    f"messages.{number}.content.{place}: unexpected `tool_use_id` found in `tool_result` "
                    f"blocks: {block.tool_use_id}. Each `tool_result` block must have a corresponding "
                    "`tool_use` block in the previous message."
                )
        missing = waiting - {block.tool_use_id for block in blocks if block.type == "tool_result"}
        if missing:
            raise _without_results(number - 1, missing)
        if len(ids := [block.id for block in blocks if block.type == "tool_use"]) != len(set(ids)):
            raise bad_request(f"messages.{number}: `tool_use` ids must be unique")
        waiting = set(ids)
    if waiting:
        raise _without_results(len(messages) - 1, waiting)


def _without_results(number: int, ids: set[str]) -> Exception:
    return bad_request(
        f"messages.{number}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(sorted(ids))}. Each `tool_use` block must have a corresponding `tool_result` block in "
        "the next message."
    )


def _check_thinking(messages: Sequence[_Message], *, thinks: bool) -> None:
    """Refuse thinking without its signature, and the calls of a turn without the thinking before them."""
    for number, message in enumerate(messages):
        for place, block in enumerate(message.blocks):
            where = f"messages.{number}.content.{place}"
            if block.type == "thinking":
                if block.signature is None:
                    raise bad_request(f"{where}.thinking.signature: Field required")
                if not is_signature_of(block.signature, block.thinking or ""):
                    raise bad_request(f"{where}: Invalid `signature` in `thinking` block")
    for number, message in _turn(messages):
        first = message.blocks[0]
        made = any(
            b.type == "tool_use" and (thinks or b.id.startswith(THOUGHT_CALLS)) for b in message.blocks
        )
        if made and first.type not in {"thinking", "redacted_thinking"}:
            raise bad_request(
                f"messages.{number}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                f"`{first.type}`. When `thinking` is enabled, a final `assistant` message must start with a "
                "thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
            )


def _turn(messages: Sequence[_Message]) -> Iterator[tuple[int, _Message]]:
    """Yield the assistant's messages of the turn that still goes on: since the user last said something."""
    for number in reversed(range(len(messages))):
        message = messages[number]
        if message.role == "assistant" and message.blocks:
            yield number, message
        elif message.role == "user" and all(block.type != "tool_result" for block in message.blocks):
            return
