"""A provider of language models that do not exist, for tests, load and demonstrations: extra ``serve``.

It speaks the protocols of OpenAI, Anthropic, Gemini and Ollama over real sockets, so that clients are
tested whole: what they send, what they make of what comes back, and what they do when it goes wrong.
It stands with the faults because that is what it is for; it needs nothing of a service.
"""

from __future__ import annotations

from ultra.errors import MissingExtra
from ultra.faults.provider.exchange import Failure, FailureKind, Message, Outcome, Question, Reply, Respond
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
