"""The conversation that a caller gives: a text, messages, or the dicts of OpenAI's and Anthropic's APIs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ultra._support.checks import as_json, check_writable
from ultra._support.lazy import lazy_pattern
from ultra.errors import BadCall
from ultra.messages.chat import (
    ChatMessage,
    FilePart,
    ImagePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCall,
    leading_system,
)
from ultra.messages.conversation_checks import check_conversation
from ultra.messages.message_types import checked_message

__all__ = ["Conversation", "conversation_of", "with_system"]

Conversation = str | Sequence[ChatMessage | Mapping[str, Any]]
"""What a caller may give as a prompt.

A text; or messages, each a `ChatMessage` or a mapping in the form of OpenAI's chat completions or of
Anthropic's messages; objects of their SDKs will do, too.
"""

_CacheControl = dict[str, str]


class _Content(Struct, tag_field="type"):
    """A part of a message, by its `type`."""

    def part(self) -> Part:
        """Return it in our own form. Raises `BadCall`."""
        raise NotImplementedError


class _Text(_Content, tag="text"):
    text: str
    cache_control: _CacheControl | None = None

    def part(self) -> Part:
        return TextPart(self.text, self.cache_control)


class _InputText(_Text, tag="input_text"):
    pass


class _OutputText(_Text, tag="output_text"):
    pass


class _Refusal(_Content, tag="refusal"):
    refusal: str

    def part(self) -> Part:
        return TextPart(self.refusal)


class _Address(Struct):
    url: str
    detail: str | None = None


class _ImageURL(_Content, tag="image_url"):
    image_url: _Address | str
    cache_control: _CacheControl | None = None

    def part(self) -> Part:
        address = _Address(self.image_url) if isinstance(self.image_url, str) else self.image_url
        return _image(address.url, address.detail, self.cache_control)


class _InputImage(_Content, tag="input_image"):
    image_url: str
    detail: str | None = None

    def part(self) -> Part:
        return _image(self.image_url, self.detail, None)


class _FileData(Struct):
    file_data: str
    filename: str | None = None


class _File(_Content, tag="file"):
    file: _FileData
    cache_control: _CacheControl | None = None

    def part(self) -> Part:
        return _file(self.file.file_data, self.file.filename, self.cache_control)


class _InputFile(_Content, tag="input_file"):
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None

    def part(self) -> Part:
        return _file(self.file_url or self.file_data or "", self.filename, None)


class _Source(Struct):
    type: Literal["base64", "url", "text"]
    data: str = ""
    url: str = ""
    media_type: str | None = None

    @property
    def address(self) -> str:
        """The address that it has, or a data URL."""
        return self.url if self.type == "url" else f"data:{self.media_type or ''};base64,{self.data}"


class _Image(_Content, tag="image"):
    source: _Source
    cache_control: _CacheControl | None = None

    def part(self) -> Part:
        return _image(self.source.address, None, self.cache_control)


class _Document(_Content, tag="document"):
    source: _Source
    title: str | None = None
    cache_control: _CacheControl | None = None

    def part(self) -> Part:
        if self.source.type != "text":
            return _file(self.source.address, self.title, self.cache_control)
        check_writable("the document", self.source.data)
        found = FilePart.of(self.source.data.encode("utf-8", "replace"), name=self.title)
        return replace(found, cache_control=self.cache_control)


class _ToolUse(_Content, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class _Thinking(_Content, tag="thinking"):
    thinking: str
    signature: str | None = None

    def part(self) -> Part:
        return ReasoningPart(self.thinking, "anthropic", signature=self.signature)


class _RedactedThinking(_Content, tag="redacted_thinking"):
    data: str

    def part(self) -> Part:
        return ReasoningPart(provider="anthropic", encrypted=self.data)


_Shown = _Text | _InputText | _OutputText | _ImageURL | _InputImage | _File | _InputFile | _Image | _Document


class _ToolResult(_Content, tag="tool_result"):
    tool_use_id: str
    content: str | list[_Shown] | None = None
    is_error: bool = False


_AnyPart = (
    _Text
    | _InputText
    | _OutputText
    | _Refusal
    | _ImageURL
    | _InputImage
    | _File
    | _InputFile
    | _Image
    | _Document
    | _ToolUse
    | _ToolResult
    | _Thinking
    | _RedactedThinking
)


class _Function(Struct):
    name: str
    arguments: str | dict[str, Any] = "{}"


class _Call(Struct):
    function: _Function
    id: str = ""
    extra_content: dict[str, Any] | None = None  # Gemini's signatures, in its form of OpenAI's API


_Role = Literal["system", "developer", "user", "assistant", "tool"]


class _Message(Struct):
    role: _Role
    content: str | list[_AnyPart] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    name: str | None = None


def conversation_of(prompt: object) -> tuple[ChatMessage, ...]:
    """Return the messages that a caller gives as a prompt; see `Conversation`.

    A tool result of Anthropic's form becomes a message of the role ``tool``. System messages at the beginning
    are joined, by empty lines.

    Raises:
        BadCall: it is nothing of the kind, or no conversation that a model can go on with. The message says
            where, by index and key.
    """
    if isinstance(prompt, str):
        return (ChatMessage("user", _checked_text(prompt)),)
    if (
        isinstance(prompt, Mapping)
        or not isinstance(prompt, Sequence)
        or isinstance(prompt, bytes | bytearray)
    ):
        raise BadCall(
            f"the prompt is of type {type(prompt).__name__}; it must be text (str), or a list of messages"
        )
    if not prompt:
        raise BadCall("the prompt is an empty list; it must have at least one message of the role 'user'")
    messages: list[ChatMessage] = []
    indices: list[int] = []
    for index, each in enumerate(prompt):
        found = _messages_of(each, f"prompt[{index}]")
        messages += found
        indices += [index] * len(found)
    check_conversation(messages, indices)
    return _joined_system(messages)


def with_system(messages: tuple[ChatMessage, ...], system: str | None) -> tuple[ChatMessage, ...]:
    """Return `messages` with a system prompt ahead of them, joined with theirs by an empty line."""
    if system is None:
        return messages
    return _joined_system([ChatMessage("system", system), *messages])


def _joined_system(messages: list[ChatMessage]) -> tuple[ChatMessage, ...]:
    count = leading_system(messages)
    if count <= 1:
        return tuple(messages)
    leading = messages[:count]
    content: str | tuple[Part, ...]
    if all(isinstance(each.content, str) for each in leading):
        content = "\n\n".join(each.text for each in leading)
    else:  # a hint of what to cache stands at a part
        content = tuple(part for each in leading for part in each.parts)
    return (ChatMessage("system", content), *messages[count:])


def _checked_text(prompt: str) -> str:
    if not prompt.strip():
        raise BadCall("the prompt is empty; it must have at least one character that is not white space")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadCall(
            f"the prompt cannot be sent as UTF-8: it has a lone surrogate at {error.start}"
        ) from None
    return prompt


def _messages_of(given: object, where: str) -> list[ChatMessage]:
    if isinstance(given, ChatMessage):
        return [checked_message(given, where)]
    try:
        given = _plain(given)
    except RecursionError as error:
        raise BadCall(f"{where}: {error}") from None
    if not isinstance(given, Mapping):
        raise BadCall(
            f"{where} is of type {type(given).__name__}; it must be a ChatMessage, or a mapping with the "
            "keys 'role' and 'content'"
        )
    for key, remedy in _OTHER_FORMS.items():
        if given.get(key):
            raise BadCall(f"{where} has the key {key!r}, which is of another API; {remedy}")
    try:
        message = msgspec.convert(given, _Message)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadCall(_at(where, str(error))) from None
    return _split(message, where)


_OTHER_FORMS: Final = {
    "images": "give images as parts of the content: "
    "{'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,…'}}",
    "parts": "give the parts as 'content', each with its 'type': {'type': 'text', 'text': …}",
    "function_call": "give the call in 'tool_calls', with an id, and its result with the role 'tool'",
}
"""What would be lost without a word, and what to give in its place."""


def _plain(given: object) -> object:
    """Return `given` with mappings in place of objects of an SDK, in its content and tool calls, too."""
    if not isinstance(given, Mapping):
        dump = getattr(given, "model_dump", None)
        return dump(exclude_none=True) if callable(dump) else given
    lists = {key: given[key] for key in ("content", "tool_calls") if isinstance(given.get(key), list | tuple)}
    return {**given, **{key: [_plain(each) for each in value] for key, value in lists.items()}}


_PATH: Final = lazy_pattern(r" - at `\$([^`]*)`$")


def _at(where: str, text: str) -> str:
    """Return msgspec's words with the place first: ``prompt[2].content[0]: Expected `str`, got `int```."""
    match = _PATH().search(text)
    place, said = ("", text) if match is None else (match[1], text[: match.start()])
    choices: tuple[str, ...] = ()
    if (place.endswith(".role") and "enum" in said) or said.endswith("field `role`"):
        choices = get_args(_Role)
    elif (place.endswith(".type") and "Invalid value" in said) or said.endswith("field `type`"):
        choices = tuple(str(each.__struct_config__.tag) for each in get_args(_AnyPart))
    return f"{where}{place}: {said}" + (f"; it must be one of: {', '.join(choices)}" if choices else "")


