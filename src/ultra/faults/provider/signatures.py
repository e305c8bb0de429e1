"""Signatures that prove reasoning, and reasoning that is encrypted: neither is secret, both are checked."""

from __future__ import annotations

import base64
from hashlib import sha256
from typing import Final

__all__ = ["encrypted", "is_encrypted", "is_signature_of", "signature_of"]

_STANDARD: Final = str.maketrans("-_", "+/")

_ENCRYPTED: Final = "ultra-encrypted-"


def signature_of(text: str) -> str:
    """Return the signature of `text`, in base64."""
    return base64.b64encode(sha256(text.encode("utf-8", "replace")).digest()).decode()


def is_signature_of(signature: str, text: str) -> bool:
    """Return whether `signature` is that of `text`, in either alphabet of base64 (RFC 4648)."""
    return signature.translate(_STANDARD) == signature_of(text)


def encrypted(text: str) -> str:
    """Return `text` as it is given to clients that must not read it."""
    return _ENCRYPTED + base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()


def is_encrypted(content: str) -> bool:
    """Return whether `encrypted` has made `content`."""
    return content.startswith(_ENCRYPTED)
