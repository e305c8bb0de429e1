"""A request for a response: its fields, and the run that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct

from ultra.messages.conversation import with_system
from ultra.service.asked import (
    Asked,
    allowed_tools,
    asked_form,
    check_images,
    with_limit,
    with_tools,
)
from ultra.service.extension import Plugin, RunFields, asked_extension, wants_reasoning, with_extension
from ultra.service.kept_run import Keeping
from ultra.service.problems import Problem
from ultra.service.responses.input import read_input
from ultra.service.responses.shape import ResponseShape, tags_of
from ultra.strategies.one_model import OneModel

if TYPE_CHECKING:
    from ultra.messages.chat import ChatMessage
    from ultra.service.targets import Targets

__all__ = ["ResponseRequest", "ResponseRun", "read_response"]

_ENCRYPTED: Final = "reasoning.encrypted_content"


class _Reasoning(Struct):
    effort: str | None = None
    summary: str | None = None


class _Text(Struct):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseRequest(Struct, kw_only=True):
    """The body of a request, as far as it means something here; other fields are left alone."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    include: list[str] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: str | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    plugins: list[Plugin] | None = None
    ultra: RunFields | None = None


class ResponseRun(Asked, frozen=True, kw_only=True):
    """A checked request. `shape`: how its response is told."""

    shape: ResponseShape

    @property
    def tells_reasoning(self) -> bool:
        """Whether a stream tells what the writer thinks."""
        return self.shape.tells_reasoning


def read_response(
    body: ResponseRequest, targets: Targets, before: tuple[ChatMessage, ...] = ()
) -> ResponseRun:
    """Return the run that a request asks for.

    Args:
        body: the request.
        targets: what it may ask for.
        before: the conversation that it goes on with.

    Raises:
        Problem: a field is not allowed, or asks for what this service does not do.
    """
    _refuse_unsupported(body)
    extension = asked_extension(body.plugins, body.ultra)
    target = with_extension(targets.get(body.model), extension, targets)
    inputs = read_input(body.input, before)
    messages = with_system(inputs, body.instructions or None)
    joined = bool(body.instructions) and inputs[0].role == "system"
    check_images(messages, target, targets, "input")
    given = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if wants_reasoning(extension, asked=bool(body.reasoning and body.reasoning.summary)):
        options["show_reasoning"] = True
    target, options = with_limit(target, options, body.max_output_tokens, "max_output_tokens")
    tools, choice = allowed_tools(body.tools, body.tool_choice)
    run = with_tools({"options": options}, tools, choice, parallel=body.parallel_tool_calls)
    form = asked_form(body.text.format if body.text else None, "text.format")
    if form is not None:
        run["output"] = form
    fields = None if extension is None else extension.fields
    is_single = isinstance(target.strategy, OneModel)
    exposes = fields is not None and "reasoning" in fields.expose
    shape = ResponseShape(
        model=body.model,
        echo=_echo(body),
        fields=fields,
        is_single=is_single,
        holds_text="output" in run,
        includes_encrypted=_ENCRYPTED in (body.include or ()),
        tells_reasoning=is_single or exposes or bool(body.reasoning and body.reasoning.summary),
        background=bool(body.background),
        inputs=len(inputs) - joined,
        system=inputs[0].text if joined else None,
    )
    return ResponseRun(
        model=body.model,
        messages=messages,
        target=target,
        run=run,
        extension=extension,
        streams=bool(body.stream),
        keeping=None if body.store is False else Keeping(tags=tags_of(shape)),
        shape=shape,
    )


def _refuse_unsupported(body: ResponseRequest) -> None:
    refused: list[tuple[str, str]] = []
    if body.background and body.store is False:
        refused.append(("background", "a response in the background is stored; leave store out"))
    if body.conversation is not None:
        refused.append(("conversation", "the service keeps none; give the whole conversation as input"))
    if body.prompt is not None:
        refused.append(("prompt", "the service keeps none; give its text as instructions and input"))
    if body.top_logprobs or "message.output_text.logprobs" in (body.include or ()):
        refused.append(("top_logprobs", "an answer that is merged has no log probabilities"))
    for name, why in refused:
        raise Problem.bad_request(f"{name}: {why}", code="unsupported_value", param=name)


def _echo(body: ResponseRequest) -> dict[str, Any]:
    reasoning = body.reasoning or _Reasoning()
    form = (body.text.format if body.text else None) or {"type": "text"}
    verbosity = body.text.verbosity if body.text else None
    return {
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "parallel_tool_calls": True if body.parallel_tool_calls is None else body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": False,  # which is known when the run begins
        "temperature": body.temperature,
        "text": {"format": form} | ({} if verbosity is None else {"verbosity": verbosity}),
        "tool_choice": "auto" if body.tool_choice is None else body.tool_choice,
        "tools": body.tools or [],
        "top_logprobs": 0,
        "top_p": body.top_p,
        "truncation": body.truncation or "disabled",
        "user": body.user,
        "metadata": body.metadata or {},
    }
