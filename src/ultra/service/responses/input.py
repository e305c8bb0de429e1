"""The `input` of a request for a response: items, of which messages are made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
from msgspec import Struct

from ultra.messages.chat import ReasoningPart
from ultra.service.asked import read_turns
from ultra.service.problems import Problem
from ultra.service.reasoning import opened, sealed, with_reasoning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.messages.chat import ChatMessage

__all__ = ["read_input"]

_IGNORED: Final = "ultra:"
"""Items whose type begins so are our own: they tell of a run, and are no part of a conversation."""

_ROLES: Final = ("user", "assistant", "system", "developer")
_PARTS: Final = ("input_text", "output_text", "refusal", "input_image", "input_file")


class _Summary(Struct):
    text: str = ""


class _Reasoning(Struct):
    id: str | None = None
    summary: list[_Summary] | None = None
    encrypted_content: str | None = None


class _Call(Struct):
    call_id: str
    name: str
    arguments: str = "{}"


class _Output(Struct):
    call_id: str
    output: str | list[dict[str, Any]]


class _Messages:
    """The messages that the items come to; what an assistant says, thinks and calls in a row is one."""

    def __init__(self) -> None:
        self.given: list[ChatMessage | dict[str, Any]] = []
        self.places: list[str] = []
        self._turn: dict[str, Any] | None = None
        self._thoughts: list[dict[str, Any]] = []

    def go_on_with(self, messages: Sequence[ChatMessage]) -> None:
        """Add the conversation of an earlier response."""
        self.given += messages
        self.places += ["previous_response_id"] * len(messages)

    def take(self, item: dict[str, Any], place: str) -> None:
        """Add an item. Raises `Problem`."""
        kind = item.get("type", "message")
        match kind:
            case "message":
                self._take_message(item, place)
            case "function_call":
                call = _read(item, _Call, place)
                function = {"name": call.name, "arguments": call.arguments}
                turn = self._assistant(place)
                turn["tool_calls"].append({"id": call.call_id, "function": function})
            case "function_call_output":
                output = _read(item, _Output, place)
                content = output.output if isinstance(output.output, str) else _parts(output.output, place)
                self._add({"role": "tool", "tool_call_id": output.call_id, "content": content}, place)
            case "reasoning":
                self._take_reasoning(_read(item, _Reasoning, place))
            case "item_reference":
                text = f"{place}: the service keeps no items; give the item itself in place of its id"
                raise Problem.bad_request(text, code="unsupported_value", param=place)
            case str() if kind.startswith(_IGNORED):
                pass
            case _:
                text = (
                    f"{place}.type: it is {kind!r:.80}; it must be one of message, function_call, "
                    "function_call_output and reasoning"
                )
                raise Problem.bad_request(text, code="unsupported_value", param=f"{place}.type")

    def _take_message(self, item: dict[str, Any], place: str) -> None:
        role, content = item.get("role"), item.get("content")
        if role not in _ROLES:
            text = f"{place}.role: it is {role!r:.80}; it must be one of {', '.join(_ROLES)}"
            raise Problem.bad_request(text, param=f"{place}.role")
        if not isinstance(content, str | list):
            text = f"{place}.content: it must be a text, or a list of parts"
            raise Problem.bad_request(text, code="invalid_type", param=f"{place}.content")
        if isinstance(content, list):
            content = _parts(content, f"{place}.content")
        if role != "assistant":
            self._add({"role": role, "content": content}, place)
            return
        turn = self._assistant(place) if self._turn is None or not self._turn["tool_calls"] else None
        if turn is None:  # what is said behind calls without results is a fault, and is told as such
            self._turn = None
            turn = self._assistant(place)
        turn["content"] += [{"type": "output_text", "text": content}] if isinstance(content, str) else content

    def _take_reasoning(self, item: _Reasoning) -> None:
        if item.encrypted_content is None:
            return  # a summary alone is for people: no model takes it back
        data = item.encrypted_content
        if opened(data) is None:
            text = "\n\n".join(each.text for each in item.summary or ())
            data = sealed(ReasoningPart(text, "openai", encrypted=data, id=item.id))
        thought = {"type": "redacted_thinking", "data": data}
        if self._turn is None:
            self._thoughts.append(thought)
        else:
            self._turn["content"].append(thought)

    def _assistant(self, place: str) -> dict[str, Any]:
        if self._turn is None:
            turn = {"role": "assistant", "content": self._thoughts, "tool_calls": []}
            self._add(turn, place)
            self._turn = turn
        return self._turn

    def _add(self, message: dict[str, Any], place: str) -> None:
        self.given.append(message)
        self.places.append(place)
        self._turn, self._thoughts = None, []


def read_input(
    given: str | Sequence[dict[str, Any]], before: Sequence[ChatMessage] = ()
) -> tuple[ChatMessage, ...]:
    """Return the conversation that the `input` of a request is, behind what is `before`.

    Raises:
        Problem: an item is not allowed, or they are no conversation that a model can go on with.
    """
    messages = _Messages()
    messages.go_on_with(before)
    if isinstance(given, str):
        messages.take({"role": "user", "content": given}, "input")
    for index, item in enumerate(() if isinstance(given, str) else given):
        messages.take(item, f"input[{index}]")
    if not messages.given:
        raise Problem.bad_request("input is an empty list; give at least one message", param="input")
    return with_reasoning(read_turns(messages.given, "input", messages.places))


T = TypeVar("T", bound=Struct)


def _read(item: dict[str, Any], kind: type[T], place: str) -> T:
    try:
        return msgspec.convert(item, kind)
    except msgspec.ValidationError as error:
        raise Problem.bad_request(f"{place}: {error}", code="invalid_type", param=place) from None


def _parts(content: list[Any], place: str) -> list[Any]:
    """Return the parts of a content. Raise `Problem` if one is of another protocol, or is only named."""
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _PARTS:
            where = f"{place}[{index}]"
            text = f"{where}: its type is {kind!r:.80}; it must be one of {', '.join(_PARTS)}"
            raise Problem.bad_request(text, param=where)
        if part.get("file_id") is not None:
            where = f"{place}[{index}].file_id"
            text = f"{where}: the service keeps no files; give the content, or its address"
            raise Problem.bad_request(text, code="unsupported_value", param=where)
    return content
