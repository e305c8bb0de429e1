"""A request for a chat completion: its fields, and the run that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from ultra.service.asked import (
    Asked,
    allowed_tools,
    asked_form,
    check_images,
    read_turns,
    with_limit,
    with_tools,
)
from ultra.service.extension import Plugin, RunFields, asked_extension, wants_reasoning, with_extension
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.targets import Targets

__all__ = ["ChatRequest", "ChatRun", "StreamOptions", "read_chat"]

_SAMPLING: Final = ("temperature", "top_p", "seed", "stop", "reasoning_effort")


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
    include_reasoning: bool | None = None  # OpenRouter's word, and vLLM's
    logprobs: bool | None = None
    modalities: list[str] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None  # what tools were called before they were tools
    response_format: dict[str, Any] | None = None
    plugins: list[Plugin] | None = None
    ultra: RunFields | None = None


class ChatRun(Asked, frozen=True, kw_only=True):
    """A checked request.

    `includes_usage`: the stream tells what was used. `includes_reasoning`: it tells what the writer thinks;
    None: the request does not say.
    """

    includes_usage: bool
    includes_reasoning: bool | None = None

    @property
    def tells_reasoning(self) -> bool:
        """Whether a stream tells what the writer thinks."""
        return super().tells_reasoning if self.includes_reasoning is None else self.includes_reasoning


def read_chat(body: ChatRequest, targets: Targets) -> ChatRun:
    """Return the run that a request asks for.

    Raises:
        Problem: a field is not allowed, or asks for what this service does not do.
    """
    _refuse_unsupported(body)
    extension = asked_extension(body.plugins, body.ultra)
    target = with_extension(targets.get(body.model), extension, targets)
    messages = read_turns(body.messages, "messages")
    check_images(messages, target, targets, "messages")
    options = {name: getattr(body, name) for name in _SAMPLING if getattr(body, name) is not None}
    if wants_reasoning(extension, asked=bool(body.include_reasoning)):
        options["show_reasoning"] = True
    limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    target, options = with_limit(target, options, limit, "max_tokens")
    run: dict[str, Any] = {"options": options}
    form = asked_form(body.response_format, "response_format")
    if form is not None:
        run["output"] = form
    tools, choice = allowed_tools(body.tools, body.tool_choice)
    return ChatRun(
        model=body.model,
        messages=messages,
        target=target,
        run=with_tools(run, tools, choice, parallel=body.parallel_tool_calls),
        extension=extension,
        streams=bool(body.stream),
        includes_usage=bool(body.stream_options and body.stream_options.include_usage),
        includes_reasoning=body.include_reasoning,
    )


def _refuse_unsupported(body: ChatRequest) -> None:
    refused: list[tuple[str, str]] = []
    if body.n not in (None, 1):
        refused.append(("n", "one answer is given to a request; n must be 1"))
    if body.logprobs:
        refused.append(("logprobs", "an answer that is merged has no log probabilities"))
    if body.modalities not in (None, ["text"]):
        refused.append(("modalities", "answers are text"))
    if body.functions:  # left alone, a model would answer with words where its caller waits for a call
        refused.append(("functions", "give them as tools: {'type': 'function', 'function': {'name': …}}"))
    for name, why in refused:
        raise Problem.bad_request(f"{name}: {why}", code="unsupported_value", param=name)
