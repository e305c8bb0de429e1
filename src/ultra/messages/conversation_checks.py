"""Checks of a conversation, before any model is called: errors name the message and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.errors import BadCall
from ultra.messages.chat import FilePart, ImagePart, ReasoningPart, TextPart
from ultra.messages.media import LARGEST_FILE, LARGEST_IMAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ultra.messages.chat import ChatMessage, Part

__all__ = ["check_content", "check_conversation"]


def check_conversation(messages: Sequence[ChatMessage], indices: Sequence[int]) -> None:
    """Raise `BadCall` unless a model can go on with `messages`.

    Args:
        messages: in their order.
        indices: for each, its index in what the caller gave.
    """
    open_calls: dict[str, int] = {}
    answered: set[str] = set()
    for message, index in zip(messages, indices, strict=True):
        where = f"prompt[{index}]"
        if message.role == "tool":
            _check_result(message, where, open_calls, answered)
            continue
        if open_calls:
            name, at = next(iter(open_calls.items()))
            raise BadCall(
                f"{where} has the role {message.role!r}, but the call {name!r} of prompt[{at}] has no "
                f"result; put a message of the role 'tool' with tool_call_id={name!r} before it"
            )
        if message.tool_calls and message.role != "assistant":
            raise BadCall(
                f"{where} has tool_calls, but the role {message.role!r}; only 'assistant' calls tools"
            )
        for call in message.tool_calls:
            if not call.id:
                raise BadCall(f"{where}.tool_calls has a call of {call.name!r} without an id; give it one")
            if call.id in open_calls or call.id in answered:
                raise BadCall(f"{where}.tool_calls has the id {call.id!r}, which an earlier call has, too")
            open_calls[call.id] = index
            texts = f"{call.id}{call.name}{call.arguments}{call.signature or ''}"
            _check_text(texts, f"{where}, the call {call.name!r},")
        check_content(message, where)
    _check_end(messages, indices, open_calls)


def _check_result(message: ChatMessage, where: str, open_calls: dict[str, int], answered: set[str]) -> None:
    call = message.tool_call_id
    if not call:
        raise BadCall(f"{where} has the role 'tool' and no tool_call_id; give the id of the call it answers")
    if call in answered:
        raise BadCall(f"{where} is a second result of the call {call!r}; a call has one result")
    if call not in open_calls:
        raise BadCall(
            f"{where} is the result of a call {call!r} that no assistant's message before it makes; "
            "put the message with that tool call before it"
        )
    del open_calls[call]
    answered.add(call)
    check_content(message, where)


def check_content(message: ChatMessage, where: str) -> None:
    """Raise `BadCall` unless a message of its role may have this content; errors begin with `where`."""
    parts = message.parts
    for number, part in enumerate(parts):
        if isinstance(part, ImagePart | FilePart) and (part.data is None) == (part.url is None):
            raise BadCall(
                f"{where}.content[{number}] must have either data or url; "
                "ImagePart.of and FilePart.of make it"
            )
        if isinstance(part, ImagePart | FilePart) and part.data is not None:
            _check_data(part, part.data, f"{where}.content[{number}]")
        if isinstance(part, ImagePart | FilePart) and message.role in {"system", "assistant"}:
            raise BadCall(
                f"{where}.content[{number}] is an image or a file, but the role is {message.role!r}; "
                "only 'user' and 'tool' may have them"
            )
        if isinstance(part, ReasoningPart) and message.role != "assistant":
            raise BadCall(
                f"{where}.content[{number}] is reasoning, but the role is {message.role!r}; "
                "only 'assistant' may have it"
            )
        for text in _texts(part):
            if not text.isascii():
                _check_text(text, f"{where}.content[{number}]")
    if message.name is not None:
        _check_text(message.name, f"{where}, its name,")
    if message.role == "user" and not _says_something(message):
        raise BadCall(f"{where} is empty; a message of the role 'user' must have text, an image or a file")


def _texts(part: Part) -> Iterator[str]:
    """Yield every text in a part: one that cannot be written would be found only when the request is sent."""
    match part:
        case TextPart():
            yield part.text
        case ReasoningPart():
            yield from filter(None, (part.text, part.provider, part.signature, part.encrypted, part.id))
            return
        case ImagePart():
            yield from filter(None, (part.url, part.media_type, part.detail))
        case FilePart():
            yield from filter(None, (part.url, part.media_type, part.name))
    for name, value in (part.cache_control or {}).items():
        yield from (name, value)


def _check_data(part: ImagePart | FilePart, data: bytes, where: str) -> None:
    """Check what `ImagePart.of` and `FilePart.of` check, for parts that were made without them."""
    kind, largest = ("image", LARGEST_IMAGE) if isinstance(part, ImagePart) else ("file", LARGEST_FILE)
    if not data or len(data) > largest:
        size = f"has more than {largest // 2**20} MiB; make it smaller" if data else "has no bytes; give some"
        raise BadCall(f"{where}, the {kind}, {size}")
    if part.media_type is None:
        raise BadCall(
            f"{where}, the {kind}, has no media_type; {type(part).__name__}.of(bytes) finds it by the content"
        )


def _check_text(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadCall(f"{where} cannot be sent as UTF-8: it has a lone surrogate at {error.start}") from None


def _says_something(message: ChatMessage) -> bool:
    return any(not isinstance(part, TextPart) or part.text.strip() for part in message.parts)


def _check_end(messages: Sequence[ChatMessage], indices: Sequence[int], open_calls: dict[str, int]) -> None:
    if open_calls:
        call, at = next(iter(open_calls.items()))
        raise BadCall(
            f"the call {call!r} of prompt[{at}] has no result; "
            f"end with a message of the role 'tool' with tool_call_id={call!r}"
        )
    if not any(message.role == "user" for message in messages):
        raise BadCall("the prompt has no message of the role 'user'; it must have at least one")
    last = messages[-1]
    if last.role not in {"user", "tool"}:
        raise BadCall(
            f"prompt[{indices[-1]}], the last message, has the role {last.role!r}; "
            "it must be 'user' or 'tool', to be answered"
        )
