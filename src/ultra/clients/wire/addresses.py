"""Checking addresses of endpoints, which may hold a user and a password, or mistakes.

Passwords must not stay in an address: httpx writes addresses into its log, and would send the password
in place of the API key.
"""

from __future__ import annotations

import re
from base64 import b64encode
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from ultra.errors import BadCall

__all__ = ["checked_url", "has_version", "shown_url", "without_endings"]


def checked_url(base_url: str) -> tuple[str, dict[str, str]]:
    """Return `base_url` without its user and password, and the header that carries them.

    Raises `BadCall` for what is no address of an endpoint; the message shows no password.
    """
    parts = _split(base_url)
    if parts is None:
        raise BadCall(f"base_url must look like 'https://host/path', not {shown_url(base_url)!r}")
    if parts.query or parts.fragment:
        raise BadCall(
            "base_url must end with its path: what is asked of the endpoint is added behind it; "
            "send a key as api_key or in extra_headers"
        )
    user, _, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, "", "")).rstrip("/")
    return bare, {"authorization": f"Basic {b64encode(unquote(user).encode()).decode()}"} if user else {}


def without_endings(url: str, *endings: str) -> str:
    """Return `url` without the first of these `endings` that it has: people paste whole addresses."""
    for ending in endings:
        if url.endswith(ending):
            return url.removesuffix(ending)
    return url


def has_version(url: str) -> bool:
    """Return whether a version such as ``v1`` or ``v1beta`` stands in the path of `url`."""
    return any(re.fullmatch(r"v\d+\w*", part) for part in urlsplit(url).path.split("/"))


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half of a pair of brackets
        return None
    return parts if good else None


def shown_url(url: str) -> str:
    """Return `url` without anything that may be secret: user, password, query, and fragment."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    return f"{scheme}{separator}{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"
