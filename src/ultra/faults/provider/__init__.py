"""A provider of language models that do not exist, for tests, load and demonstrations: extra ``serve``.

It speaks the protocols of OpenAI (both), OpenRouter, Anthropic, Gemini and Ollama over real sockets, so that
clients are tested as a whole: what they send, how they read answers, and what they do when something goes
wrong.

    server                            start it on a socket
    app, endpoint                     from a request to its response
    openai, openai_responses, anthropic, gemini, ollama
                                      the protocols (`protocol` says what each must do)
    asked_tools, media_reading, signatures
                                      what they share: the rules of what they read
    schema_values                     arguments and answers by a JSON schema
    neutral                           requests and replies in no protocol's own form
    provider, generation              what is answered, and how fast
    rate_limits, response_faults      what goes wrong on purpose
"""

from __future__ import annotations

from ultra.errors import MissingExtra
from ultra.faults.provider.neutral import (
    Call,
    Failure,
    FailureKind,
    Media,
    Message,
    Outcome,
    Question,
    Reply,
    Respond,
    ToolResult,
)
from ultra.faults.provider.provider import ReceivedRequest, SimulatedProvider

try:
    from ultra.faults.provider.server import simulated_provider
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"hypercorn", "starlette"}:
        raise
    raise MissingExtra("the simulated provider", "serve") from error

__all__ = [
    "Call",
    "Failure",
    "FailureKind",
    "Media",
    "Message",
    "Outcome",
    "Question",
    "ReceivedRequest",
    "Reply",
    "Respond",
    "SimulatedProvider",
    "ToolResult",
    "simulated_provider",
]
