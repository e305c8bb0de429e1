"""A provider of language models that do not exist, for tests, load and demonstrations: extra ``serve``.

It speaks the protocols of OpenAI, Anthropic, Gemini and Ollama over real sockets, so that clients are
tested as a whole: what they send, how they read answers, and what they do when something goes wrong.

    server                            start it on a socket
    app, endpoint                     from a request to its response
    openai, anthropic, gemini, ollama the protocols (`protocol` says what each must do)
    neutral                           requests and replies in no protocol's own form
    provider, generation              what is answered, and how fast
    rate_limits, response_faults      what goes wrong on purpose
"""

from __future__ import annotations

from ultra.errors import MissingExtra
from ultra.faults.provider.neutral import Failure, FailureKind, Message, Outcome, Question, Reply, Respond
from ultra.faults.provider.provider import ReceivedRequest, SimulatedProvider

try:
    from ultra.faults.provider.server import simulated_provider
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"hypercorn", "starlette"}:
        raise
    raise MissingExtra("the simulated provider", "serve") from error

__all__ = [
    "Failure",
    "FailureKind",
    "Message",
    "Outcome",
    "Question",
    "ReceivedRequest",
    "Reply",
    "Respond",
    "SimulatedProvider",
    "simulated_provider",
]
