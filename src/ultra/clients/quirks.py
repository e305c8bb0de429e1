"""What an endpoint does not take, or takes in other words: known before, or learned from its own words.

Servers that speak one dialect differ in it: one refuses a system prompt, another ``max_tokens``, another a
temperature. What is known before is data in `ultra.clients.catalog`. The rest a client learns: where a
server refuses a request and says why, the request is sent once more without what was refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from msgspec.structs import replace

from ultra.messages.chat import ChatMessage, TextPart

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ultra.clients.options import CallOptions
    from ultra.errors import ModelError
    from ultra.messages.request import ModelRequest

__all__ = ["Quirks", "reworded"]


class Quirks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an endpoint differs from its dialect.

    Attributes:
        omitted: fields of the payload that it refuses, by their path (``generationConfig.temperature``).
        renamed: fields that have another name there, as pairs of the dialect's name and the endpoint's.
        no_system: it takes no system prompt, which then goes ahead of the user's first message.
        no_stream: it does not stream.
        responses: the model answers in the Responses API alone.
        versioned: ``/v1`` is missing at the end of the address.
        thinking_budget: it takes the effort of reasoning, or that it shall think, as a number of tokens.
        shows_when_asked: in OpenAI's form, it shows what a model thinks where ``reasoning`` asks for it.
        cache_hints: it takes ``cache_control`` in OpenAI's form of messages; others refuse unknown fields.
        signed_calls: in that form, it wants calls back with the signatures of thoughts that they came with.
        no_image_urls: it takes images only as bytes, and not by their address.
        no_file_urls: it takes documents only so, but for the Responses API.
    """

    omitted: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    no_system: bool = False
    no_stream: bool = False
    responses: bool = False
    versioned: bool = False
    thinking_budget: bool = False
    shows_when_asked: bool = False
    cache_hints: bool = False
    signed_calls: bool = False
    no_image_urls: bool = False
    no_file_urls: bool = False

    def joined(self, other: Quirks) -> Quirks:
        """Return the quirks of both; where both rename a field, as `other` does."""
        return Quirks(
            omitted=tuple(dict.fromkeys((*self.omitted, *other.omitted))),
            renamed=tuple({**dict(self.renamed), **dict(other.renamed)}.items()),
            **{name: getattr(self, name) or getattr(other, name) for name in _FLAGS},
        )

    def conversation(self, request: ModelRequest, options: CallOptions) -> tuple[ModelRequest, CallOptions]:
        """Return the request and the options to encode: these, or the same without a system prompt."""
        if not self.no_system:
            return request, options
        system = request.system if request.system is not None else options.system
        messages = [message for message in request.messages if message.role != "system"]
        if system and messages and messages[0].role == "user":
            first = messages[0].content
            joined = f"{system}\n\n{first}" if isinstance(first, str) else (TextPart(system), *first)
            messages[0] = replace(messages[0], content=joined)
        elif system:
            messages.insert(0, ChatMessage("user", system))
        return replace(request, messages=tuple(messages)), replace(options, system=None)

    def payload(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Return `payload` without entries that are None, as this endpoint takes it."""
        names = dict(self.renamed)
        found = {names.get(name, name): value for name, value in payload.items() if value is not None}
        if self.thinking_budget:
            found = _with_budget(found)
        for path in self.omitted:
            found = _without(found, path.split("."))
        return found


_FLAGS: Final = (
    "no_system",
    "no_stream",
    "responses",
    "versioned",
    "thinking_budget",
    "shows_when_asked",
    "cache_hints",
    "signed_calls",
    "no_image_urls",
    "no_file_urls",
)

_BUDGETS: Final = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24_576}
"""Tokens, as Google's own translation of OpenAI's efforts has them."""


_LEAST_BUDGET: Final = 1024
"""Tokens: what Anthropic's models must at least be given to think; it must be less than `max_tokens`."""


def _with_budget(payload: dict[str, Any]) -> dict[str, Any]:
    if "thinking" in payload:
        budget = payload["max_tokens"] // 2  # the other half is for the answer
        enabled = {"thinking": {"type": "enabled", "budget_tokens": budget}}
        kept = _without(payload, ["thinking"])
        return kept if budget < _LEAST_BUDGET else kept | enabled
    generation = payload.get("generationConfig") or {}
    thinking = generation.get("thinkingConfig") or {}
    level = str(thinking.get("thinkingLevel", "")).lower()  # without one, the model decides
    if level not in _BUDGETS:
        return payload
    config = {name: value for name, value in thinking.items() if name != "thinkingLevel"}
    config["thinkingBudget"] = _BUDGETS[level]
    if not _BUDGETS[level]:
        config.pop("includeThoughts", None)  # the API refuses it where there are none
    return payload | {"generationConfig": generation | {"thinkingConfig": config}}


def _without(payload: dict[str, Any], path: list[str]) -> dict[str, Any]:
    """Return `payload` without the field at `path`, and without what has nothing left in it."""
    name, *rest = path
    if name not in payload:
        return payload
    kept = {key: value for key, value in payload.items() if key != name}
    if rest and isinstance(payload[name], dict) and (inner := _without(payload[name], rest)):
        return {**payload, name: inner}
    return kept


# --- learning from what a server says -----------------------------------------------------------------

_READ: Final = 2_000
"""Characters of an error that are read: the reason stands at its beginning."""

_ANSWERABLE: Final = frozenset({"auth", "bad_request", "protocol", "server"})
"""Kinds of errors that other words may avoid."""

_FAULT_OF_THE_SERVER: Final = 500
_OTHER_CAUSES: Final = frozenset({401, 402, 408, 409, 429})

# All of these stand between single spaces, in lower case, as `_words` writes them.
_REFUSALS: Final = (
    *(" unsupported ", " not supported ", " not support ", " doesn t support ", " isn t supported "),
    *(" unrecognized ", " unknown ", " unexpected ", " extra forbidden ", " extra inputs "),
    *(
        " not permitted ",
        " not allowed ",
        " not enabled ",
        " not available ",
        " not accept ",
        " not accepted ",
    ),
    *(
        " only the default ",
        " allowed for this model ",
        " cannot both ",
        " cannot be used ",
        " can t be used ",
    ),
    *(" deprecated ", " no longer ", " incompatible ", " not compatible ", " must be verified "),
)
_SYSTEM: Final = (
    *(" developer instruction ", " system role ", " role system ", " system message ", " system messages "),
    *(" system prompt ", " system prompts ", " system instruction ", " system instructions "),
    *(" support system ", " developer role ", " role developer ", " support developer "),
)
_ROLES: Final = (
    *(" roles must alternate ", " only user ", " should be user or assistant ", " invalid role system "),
    *(" unexpected role system ", " unknown role system "),
)
_RESPONSES: Final = (" v1 responses ", " responses api ", " responses endpoint ", " not a chat model ")
_STREAM: Final = (" stream ", " streaming ", " streamed ")
_NO_ADDRESS: Final = (" unexpected endpoint ", " unknown endpoint ")

_ESSENTIAL: Final = frozenset({"model", "messages", "input", "contents", "stream", "system", "instructions"})
"""Fields that no request can do without."""

_ASKED: Final = frozenset(
    {
        "tools",
        "tool_choice",
        "toolConfig",
        "response_format",
        "format",
        "responseJsonSchema",
        "responseMimeType",
    }
)
"""Fields that say what is asked for: without them, the answer would be one to another question."""

_CONTAINERS: Final = frozenset({"options", "generationConfig", "systemInstruction"})
"""Fields whose names are words of ordinary sentences, or that hold a system prompt."""

_ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "thinkingLevel": ("thinking budget", "thinking"),
    "thinkingBudget": ("thinking level", "thinking"),
    "includeThoughts": ("thinking", "thoughts"),
    "summary": ("reasoning summaries", "summaries"),
    "reasoning_effort": ("effort", "thinking", "reasoning"),
    "effort": ("thinking", "reasoning effort"),
    "think": ("thinking",),
    "stop": ("stop sequences", "stop sequence"),
    "stopSequences": ("stop",),
    "include_usage": ("usage in streams",),
}
"""What servers call a field beside its own name."""

