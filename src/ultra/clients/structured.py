"""How a model is asked for JSON: by its API where that can, else by a tool or in words.

The catalog says which (`ModelInfo.output`). A request with `output` reaches a dialect only if the API takes
the schema; in all other cases the request gets the schema in words, or as the parameters of a tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ultra.messages.chat import ChatMessage, TextPart
from ultra.messages.schema_forms import without_bounds
from ultra.messages.tools import Tool, ToolChoice

if TYPE_CHECKING:
    from ultra.clients.catalog.model_info import OutputMode
    from ultra.clients.dialects.base import Dialect
    from ultra.clients.options import CallOptions
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import Completion
    from ultra.messages.schema import JsonSchema

__all__ = ["answer_of_tool", "as_model_takes_it", "in_words"]

_TOOL: Final = "give_answer"
_TOOL_WORDS: Final = "Give the answer. Call this once, with the whole answer."


def as_model_takes_it(
    request: ModelRequest, options: CallOptions, mode: OutputMode | None, dialect: Dialect
) -> tuple[ModelRequest, CallOptions]:
    """Return the request and the options by which this model is asked for the output of `request`."""
    output = request.output
    if output is None:
        return request, options
    if mode == "schema" and (output.strict or not dialect.strict_schemas):
        if not dialect.strict_schemas:
            return request, options
        return replace(request, output=replace(output, schema=without_bounds(output.schema))), options
    # A model that is made to call a tool cannot think before it, at Anthropic.
    if mode == "tool" and not request.tools and options.reasoning_effort is None:
        return _by_tool(request, output), options
    if mode == "json" and dialect.json_mode:
        options = options.override(extra_body={**dialect.json_mode, **(options.extra_body or {})})
    return in_words(request), options


def in_words(request: ModelRequest) -> ModelRequest:
    """Return `request` with its schema in words, at the end of the last message of the user."""
    output = request.output
    if output is None:
        return request
    schema = msgspec.json.encode(output.schema).decode()
    words = (
        "Answer with one JSON value that satisfies this JSON schema, and nothing else: no text before or "
        f"after it.\n{schema}"
    )
    messages = list(request.messages)
    at = next((n for n in range(len(messages) - 1, -1, -1) if messages[n].role == "user"), None)
    if at is None or any(message.role == "tool" for message in messages[at:]):
        messages.append(ChatMessage("user", words))
    else:
        content = messages[at].content
        joined = f"{content}\n\n{words}" if isinstance(content, str) else (*content, TextPart(words))
        messages[at] = replace(messages[at], content=joined)
    return replace(request, messages=tuple(messages), output=None)


def answer_of_tool(completion: Completion, request: ModelRequest) -> Completion:
    """Return `completion` with what the model gave to the tool of its answer as its text."""
    choice = request.tool_choice
    if choice is None or choice.name != _TOOL:
        return completion
    given = next((call.arguments for call in completion.tool_calls if call.name == _TOOL), None)
    if given is None:
        return completion
    finish = "stop" if completion.finish_reason == "tool_calls" else completion.finish_reason
    return replace(completion, content=given, tool_calls=(), reasoning_parts=(), finish_reason=finish)


def _by_tool(request: ModelRequest, output: JsonSchema) -> ModelRequest:
    tool = Tool(_TOOL, _TOOL_WORDS, output.schema)
    return replace(request, tools=(tool,), tool_choice=ToolChoice("named", _TOOL), output=None)
