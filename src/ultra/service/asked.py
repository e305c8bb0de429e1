"""What a request asks for, whatever its protocol: the messages, who answers them, and how."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage
from ultra.messages.conversation import conversation_of
from ultra.messages.functions import tools_of
from ultra.messages.request import ModelRequest
from ultra.messages.tools import ToolChoice
from ultra.service.extension import Extension
from ultra.service.kept_run import Keeping
from ultra.service.problems import Problem
from ultra.service.targets import Target
from ultra.strategies.one_model import OneModel
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.service.targets import Targets

__all__ = [
    "Asked",
    "allowed_tools",
    "asked_form",
    "check_images",
    "read_messages",
    "read_turns",
    "with_limit",
    "with_tools",
]

_FORMS: Final = ("text", "json_object", "json_schema")
_HIGHEST: Final = 2**63 - 1
_INSTRUCTIONS: Final = ("system", "developer")
_PLACE: Final = re.compile(r"\bprompt\[(\d+)\]")


class Asked(Struct, frozen=True, kw_only=True):
    """A checked request. `model` is the name that it gives; `run` are arguments of `process_responses`.

    `extension` is what it asks for beside its protocol; `streams`: it wants the answer as it is written;
    `keeping`: how its run is kept in the journal.
    """

    model: str
    messages: tuple[ChatMessage, ...]
    target: Target
    run: dict[str, Any]
    extension: Extension | None
    streams: bool
    keeping: Keeping | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of `process_responses`, but for the prompt."""
        return {**self.target.arguments, **self.run}

    @property
    def is_checked_whole(self) -> bool:
        """Whether the answer must have a form, which is known once it is whole, and may be mended then."""
        return "output" in self.run

    @property
    def exposes_reasoning(self) -> bool:
        """Whether it asks for the reasoning of the writer beside its protocol."""
        return self.extension is not None and "reasoning" in self.extension.fields.expose

    @property
    def tells_reasoning(self) -> bool:
        """Whether a stream tells what the writer thinks: that of one model does, as its provider would."""
        return self.is_single or self.exposes_reasoning

    @property
    def is_single(self) -> bool:
        """Whether one model is asked, and no ensemble."""
        return isinstance(self.target.strategy, OneModel)


def read_messages(
    given: Sequence[object], field: str, places: Sequence[str] | None = None
) -> tuple[ChatMessage, ...]:
    """Return the conversation in `field` of a request; `places` names each message, where they differ.

    Raises:
        Problem: it is none. The problem names the place in the request.
    """
    try:
        return conversation_of(given)
    except BadCall as error:

        def place(match: re.Match[str]) -> str:
            number = int(match[1])
            return f"{field}[{number}]" if places is None else places[number]

        text = _PLACE.sub(place, str(error)).replace("the prompt", field)
        first = text.partition(":")[0].partition(" ")[0].rstrip(",;")
        raise Problem.bad_request(text, param=first if "[" in first else field) from None


def read_turns(
    given: Sequence[ChatMessage | dict[str, Any]], field: str, places: Sequence[str] | None = None
) -> tuple[ChatMessage, ...]:
    """Return a conversation as `read_messages` does, one of OpenAI's, whose models answer instructions, too.

    Other models answer a user alone. So instructions behind the last turn stand ahead of what the user said
    last; if nobody waits for an answer there, the last ones are themselves the question.
    """
    places = [f"{field}[{index}]" for index in range(len(given))] if places is None else places
    end = len(given)
    while end and _role_of(given[end - 1]) in _INSTRUCTIONS:
        end -= 1
    if end == len(given):
        return read_messages(given, field, places)
    order = list(range(len(given)))
    messages = list(given)
    if end and _role_of(given[end - 1]) in ("user", "tool"):  # it may be anything, a list too
        turns = [index for index in order[:end] if _role_of(given[index]) == "user"]
        begin = turns[-1] if turns else end
        order = [*order[:begin], *order[end:], *order[begin:end]]
    else:
        messages[-1] = _of_user(given[-1])
    return read_messages([messages[index] for index in order], field, [places[index] for index in order])


def _role_of(message: ChatMessage | dict[str, Any]) -> object:
    return message.get("role") if isinstance(message, dict) else message.role


