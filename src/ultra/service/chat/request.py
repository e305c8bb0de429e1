"""A request for a chat completion: its fields, and the run that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, structs

from ultra.errors import BadCall
from ultra.messages.chat import ChatMessage
from ultra.messages.conversation import conversation_of
from ultra.messages.request import ModelRequest
from ultra.messages.tools import ToolChoice
from ultra.service.extension import Extension, Plugin, RunFields, asked_extension, with_extension
from ultra.service.problems import Problem
from ultra.service.targets import OneModel, Target
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.service.targets import Targets

__all__ = ["ChatRequest", "ChatRun", "StreamOptions", "read_chat"]

_FORMS: Final = ("text", "json_object", "json_schema")
_SAMPLING: Final = ("temperature", "top_p", "seed", "reasoning_effort")


class StreamOptions(Struct):
    """What a stream has beside the text."""

    include_usage: bool | None = None


class ChatRequest(Struct):
    """The body of a request, as far as it means something here; other fields are left alone."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    modalities: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    plugins: list[Plugin] | None = None
    ultra: RunFields | None = None


class ChatRun(Struct, frozen=True):
    """A checked request: what is asked, of whom, and what the client is told beside the answer."""

    model: str
    messages: tuple[ChatMessage, ...]
    target: Target
    run: dict[str, Any]
    extension: Extension | None
    streams: bool
    includes_usage: bool

    @property
    def is_checked_whole(self) -> bool:
        """Whether the answer must have a form, which is known once it is whole, and may be mended then."""
        return "output" in self.run

    @property
    def is_single(self) -> bool:
        """Whether one model is asked, and no ensemble."""
        return isinstance(self.target.strategy, OneModel)


def read_chat(body: ChatRequest, targets: Targets) -> ChatRun:
    """Return the run that a request asks for.

    Raises:
        Problem: a field is not allowed, or asks for what this service does not do.
    """
    _refuse_unsupported(body)
    extension = asked_extension(body.plugins, body.ultra)
    target = with_extension(targets.get(body.model), extension, targets)
    try:
        messages = conversation_of(body.messages)
    except BadCall as error:
        text = str(error).replace("prompt[", "messages[").replace("the prompt is", "messages is")
        raise Problem.bad_request(
            text, param=text.partition(":")[0] if "messages[" in text else "messages"
        ) from None
    _check_images(messages, target, targets)
    run, target = _with_limits(body, target)
    if body.stop is not None:
        run["options"]["stop"] = body.stop
    if body.response_format is not None and body.response_format["type"] != "text":
        run["output"] = body.response_format
    if body.tools:
        run["tools"] = body.tools
        run["tool_choice"] = _tool_choice(body)
    elif body.tool_choice is not None and body.tool_choice != "none":
        raise Problem.bad_request("tool_choice: there are no tools", param="tool_choice")
    return ChatRun(
        model=body.model,
        messages=messages,
        target=target,
        run=run,
        extension=extension,
        streams=bool(body.stream),
        includes_usage=bool(body.stream_options and body.stream_options.include_usage),
    )


def _with_limits(body: ChatRequest, target: Target) -> tuple[dict[str, Any], Target]:
    """Return how the models write; the limit of an answer that others are merged into is that of the merging.

    A limit for all would cut the answers that the writer is to read.
    """
    options = {name: getattr(body, name) for name in _SAMPLING if getattr(body, name) is not None}
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if limit is not None and limit < 1:
        raise Problem.bad_request(f"max_tokens must be at least 1, not {limit}", param="max_tokens")
    strategy = target.strategy
    if limit is not None and isinstance(strategy, Synthesize):
        bounded = structs.replace(strategy, answer_tokens=limit)
        target = structs.replace(target, arguments={**target.arguments, "strategy": bounded})
    elif limit is not None:
        options["max_tokens"] = limit
    return {"options": options}, target


def _tool_choice(body: ChatRequest) -> ToolChoice | None:
    try:
        choice = ToolChoice.of(body.tool_choice)
    except BadCall as error:
        raise Problem.bad_request(str(error), param="tool_choice") from None
    if body.parallel_tool_calls is None:
        return choice
    return structs.replace(choice or ToolChoice(), parallel=body.parallel_tool_calls)


def _refuse_unsupported(body: ChatRequest) -> None:
    refused: list[tuple[str, str]] = []
    if body.n not in (None, 1):
        refused.append(("n", "one answer is given to a request; n must be 1"))
    if body.logprobs:
        refused.append(("logprobs", "an answer that is merged has no log probabilities"))
    if body.modalities not in (None, ["text"]):
        refused.append(("modalities", "answers are text"))
    form = body.response_format
    if form is not None and form.get("type") not in _FORMS:
        refused.append(("response_format", f"its type must be one of: {', '.join(_FORMS)}"))
    for name, why in refused:
        raise Problem.bad_request(f"{name}: {why}", code="unsupported_value", param=name)


def _check_images(messages: Sequence[ChatMessage], target: Target, targets: Targets) -> None:
    if not ModelRequest(messages=tuple(messages)).has_images:
        return
    if all(info.images is False for info in targets.info(target).values()):
        text = f"the request has an image, and no model of {target.name!r} reads images"
        raise Problem(422, "invalid_request_error", "no_vision_model", text, param="messages")