def _split(message: _Message, where: str) -> list[ChatMessage]:
    """Return the messages in one of a caller's: tool results are messages of their own, ahead of the rest."""
    role = "system" if message.role == "developer" else message.role
    given = [] if message.content is None or isinstance(message.content, str) else message.content
    results = [
        _tool_message(part, f"{where}.content[{index}]")
        for index, part in enumerate(given)
        if isinstance(part, _ToolResult)
    ]
    calls = [_tool_call(call, where) for call in message.tool_calls or ()]
    calls += [_tool_use(part, where) for part in given if isinstance(part, _ToolUse)]
    parts = _parts(given, where)
    content: str | tuple[Part, ...] = message.content if isinstance(message.content, str) else parts
    if len(parts) == 1 and isinstance(parts[0], TextPart) and parts[0].cache_control is None:
        content = parts[0].text
    if results and not content:
        return results
    own = ChatMessage(
        role,
        content or "",
        tool_calls=tuple(calls),
        tool_call_id=message.tool_call_id,
        name=message.name,
    )
    return [*results, own]


def _parts(given: Sequence[_AnyPart], where: str) -> tuple[Part, ...]:
    """Return what is content in our own form; `where` is the place of its message, for errors."""
    parts: list[Part] = []
    for index, part in enumerate(given):
        if isinstance(part, _ToolResult | _ToolUse):
            continue
        try:
            parts.append(part.part())
        except BadCall as error:
            raise BadCall(f"{where}.content[{index}]: {error}") from None
    return tuple(parts)


