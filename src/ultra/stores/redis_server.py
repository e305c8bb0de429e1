"""Addresses of Redis servers, and the errors of using one. It needs no package."""

from __future__ import annotations

from urllib.parse import urlsplit

from ultra.errors import BadCall

__all__ = ["check_url", "first_error", "without_password"]


def check_url(url: str) -> None:
    """Raise `BadCall` if this is no URL of a Redis server."""
    if not _is_allowed(url):
        form = "redis://[user:password@]host[:port][/database]"
        # The URL may hold a password, so it is not repeated.
        raise BadCall(f"the URL of the Redis server is not allowed; give {form}, or rediss:// for TLS")


def _is_allowed(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    database = parts.path.strip("/")
    return (
        parts.scheme in {"redis", "rediss"}
        and bool(parts.hostname)
        and port != 0
        and (not database or database.isdecimal())
    )


def without_password(url: str) -> str:
    """Return the address of a server as it may be shown."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path}"


def first_error(error: BaseException) -> BaseException:
    """Return the first error that is in the groups of this one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
