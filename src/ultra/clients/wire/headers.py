"""What the headers of a response say about trying again, and which request it was.

They may come from Ultra's own clients, or from the error of any other library.
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_NUMBER: Final = 64  # characters, and of a date: what is longer is neither

__all__ = ["REQUEST_ID_HEADERS", "first_header", "forbids_retry", "retry_after", "retry_info"]

REQUEST_ID_HEADERS: Final = (
    "x-request-id",
    "request-id",
    "mistral-correlation-id",
    "apim-request-id",
    "x-ds-trace-id",  # DeepSeek
    "x-amzn-requestid",
    "cf-ray",  # a gateway's own, where nobody behind it names one
)


def first_header(headers: Mapping[str, str], *names: str) -> str | None:
    """Return the value of the first of `names` that is there and not empty; case does not matter."""
    folded = {str(key).lower(): str(value).strip() for key, value in headers.items()}
    return next((folded[name] for name in names if folded.get(name)), None)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds the server asks to wait; None where it names no time in the future.

    ``retry-after-ms`` comes before ``retry-after``, being finer. The latter holds seconds or an HTTP
    date (RFC 9110, section 10.2.3); a date is taken relative to the server's own ``Date``, so that a
    clock that is wrong here does not matter. Zero counts as no advice: a server that sends it beside
    a 429 wants the client's own backoff, not a call in a tight loop.
    """
    finer = _positive(first_header(headers, "retry-after-ms"))
    if finer is not None:
        return finer / 1000
    advice = first_header(headers, "retry-after")
    seconds = _positive(advice)
    if seconds is not None or advice is None:
        return seconds
    return _until(advice, first_header(headers, "date"))


def retry_info(error: Mapping[str, Any]) -> float | None:
    """Return how many seconds Google asks to wait: in the details of an error, as ``"retryDelay": "48s"``."""
    entries = error.get("details")
    for entry in entries if isinstance(entries, list) else ():
        delay = entry.get("retryDelay") if isinstance(entry, dict) else None
        if isinstance(delay, str) and delay:
            return _positive(delay.removesuffix("s"))
    return None


def forbids_retry(headers: Mapping[str, str]) -> bool:
    """Return whether ``x-should-retry``, which some providers send beside an error, says no."""
    return (first_header(headers, "x-should-retry") or "").lower() == "false"


def _positive(text: str | None) -> float | None:
    if text is None or len(text) > _LONGEST_NUMBER:
        return None
    with suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and number > 0:
            return number
    return None


def _until(moment: str, server_date: str | None) -> float | None:
    then = _date(moment)
    now = _date(server_date) or datetime.now(UTC)
    if then is None or then <= now:
        return None
    return (then - now).total_seconds()


def _date(text: str | None) -> datetime | None:
    if text is None or len(text) > _LONGEST_NUMBER:
        return None
    # OSError: the process can open no further file, so it goes without the advice.
    with suppress(ValueError, TypeError, OverflowError, OSError):
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - ten modules; few answers hold a date

        parsed = parsedate_to_datetime(text)
        # HTTP dates are GMT; "-0000", which the parser leaves naive, says no more than that.
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return None
