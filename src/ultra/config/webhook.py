"""Who is told of the ends of runs in the background, the section `[serve.webhook]`."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from ultra._support.checks import check_flag
from ultra._support.secrecy import HiddenText
from ultra.errors import BadCall

__all__ = ["WebhookConfig", "is_address"]

_PREFIX: Final = "whsec_"
_SHORTEST: Final = 24
_LONGEST: Final = 64
"""Bytes of a secret, by Standard Webhooks."""

_LONGEST_URL: Final = 2048


class WebhookConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The webhook of the service.

    Attributes:
        secret: by which notices are signed: ``whsec_`` and 24 to 64 bytes in base64.
        url: to where they are sent; None: to what a request names.
        per_request: whether a request may name an address of its own.
        allow_private: whether addresses in the network of this machine, and itself, may be told.

    Raises:
        BadCall: a value is not allowed. The message does not have the secret.
    """

    secret: str
    url: str | None = None
    per_request: bool = False
    allow_private: bool = False

    def __post_init__(self) -> None:
        if not _is_secret(self.secret):
            raise BadCall(
                f"secret must be {_PREFIX!r} and {_SHORTEST} to {_LONGEST} random bytes in base64; make one: "
                'python -c "import base64, secrets; '
                "print('whsec_' + base64.b64encode(secrets.token_bytes(32)).decode())\""
            )
        if self.url is not None and not is_address(self.url):
            raise BadCall("url is no address; give one such as https://example.org/hooks/ultra")
        for name in ("per_request", "allow_private"):
            check_flag(name, getattr(self, name))
        if self.url is None and not self.per_request:
            raise BadCall("url is not there; name one, or let requests name theirs: per_request = true")

    def __repr__(self) -> str:
        return f"WebhookConfig(url={self._shown!r}, per_request={self.per_request!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: an address may hold a password, too."""
        flags = [(name, getattr(self, name)) for name in ("per_request", "allow_private")]
        return [("url", self._shown), *flags, ("secret", HiddenText(self.secret))]

    @property
    def _shown(self) -> str | None:
        return None if self.url is None else urlsplit(self.url).hostname


def is_address(text: str) -> bool:
    """Return whether a text is an address of http or https, with a host, that is not too long."""
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and len(text) <= _LONGEST_URL
    except ValueError:
        return False


def _is_secret(text: str) -> bool:
    if not text.startswith(_PREFIX):
        return False
    try:
        size = len(base64.b64decode(text.removeprefix(_PREFIX), validate=True))
    except (binascii.Error, ValueError):
        return False
    return _SHORTEST <= size <= _LONGEST
