"""Tools that a model may call, and which of them it must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct, field

from ultra._support.checks import as_json, check_writable
from ultra._support.lazy import lazy_pattern
from ultra.errors import BadCall
from ultra.messages.bounded_json import decode_json
from ultra.messages.canonical_json import canonical_json

__all__ = [
    "Tool",
    "ToolChoice",
    "ToolPolicy",
    "arguments_json",
    "arguments_object",
    "canonical_arguments",
    "no_parameters",
]


def no_parameters() -> dict[str, Any]:
    """Return the schema of a tool without parameters, which belongs to that tool alone."""
    return {"type": "object", "properties": {}}


_NAME: Final = lazy_pattern(r"[A-Za-z0-9_.:-]{1,128}")

ToolPolicy = Literal["primary", "vote", "judge", "refuse"]
"""Whose tool calls are those of a run.

primary: the model of highest weight has the tools, and the run passes its calls on; if it calls none, all
models answer. vote: all models have the tools; calls that a strict majority of the weight makes are those of
the run; where nothing has a majority, not even calling none, it is what the model of highest weight does.
judge: the model that writes the synthesis has the tools. refuse: a call with tools is refused.
"""


class Tool(Struct, frozen=True):
    """A function that a model may call. `parameters` is the JSON schema of its arguments, an object.

    `strict` asks the provider to hold the model to the schema, where it can.

    Raises:
        BadCall: the name is not allowed, the schema is none of an object, or a text in it, or in the
            description, cannot be written as UTF-8.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=no_parameters)
    strict: bool | None = None
    cache_control: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not _NAME().fullmatch(self.name):
            raise BadCall(
                f"the tool is named {self.name[:128]!r}; a name has 1 to 128 letters, digits and _ . : -"
            )
        if self.parameters.get("type", "object") != "object":
            raise BadCall(
                f"the parameters of the tool {self.name!r} are of type {self.parameters['type']!r}; "
                "they must be the JSON schema of an object"
            )
        check_writable(f"the description of the tool {self.name!r}", self.description)
        as_json(f"the parameters of the tool {self.name!r}", self.parameters)
        as_json(f"cache_control of the tool {self.name!r}", self.cache_control)


class ToolChoice(Struct, frozen=True):
    """Whether a model may, must or must not call tools, or which one it must call.

    `mode`: ``auto`` (it may), ``none``, ``required`` (any of them), ``named`` (the one of that `name`).
    `parallel`: whether it may make several calls at once; None: as the provider does.
    """

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None
    parallel: bool | None = None

    @classmethod
    def of(cls, given: object) -> ToolChoice | None:
        """Return the choice that a caller gives.

        It may be such an object, ``"auto"``, ``"none"``, ``"required"`` (or Anthropic's ``"any"``), a mapping
        in the form of OpenAI or Anthropic that names a tool, or None.

        Raises:
            BadCall: it is something else.
        """
        if given is None or isinstance(given, ToolChoice):
            return given
        if isinstance(given, str):
            mode = "required" if given == "any" else given
            if mode in {"auto", "none", "required"}:
                return cls(mode)  # type: ignore[arg-type] # checked just above
            return cls("named", given)
        if isinstance(given, Mapping):
            return cls._of_mapping(given)
        raise BadCall(f"tool_choice is of type {type(given).__name__}; give {_CHOICES}")

    @classmethod
    def _of_mapping(cls, given: Mapping[str, Any]) -> ToolChoice:
        kind = given.get("type")
        parallel = None
        if isinstance(given.get("disable_parallel_tool_use"), bool):
            parallel = not given["disable_parallel_tool_use"]
        function = given.get("function")
        name = function.get("name") if isinstance(function, Mapping) else given.get("name")
        if kind in ("function", "tool") and isinstance(name, str):
            return cls("named", name, parallel)
        if kind in ("auto", "none", "any", "required"):
            return cls("required" if kind == "any" else kind, None, parallel)
        raise BadCall(f"tool_choice is {dict(given)!r:.200}; give {_CHOICES}")


_CHOICES: Final = (
    "'auto', 'none', 'required', the name of a tool, or {'type': 'function', 'function': {'name': …}}"
)


def canonical_arguments(arguments: str) -> str:
    """Return JSON `arguments` in one form for equal values, to compare calls; other text as it is.

    Equal are 1 and 1.0, too: some APIs give all numbers so.
    """
    try:
        return canonical_json(decode_json(arguments or "{}"))
    except (msgspec.DecodeError, ValueError, RecursionError):
        return arguments.strip()


def arguments_object(arguments: str) -> dict[str, Any]:
    """Return the arguments of a call as an object, as APIs take them back.

    What is no JSON object stays readable: a model wrote it, and may have been told what is wrong with it.
    It is the value of the only field, ``arguments``.
    """
    try:
        found = decode_json(arguments or "{}")
    except (msgspec.DecodeError, ValueError, RecursionError):
        found = arguments
    return found if isinstance(found, dict) else {"arguments": found}


def arguments_json(arguments: str) -> str:
    """Return the arguments of a call as the text of a JSON object; see `arguments_object`.

    Many servers of OpenAI's API refuse a conversation with a call whose arguments are none. A text that is
    one stays as it is, to the letter.
    """
    try:
        if isinstance(decode_json(arguments or "{}"), dict):
            return arguments or "{}"
    except UnicodeEncodeError:  # a lone surrogate: the error comes when the request is written
        return arguments
    except (msgspec.DecodeError, ValueError, RecursionError):
        pass
    return msgspec.json.encode(arguments_object(arguments)).decode()
