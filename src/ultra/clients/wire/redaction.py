"""Taking secrets out of texts that other people wrote: providers, proxies, libraries."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["clipped", "redact_keys", "redact_secrets"]

_CLIPPED: Final = "…"
_MARGIN: Final = 8_192

_SECRETS: Final = r"""
    (?P<name> [?&] (?: key | (?:access_|api[_-]?)? (?:key|token) ) =  # in a URL's query
            | \b Bearer \s+
            | \b (?: x-)? (?: goog-)? api[-_]key ['"]? \s* [:=] \s* ['"]?  # in a dumped header or dict
    )
    (?P<value> [^\s&'",}\]]+ )
    | \b (?: sk | xai | gsk ) - [\w-]{12,}  # a key by its own shape
    | \b AIza [\w-]{20,}
"""


def redact_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` with three stars in the place of each of these known secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def clipped(text: str, limit: int, redact: Callable[[str], str]) -> str:
    """Return at most `limit` characters of `redact(text)`, in a time that does not grow with `text`.

    A text that goes on is cut before it is redacted, a good way behind `limit`. What is near that cut is not
    shown, for it may be the first half of a secret.
    """
    window = text[: limit + 2 * _MARGIN]
    shown = redact(window)
    if len(window) < len(text):
        shown = shown[:-_MARGIN]
    elif len(shown) <= limit:
        return shown
    return shown[:limit] + _CLIPPED


def redact_keys(text: str) -> str:
    """Return `text` with ``[redacted]`` in the place of whatever looks like an API key or a bearer token.

    A second line of defence for messages of foreign clients: the errors of an HTTP library name the URL,
    and some providers take their key in its query. Ultra's own clients put no key there at all.
    """
    return _pattern().sub(lambda match: f"{match['name'] or ''}[redacted]", text)


@cache
def _pattern() -> re.Pattern[str]:
    # Compiled at the first error: it takes long, and most programs see none.
    return re.compile(_SECRETS, re.VERBOSE | re.IGNORECASE)
