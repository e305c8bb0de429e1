"""What statuses, codes and wordings mean, at whatever provider.

One table for all of them, because gateways mix the dialects: an OpenAI-compatible endpoint may answer
in the words of Google. Words are compared in lower case.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ultra.errors import ErrorKind

__all__ = ["codes_in", "kind_of_error", "kind_of_status", "quotas_in"]

_STATUSES: Final[Mapping[int, ErrorKind]] = {
    401: "auth",
    402: "quota",
    403: "auth",
    408: "timeout",
    409: "server",
    429: "rate_limit",
    498: "overloaded",  # Groq: no capacity for the flex tier
    503: "overloaded",
    504: "timeout",
    524: "timeout",  # Cloudflare
    529: "overloaded",
}

# Codes that mean one thing only, and mean it more exactly than any status.
_CODES: Final[Mapping[ErrorKind, tuple[str, ...]]] = {
    "quota": (
        "insufficient_quota",
        "insufficient_user_quota",  # one-api
        "insufficient_credits",
        "insufficient_balance",
        "exceeded_current_quota_error",  # Moonshot
        "billing_hard_limit_reached",
        "billing_not_active",
        "billing_error",
        "billing_disabled",  # Google
        "credit_limit",  # Together
        "arrearage",  # Alibaba
    ),
    "content": (
        "content_filter",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "moderation_blocked",
        "data_inspection_failed",  # Alibaba
    ),
    "auth": ("api_key_invalid", "invalid_api_key"),
}

# What some providers say in nothing but a sentence, beside a status and a type that mean less.
_WORDINGS: Final[Mapping[ErrorKind, str]] = {
    "quota": (
        r"credit balance is too low"  # Anthropic
        r"|reached your specified (api|workspace api) usage limits"
        r"|insufficient[_ ](quota|credits?|balance|funds)"
        r"|requires more credits|credit limit exceeded"  # OpenRouter, Together
        r"|key limit exceeded"  # OpenRouter: a key's own allowance
        r"|all available credits|doesn't have any credits"  # xAI
        r"|(monthly|account) spend(ing)? (limit|cap)"
        r"|credits are depleted"  # Gemini
        r"|out of call volume quota"  # Azure
        r"|account is not active"
        r"|insufficient account balance|balance is insufficient|account is in arrears"
        r"|\b(requests|tokens|calls|messages) per day\b|\bper-day\b"  # Groq, OpenRouter: tomorrow is too late
        r"|\bdaily (\w+ )?(quota|limit|allowance|usage)"
    ),
    "content": (
        r"(prompt|input) was flagged"  # OpenAI, OpenRouter
        r"|blocked by content filtering policy"  # Anthropic
        r"|content exists risk"  # DeepSeek
        r"|content violates usage guidelines"  # xAI
        r"|content management policy"  # Azure
    ),
    # A request that is larger than what a minute allows never passes. Codes call it a rate limit.
    "bad_request": (
        r"\brequest too large for"  # OpenAI, Groq
        r"|must be reduced in order to run"
        r"|maximum context length is \d"
    ),
    "auth": r"(incorrect|invalid) api key|api key (not valid|expired|not found)|no auth credentials",
}
"""Regular expressions, compiled at the first error: it takes long, and most programs see none."""

_LONGEST_SEARCHED: Final = 4_000
"""Characters of a message in which words are looked for."""

_TOO_LARGE: Final = frozenset(
    {"context_length_exceeded", "exceed_context_size_error", "request_too_large", "string_above_max_length"}
)
"""Codes of requests that never pass, whatever the status."""

# Codes that say little more than a status would: for errors that come without one.
_LOOSE_CODES: Final[Mapping[ErrorKind, tuple[str, ...]]] = {
    "auth": ("authentication_error", "permission_error", "unauthenticated", "permission_denied"),
    "rate_limit": (
        "rate_limit_error",
        "rate_limit_exceeded",
        "rate_limited",
        "model_rate_limit",
        "too_many_requests",
        "resource_exhausted",
    ),
    "overloaded": (
        "overloaded_error",
        "engine_overloaded",
        "engine_overloaded_error",
        "service_unavailable",
        "service_tier_capacity_exceeded",  # Mistral
        "unavailable_error",
        "provider_unavailable",
        "unavailable",
    ),
    "timeout": ("timeout_error", "deadline_exceeded"),
    "bad_request": (
        "exceed_context_size_error",
        "context_length_exceeded",
        "model_not_found",
        "not_found_error",
        "notfounderror",  # vLLM
        "request_too_large",
        "invalid_request_error",
        "badrequesterror",  # vLLM
        "invalid_argument",
        "failed_precondition",
        "not_found",
    ),
}


def kind_of_status(status: int) -> ErrorKind:
    """Return what an HTTP status means where nothing else is known about the error."""
    known = _STATUSES.get(status)
    if known is not None:
        return known
    if status >= 500:  # noqa: PLR2004 - the class of server errors
        return "server"
    # A redirect comes from a wrong base URL; a success status from an answer that made no sense.
    return "bad_request" if status >= 300 else "protocol"  # noqa: PLR2004


def codes_in(details: Mapping[str, Any]) -> list[str]:
    """Return every word in `details`, one level of an error body, that may name the kind of the error."""
    found = [details.get(key) for key in ("code", "type", "status")]
    inner = details.get("innererror")  # Azure
    metadata = details.get("metadata")  # OpenRouter
    entries = details.get("details")  # Google
    found += [inner.get("code")] if isinstance(inner, dict) else []
    found += [metadata.get("error_type")] if isinstance(metadata, dict) else []
    if isinstance(entries, list):
        found += [entry.get("reason") for entry in entries if isinstance(entry, dict)]
    return [word for word in found if isinstance(word, str)]


def quotas_in(details: Mapping[str, Any]) -> list[str]:
    """Return the names of the allowances that are used up, as Google lists them in an error."""
    entries = details.get("details")
    found: list[str] = []
    for entry in entries if isinstance(entries, list) else ():
        violations = entry.get("violations") if isinstance(entry, dict) else None
        for violation in violations if isinstance(violations, list) else ():
            name = violation.get("quotaId") if isinstance(violation, dict) else None
            found += [name] if isinstance(name, str) else []
    return found


def kind_of_error(status: int | None, codes: Iterable[str], message: str) -> ErrorKind:
    """Return what an error means by its status, the provider's codes for it, and its message.

    The words come before the status where they say that no repetition helps: an empty account, a refused
    content, a request that is too large. Otherwise a server's own failure (5xx) is one whatever it says. An
    error without a status or a known word, such as one inside a stream, is the server's.
    """
    words = {code.lower() for code in codes}
    told = _told(words, message[:_LONGEST_SEARCHED]) or _find(words, _LOOSE_CODES)
    if status is None:
        return told or "server"
    if not words.isdisjoint(_TOO_LARGE) or _asks_too_much(message[:_LONGEST_SEARCHED]):
        return "bad_request"
    exact = told in {"quota", "content"} or (told == "auth" and status < 500)  # noqa: PLR2004 - the caller's errors
    if told is not None and (exact or (status == 429 and told == "overloaded")):  # noqa: PLR2004
        return told
    return kind_of_status(status)


def _asks_too_much(message: str) -> bool:
    """Return whether `message` says that more was requested at once than the limit is."""
    found = re.search(r"\blimit:? (\d{1,12})\b.{0,80}?\brequested:? (\d{1,12})\b", message, re.IGNORECASE)
    too_large = _patterns_of("bad_request").search(message)
    return too_large is not None or (found is not None and int(found[2]) > int(found[1]))


def _told(words: set[str], message: str) -> ErrorKind | None:
    if kind := _find(words, _CODES):
        return kind
    return next((kind for kind in _WORDINGS if _patterns_of(kind).search(message)), None)


@cache
def _patterns_of(kind: ErrorKind) -> re.Pattern[str]:
    return re.compile(_WORDINGS[kind], re.IGNORECASE)


def _find(words: set[str], codes: Mapping[ErrorKind, tuple[str, ...]]) -> ErrorKind | None:
    for kind, known in codes.items():
        if not words.isdisjoint(known):
            return kind
    return None