def _tool_message(result: _ToolResult, where: str) -> ChatMessage:
    given = result.content
    content = given if isinstance(given, str) else _parts(given or (), where)
    if len(content) == 1 and isinstance(content[0], TextPart):
        content = content[0].text
    return ChatMessage("tool", content, tool_call_id=result.tool_use_id, is_error=result.is_error)


def _tool_use(part: _ToolUse, where: str) -> ToolCall:
    return ToolCall(part.id, part.name, _arguments(part.input, part.name, where))


def _arguments(given: object, name: str, where: str) -> str:
    return as_json(f"{where}, the input of the call {name!r},", given).decode()


def _tool_call(call: _Call, where: str) -> ToolCall:
    arguments = call.function.arguments
    if not isinstance(arguments, str):
        arguments = _arguments(arguments, call.function.name, where)
    google = (call.extra_content or {}).get("google")
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return ToolCall(call.id, call.function.name, arguments or "{}", signature)


def _image(url: str, detail: str | None, hint: _CacheControl | None) -> ImagePart:
    return replace(ImagePart.of(_not_a_path(url), detail=detail), cache_control=hint)


def _file(url: str, name: str | None, hint: _CacheControl | None) -> FilePart:
    return replace(FilePart.of(_not_a_path(url), name=name), cache_control=hint)


def _not_a_path(url: str) -> str:
    """Return `url`, which must be no path: a mapping may come from somebody who must not read files here."""
    if not url[:8].lower().startswith(("http://", "https://", "data:")):
        raise BadCall(
            f"{url[:60]!r} is no address; in a mapping it must begin with https://, http:// or data: "
            "(ultra.ImagePart.of and ultra.FilePart.of take paths and bytes)"
        )
    return url
