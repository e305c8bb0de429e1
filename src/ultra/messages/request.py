"""One request to a model: the value that goes unchanged from the strategy to the dialect."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import msgspec
from msgspec import Struct, structs

from ultra._support.checks import check_writable, shown
from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage, ImagePart
from ultra.messages.conversation import Conversation, conversation_of, with_system
from ultra.messages.schema import JsonSchema
from ultra.messages.tools import Tool, ToolChoice

__all__ = ["ModelRequest", "SamplingOptions"]


class SamplingOptions(Struct, frozen=True, kw_only=True):
    """How a model writes its answer; None: the client or the provider decides.

    `max_tokens` limits the answer, together with reasoning where the provider counts so. `stop` are texts
    at which the answer ends. `reasoning_effort` is one of the provider's own words; with ``"none"``, a model
    is asked neither to think nor to show what it thinks. `show_reasoning`: the provider is asked to send what
    the model thinks, or a summary of it, where it must be asked; Claude models are then asked to think.
    `extra` has options of other names, for clients that declare them; their values
    are plain (text, numbers, lists, mappings).

    Raises:
        BadCall: a number is out of its range, or a name in `extra` is one of the others.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: str | tuple[str, ...] | None = None
    seed: int | None = None
    reasoning_effort: str | None = None
    show_reasoning: bool | None = None
    extra: dict[str, Any] = {}

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p"):
            value = getattr(self, name)
            if value is not None and not _is_finite(value):
                raise BadCall(f"{name} must be a finite number, not {shown(value)}")
        for name in ("max_tokens", "seed"):
            value = getattr(self, name)
            if value is not None and not _is_encodable(value):
                raise BadCall(f"{name} must be a number of 64 bits, not {shown(value)}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise BadCall(f"max_tokens must be at least 1, not {self.max_tokens!r}")
        stop: object = self.stop
        if not isinstance(stop, str | None) and not (
            isinstance(stop, tuple | list) and all(isinstance(each, str) for each in stop)
        ):
            raise BadCall(f"stop must be a text, or a tuple of texts, not {shown(stop)}")
        for text in (stop,) if isinstance(stop, str) else stop or ():
            check_writable("stop", text)
        _check_kind("reasoning_effort", self.reasoning_effort, str, "a text")
        check_writable("reasoning_effort", self.reasoning_effort)
        _check_kind("show_reasoning", self.show_reasoning, bool, "true or false")
        extra: object = self.extra
        if not (isinstance(extra, Mapping) and all(isinstance(name, str) for name in extra)):
            raise BadCall(f"extra must be a mapping by the names of options, not {type(extra).__name__}")
        taken = self.extra.keys() & set(self.__struct_fields__)
        if taken:
            raise BadCall(f"extra names {sorted(taken)}, which are options of their own")

    @classmethod
    def of(cls, options: object) -> SamplingOptions:
        """Return the options that a caller gives: as such an object, a mapping by name, or None.

        Names that are no fields of this class go to `extra`.

        Raises:
            BadCall: it is something else, or a value is not allowed. The message shows no values, since
                one may be a key.
        """
        if options is None:
            return _NONE
        if isinstance(options, SamplingOptions):
            return options
        if not isinstance(options, Mapping) or not all(isinstance(name, str) for name in options):
            given = list(options) if isinstance(options, Mapping) else type(options).__name__
            raise BadCall(
                f"options is {given}; it must be a mapping from the names of options to their values"
            )
        known = {name: value for name, value in options.items() if name in cls.__struct_fields__}
        extra = {name: value for name, value in options.items() if name not in known}
        if isinstance(known.get("extra"), Mapping):
            extra = {**known["extra"], **extra}
        try:
            if extra:
                known["extra"] = _as_values(extra)
            return msgspec.convert(known, cls)
        except msgspec.ValidationError as error:
            raise BadCall(f"an option of the call is not allowed: {error}") from None

    def given(self) -> dict[str, Any]:
        """Return the options that are set, by name, those of `extra` among them."""
        given = {name: value for name, value in structs.asdict(self).items() if value is not None}
        del given["extra"]
        return given | self.extra

    def __repr__(self) -> str:
        return f"SamplingOptions({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the options that are set; of `extra` only the names, since a value may be a key."""
        shown = {name: value for name, value in structs.asdict(self).items() if value is not None}
        shown["extra"] = list(self.extra)
        return [(name, value) for name, value in shown.items() if value != []]


def _check_kind(name: str, value: object, kind: type, what: str) -> None:
    if not (value is None or isinstance(value, kind)):
        raise BadCall(f"{name} must be {what}, not {shown(value)}")


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else _is_encodable(value)


def _is_encodable(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64


_NONE = SamplingOptions()
_encode = msgspec.msgpack.Encoder().encode
_extra_decoder: msgspec.msgpack.Decoder[dict[str, Any]] = msgspec.msgpack.Decoder(dict[str, Any])


def _as_values(extra: Mapping[str, object]) -> dict[str, Any]:
    """Return a copy of `extra` in plain values, as it would arrive in another process."""
    try:
        return _extra_decoder.decode(_encode(_with_lists(extra)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        names = ", ".join(map(repr, extra))
        raise BadCall(
            f"the options ({names}) cannot be sent to a model: {error}; "
            "use plain values (text, numbers, lists, mappings)"
        ) from error


def _with_lists(value: object) -> object:
    """Return `value` with each set as a list in an order that is the same in every process."""
    if isinstance(value, Mapping):
        return {key: _with_lists(item) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted(map(_with_lists, value), key=_encode)
    if isinstance(value, list | tuple):
        return [_with_lists(item) for item in value]
    return value


class ModelRequest(Struct, frozen=True, kw_only=True):
    """What one model is asked: messages, tools, the form of the answer, and options of how it writes.

    `tools` are what the model may call, `tool_choice` whether it must. `output` is the schema that the answer
    must satisfy. `sample` (from 0) is the number among equal requests. Samples are different calls, with
    different keys in the cache. ::

        ModelRequest.of("What is the capital of France?", system="Answer in one word.")
    """

    messages: tuple[ChatMessage, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    output: JsonSchema | None = None
    options: SamplingOptions = _NONE
    sample: int = 0

    @classmethod
    def of(
        cls, prompt: Conversation, system: str | None = None, options: SamplingOptions | None = None
    ) -> ModelRequest:
        """Return the request of a prompt or a conversation, with a system prompt before it if there is one.

        Raises:
            BadCall: it is no conversation; see `ultra.messages.conversation`.
        """
        messages = (ChatMessage("user", prompt),) if isinstance(prompt, str) else conversation_of(prompt)
        return cls(messages=with_system(messages, system), options=options or _NONE)

    def with_system(self, system: str | None) -> ModelRequest:
        """Return this request with another system prompt; None: with none."""
        others = tuple(message for message in self.messages if message.role != "system")
        return structs.replace(self, messages=with_system(others, system))

    @property
    def system(self) -> str | None:
        """The system messages, joined by empty lines; None if there are none."""
        texts = [message.text for message in self.messages if message.role == "system"]
        return "\n\n".join(texts) if texts else None

    @property
    def prompt(self) -> str:
        """The text of the last message of the user: the question; empty if there is none."""
        for message in reversed(self.messages):
            if message.role == "user":
                return message.text
        return ""

    @property
    def has_images(self) -> bool:
        """Whether an image is in it."""
        return any(
            isinstance(part, ImagePart)
            for message in self.messages
            if not isinstance(message.content, str)
            for part in message.content
        )