_OTHER_NAMES: Final = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""Fields with two names: an endpoint that refuses one of them takes the other."""


def reworded(quirks: Quirks, failure: ModelError, payload: Mapping[str, Any]) -> Quirks | None:
    """Return quirks with which the request may pass, by what the server said; None: it said nothing of it.

    Args:
        quirks: with which the request was sent.
        failure: the server's answer.
        payload: what was sent.
    """
    if failure.kind not in _ANSWERABLE or failure.status is None or failure.status in _OTHER_CAUSES:
        return None
    notes: list[str] = getattr(failure, "__notes__", [])
    said = _words("\n".join((failure.message, *notes)))
    for lesson in _lessons(quirks, said, failure.status, payload):
        if lesson != quirks:
            return lesson
    return None


def _lessons(quirks: Quirks, said: str, status: int, payload: Mapping[str, Any]) -> Iterator[Quirks]:
    if _has(said, _RESPONSES):
        yield replace(quirks, responses=True)
    if (status in {404, 405} and " model " not in said) or _has(said, _NO_ADDRESS):
        yield replace(quirks, versioned=True)
    if _has(said, _ROLES):
        yield replace(quirks, no_system=True)
    if not _has(said, _REFUSALS):
        return
    if _has(said, _SYSTEM):
        yield replace(quirks, no_system=True)
    if status >= _FAULT_OF_THE_SERVER:  # llama.cpp answers so where a template fails, and no more is meant
        return
    if " use thinking budget " in said or " use thinkingbudget " in said:
        yield replace(quirks, thinking_budget=True)
    if (field := _named_first(said, payload)) is not None:
        yield _refusing(quirks, field)
    if _has(said, _STREAM):
        yield replace(quirks, no_stream=True)


def _refusing(quirks: Quirks, path: str) -> Quirks:
    """Return quirks with which the field at `path` is not sent under this name."""
    names = {sent: name for name, sent in quirks.renamed}
    if path in _OTHER_NAMES:
        name = names.get(path, path)
        return replace(quirks, renamed=tuple({**dict(quirks.renamed), name: _OTHER_NAMES[path]}.items()))
    return replace(quirks, omitted=(*quirks.omitted, path))


def _named_first(said: str, payload: Mapping[str, Any]) -> str | None:
    """Return the path of the field of `payload` that is named first, None if none is."""
    found: dict[str, tuple[int, bool]] = {}
    for path in _paths(payload):
        own = [part for part in path.split(".") if part not in _CONTAINERS]
        names = [own, [alias for part in own for alias in _ALIASES.get(part, ())]]
        # An alias counts only where no field is called by its own name.
        for rank, group in enumerate(names):
            places = [place for name in group if (place := said.find(_words(name))) >= 0]
            if places:
                # Of several in one container, the one that is called by its own name, too.
                is_named = _words(own[-1]) in said
                found.setdefault(path, (min(places) + rank * len(said), not is_named))
    return min(found, key=lambda path: found[path], default=None)


def _paths(payload: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in payload.items():
        if name in _ASKED or (name in _ESSENTIAL and not above):
            continue
        if name == "thinking":  # its parts have names that are words of any sentence, and belong together
            yield f"{above}{name}"
        elif isinstance(value, dict) and value and name != "systemInstruction":
            yield from _paths(value, f"{above}{name}.")
        elif name != "systemInstruction":
            yield f"{above}{name}"


def _has(said: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in said for phrase in phrases)


def _words(text: str) -> str:
    """Return `text` as words in lower case between single spaces; ``maxTokens`` is two words."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text[:_READ])
    return f" {' '.join(re.findall(r'[a-z0-9]+', parted.lower()))} "
