"""Taking secrets out of texts that other people wrote: providers, proxies, libraries."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

__all__ = ["redact_keys", "redact_secrets"]

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
