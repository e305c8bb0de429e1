"""Takes secrets out of text that other people's code wrote into its errors."""

from __future__ import annotations

import re
from functools import cache
from typing import Final

__all__ = ["redact"]

_SECRETS: Final = r"""
    (?P<name> [?&] (?: key | (?:access_|api[_-]?)? (?:key|token) ) =  # in a URL's query
            | \b Bearer \s+
            | \b (?: x-)? (?: goog-)? api[-_]key ['"]? \s* [:=] \s* ['"]?  # in a dumped header or dict
    )
    (?P<value> [^\s&'",}\]]+ )
    | \b (?: sk | xai | gsk ) - [\w-]{12,}  # a key by its own shape
    | \b AIza [\w-]{20,}
"""


def redact(text: str) -> str:
    """`text` with API keys and bearer tokens replaced by ``[redacted]``.

    A second line of defence for messages of foreign clients (an HTTP library's error names the URL,
    and some providers take their key in the query); Ultra's own clients put no key there at all.
    """
    return _pattern().sub(lambda match: f"{match['name'] or ''}[redacted]", text)


@cache
def _pattern() -> re.Pattern[str]:
    # Compiled at the first error: it takes long, and most programs see none.
    return re.compile(_SECRETS, re.VERBOSE | re.IGNORECASE)