def _of_user(message: ChatMessage | dict[str, Any]) -> ChatMessage | dict[str, Any]:
    if isinstance(message, dict):
        return {**message, "role": "user"}
    return structs.replace(message, role="user")


def with_limit(
    target: Target, options: dict[str, Any], limit: int | None, param: str
) -> tuple[Target, dict[str, Any]]:
    """Return target and options with the limit of tokens of the answer, which the field `param` has.

    Of an answer that others are merged into, it is the limit of the merging: a limit for all would cut the
    answers that the writer is to read.

    Raises:
        Problem: it is less than 1, or has more than 63 bits.
    """
    if limit is None:
        return target, options
    if not 1 <= limit <= _HIGHEST:
        raise Problem.bad_request(f"{param} must be at least 1, and of 63 bits, not {limit}", param=param)
    strategy = target.strategy
    if isinstance(strategy, Synthesize):
        bounded = structs.replace(strategy, answer_tokens=limit)
        return structs.replace(target, arguments={**target.arguments, "strategy": bounded}), options
    return target, {**options, "max_tokens": limit}


def asked_form(form: dict[str, Any] | None, param: str) -> dict[str, Any] | None:
    """Return the form that an answer shall have, which the field `param` has; None: it is text.

    Raises:
        Problem: there is no such form, or its schema is missing.
    """
    if form is None:
        return None
    kind = form.get("type")
    if kind not in _FORMS:
        text = f"{param}: its type must be one of: {', '.join(_FORMS)}"
        raise Problem.bad_request(text, code="unsupported_value", param=param)
    inner = form.get("json_schema", form)
    if kind == "json_schema" and not (isinstance(inner, dict) and isinstance(inner.get("schema"), dict)):
        at = f"{param}.json_schema.schema" if "json_schema" in form else f"{param}.schema"
        raise Problem.bad_request(f"{at}: it must be a JSON schema", param=at)
    return None if kind == "text" else form


def allowed_tools(
    tools: list[dict[str, Any]] | None, choice: str | dict[str, Any] | None
) -> tuple[list[dict[str, Any]] | None, str | dict[str, Any] | None]:
    """Return the tools and the choice among them, by OpenAI; a choice may itself allow some tools only.

    Chat completions have what it allows, and the names of tools, one level deeper than responses.

    Raises:
        Problem: the choice is not as it must be.
    """
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools, choice
    inner = choice.get("allowed_tools", choice)
    mode, allowed = (inner.get("mode", "auto"), inner.get("tools")) if isinstance(inner, dict) else ("", None)
    if mode not in ("auto", "required") or not isinstance(allowed, list):
        text = "tool_choice: of allowed_tools, mode must be 'auto' or 'required', and tools a list"
        raise Problem.bad_request(text, param="tool_choice")
    names = {_tool_name(tool) for tool in allowed}
    return [tool for tool in tools or () if _tool_name(tool) in names], mode


def _tool_name(tool: object) -> str | None:
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def with_tools(
    run: dict[str, Any], tools: Sequence[object] | None, choice: object, *, parallel: bool | None = None
) -> dict[str, Any]:
    """Return the arguments of a run with its tools, as `Tool` objects, and whether they must be called.

    `parallel`: whether several may be called at once, where the choice does not say it.

    Raises:
        Problem: a tool or the choice is not allowed, or there are no tools to choose among.
    """
    try:
        given = tools_of(tools)
    except BadCall as error:
        raise Problem.bad_request(str(error), param="tools") from None
    try:
        found = ToolChoice.of(choice)
    except BadCall as error:
        raise Problem.bad_request(str(error), param="tool_choice") from None
    if not given:
        if found is not None and found.mode in {"required", "named"}:
            raise Problem.bad_request("tool_choice: there are no tools", param="tool_choice")
        return run
    if parallel is not None:
        found = structs.replace(found or ToolChoice(), parallel=parallel)
    return {**run, "tools": given, "tool_choice": found}


def check_images(messages: Sequence[ChatMessage], target: Target, targets: Targets, param: str) -> None:
    """Raise `Problem` if there is an image, and no model of the target reads images."""
    if not ModelRequest(messages=tuple(messages)).has_images:
        return
    if all(info.images is False for info in targets.info(target).values()):
        text = f"the request has an image, and no model of {target.name!r} reads images"
        raise Problem(422, "invalid_request_error", "no_vision_model", text, param=param)
