"""A request for a message: its fields, and the run that they ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec
from msgspec import Struct

from ultra.messages.request import ModelRequest
from ultra.messages.tokens import estimate_request
from ultra.service.asked import Asked, check_images, read_messages, with_limit, with_tools
from ultra.service.extension import Plugin, RunFields, asked_extension, wants_reasoning, with_extension
from ultra.service.problems import Problem
from ultra.service.reasoning import with_reasoning

if TYPE_CHECKING:
    from ultra.messages.chat import ChatMessage
    from ultra.service.targets import Targets

__all__ = ["CountRequest", "MessageRequest", "MessageRun", "read_message"]

_ROLES: Final = ("user", "assistant", "system")
_EFFORTS: Final = ((4_096, "low"), (16_384, "medium"))
"""The effort that a budget of tokens for thinking comes to, up to so many tokens; above them, it is high."""


class _SystemBlock(Struct):
    text: str
    type: Literal["text"] = "text"
    cache_control: dict[str, str] | None = None


class _Thinking(Struct):
    type: str
    budget_tokens: int | None = None
    display: str | None = None


class _OutputConfig(Struct):
    effort: str | None = None
    format: dict[str, Any] | None = None


class CountRequest(Struct, kw_only=True):
    """What is counted: the part of a request that models read."""

    model: str
    messages: list[dict[str, Any]]
    system: str | list[_SystemBlock] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: _Thinking | None = None
    output_config: _OutputConfig | None = None
    output_format: dict[str, Any] | None = None  # its name before it moved into `output_config`
    mcp_servers: list[Any] | None = None
    plugins: list[Plugin] | None = None
    ultra: RunFields | None = None


class MessageRequest(CountRequest, kw_only=True):
    """The body of a request, as far as it means something here; other fields are left alone."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None


class MessageRun(Asked, frozen=True, kw_only=True):
    """A checked request.

    `shows_thinking`: the reasoning of the writer is sent, if there is any; `asks_for_thinking`: the request
    says so itself. `tokens` is about how many the request has.
    """

    shows_thinking: bool
    asks_for_thinking: bool
    tokens: int

    @property
    def tells_reasoning(self) -> bool:
        """Whether a stream tells what the writer thinks."""
        return self.shows_thinking and (self.asks_for_thinking or super().tells_reasoning)


def read_message(body: CountRequest, targets: Targets) -> MessageRun:
    """Return the run that a request asks for.

    Raises:
        Problem: a field is not allowed, or asks for what this service does not do.
    """
    if body.mcp_servers:
        text = "mcp_servers: this service calls no servers of tools; give functions in tools"
        raise Problem.bad_request(text, code="unsupported_value", param="mcp_servers")
    extension = asked_extension(body.plugins, body.ultra)
    target = with_extension(targets.get(body.model), extension, targets)
    messages = with_reasoning(_read(body))
    check_images(messages, target, targets, "messages")
    options = _options(body)
    asks = body.thinking is not None and body.thinking.type != "disabled"
    shown = asks and body.thinking is not None and body.thinking.display != "omitted"
    if wants_reasoning(extension, asked=shown):
        options["show_reasoning"] = True
    streams = False
    if isinstance(body, MessageRequest):
        target, options = with_limit(target, options, body.max_tokens, "max_tokens")
        streams = bool(body.stream)
    run = with_tools({"options": options}, body.tools, body.tool_choice)
    output = _output(body)
    if output is not None:
        run["output"] = output
    return MessageRun(
        model=body.model,
        messages=messages,
        target=target,
        run=run,
        extension=extension,
        streams=streams,
        shows_thinking=body.thinking is None or body.thinking.type != "disabled",
        asks_for_thinking=asks,
        tokens=estimate_request(ModelRequest(messages=messages, tools=run.get("tools", ()))),
    )


def _read(body: CountRequest) -> tuple[ChatMessage, ...]:
    for index, message in enumerate(body.messages):
        role = message.get("role")
        if role not in _ROLES:
            text = f"messages[{index}].role: it is {role!r:.80}; it must be 'user' or 'assistant'"
            raise Problem.bad_request(text, param=f"messages[{index}].role")
    places = [f"messages[{index}]" for index in range(len(body.messages))]
    if not body.messages:
        raise Problem.bad_request("messages: give at least one of the role 'user'", param="messages")
    if not body.system:
        return read_messages(body.messages, "messages", places)
    system = (
        body.system if isinstance(body.system, str) else [msgspec.to_builtins(each) for each in body.system]
    )
    given = [{"role": "system", "content": system}, *body.messages]
    return read_messages(given, "messages", ["system", *places])


def _options(body: CountRequest) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if isinstance(body, MessageRequest):
        given = {"temperature": body.temperature, "top_p": body.top_p, "stop": body.stop_sequences}
        options = {name: value for name, value in given.items() if value is not None}
    effort = body.output_config.effort if body.output_config else None
    thinking = body.thinking
    if effort is None and thinking is not None and thinking.type == "enabled":
        budget = thinking.budget_tokens
        if budget is None or budget < 1:
            text = "thinking.budget_tokens must be at least 1"
            raise Problem.bad_request(text, param="thinking.budget_tokens")
        effort = next((name for most, name in _EFFORTS if budget <= most), "high")
    return options if effort is None else {**options, "reasoning_effort": effort}


def _output(body: CountRequest) -> dict[str, Any] | None:
    form, param = body.output_format, "output_format"
    if body.output_config is not None and body.output_config.format is not None:
        form, param = body.output_config.format, "output_config.format"
    if form is None:
        return None
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        text = f"{param}: it must be {{'type': 'json_schema', 'schema': {{…}}}}"
        raise Problem.bad_request(text, param=param)
    return {"type": "json_schema", "schema": form["schema"]}
