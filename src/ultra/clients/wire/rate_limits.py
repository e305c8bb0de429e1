"""What response headers say about a provider's limits per minute.

OpenAI, Groq and others name no window: ``x-ratelimit-limit-requests`` is what OpenAI allows in a minute,
and Groq in a day. But where an allowance refills continuously, the part that was used and the time until
it is full again show the window. A limit whose window stays unclear is ignored: not to know a limit costs
a 429 at worst, a wrong one slows every call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from ultra._support.lazy import lazy_pattern
from ultra.clients.wire.headers import first_header

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RateLimits", "rate_limits"]

_DURATION: Final = lazy_pattern(
    r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?"
)
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)

_LONGEST_NUMBER: Final = 64  # characters

# Resets are rounded, so a minute does not come out as sixty seconds exactly.
_SHORTEST_MINUTE: Final = 30.0
_LONGEST_MINUTE: Final = 120.0


class RateLimits(Struct, frozen=True, kw_only=True):
    """A provider's limits per minute, and what is left of them.

    None: the provider did not say, or its limit is of another length of time.
    """

    requests_per_minute: float | None = None
    requests_remaining: float | None = None
    tokens_per_minute: float | None = None
    tokens_remaining: float | None = None


def rate_limits(headers: Mapping[str, str]) -> RateLimits | None:
    """Return the limits per minute in `headers`; None if there are none. Never raises."""
    requests = _by_name(headers, "requests", "req") or _by_reset(headers, "requests")
    tokens = _by_name(headers, "tokens", "tokens") or _by_reset(headers, "tokens")
    if requests is None and tokens is None:
        return None
    per_minute, remaining = requests or (None, None)
    tokens_per_minute, tokens_remaining = tokens or (None, None)
    return RateLimits(
        requests_per_minute=per_minute,
        requests_remaining=remaining,
        tokens_per_minute=tokens_per_minute,
        tokens_remaining=tokens_remaining,
    )


def _by_name(headers: Mapping[str, str], what: str, short: str) -> tuple[float, float | None] | None:
    """Return limit and remainder under the names that mean a minute: Anthropic's and Mistral's."""
    for limit_name, remaining_name in (
        (f"anthropic-ratelimit-{what}-limit", f"anthropic-ratelimit-{what}-remaining"),
        (f"x-ratelimit-limit-{short}-minute", f"x-ratelimit-remaining-{short}-minute"),
    ):
        limit = _number(first_header(headers, limit_name))
        if limit:
            return limit, _number(first_header(headers, remaining_name))
    return None


def _by_reset(headers: Mapping[str, str], what: str) -> tuple[float, float | None] | None:
    """Return limit and remainder under OpenAI's names, where the time until the reset shows a minute."""
    limit = _number(first_header(headers, f"x-ratelimit-limit-{what}"))
    remaining = _number(first_header(headers, f"x-ratelimit-remaining-{what}"))
    reset = _duration(first_header(headers, f"x-ratelimit-reset-{what}"))
    if not limit or remaining is None or reset is None or remaining >= limit:
        return None
    window = reset * limit / (limit - remaining)
    return (limit, remaining) if _SHORTEST_MINUTE <= window <= _LONGEST_MINUTE else None


def _number(text: str | None) -> float | None:
    if text is None or len(text) > _LONGEST_NUMBER:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _duration(text: str | None) -> float | None:
    """Return the seconds in a duration such as ``26ms``, ``17.379s`` or ``2m59.56s``."""
    match = _DURATION().fullmatch(text[:_LONGEST_NUMBER] if text else "")
    if match is None or not any(match.groups()):
        return _number(text)
    return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)
