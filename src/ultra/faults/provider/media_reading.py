"""Read the images and documents of a request as providers do: by content, and refused if they are none."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from ultra.faults.provider.neutral import Failure, Media
from ultra.faults.provider.protocol import Refused
from ultra.messages.media import image_type

if TYPE_CHECKING:
    from ultra.faults.provider.neutral import MediaKind

__all__ = ["bad_request", "from_base64", "from_url"]


def bad_request(message: str) -> Refused:
    """Make the refusal of a request that breaks a rule."""
    return Refused(Failure("bad_request", message=message))


def from_base64(kind: MediaKind, data: str, media_type: str | None, where: str) -> Media:
    """Return what `data` is. Raises `Refused` if it is no base64, or no image of a known type."""
    try:
        content = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"{where}: illegal base64 data") from None
    found = image_type(content) if kind == "image" else media_type
    if found is None:
        raise bad_request(f"{where}: the data is no image of a supported type: png, jpeg, gif, webp")
    if media_type not in {None, found}:
        raise bad_request(
            f"{where}: the image was specified using the {media_type} media type, but is {found}"
        )
    return Media(kind, found, len(content))


def from_url(kind: MediaKind, url: Any, where: str) -> Media:  # noqa: ANN401 - what was sent
    """Return what stands at `url`, or in it (RFC 2397). Raises `Refused` if it is no address."""
    if isinstance(url, str) and url.startswith("data:"):
        head, comma, data = url[5:].partition(",")
        media_type, _, coding = head.partition(";")
        if not comma or coding != "base64":
            raise bad_request(f"{where}: the data URL is not in base64")
        return from_base64(kind, data, media_type or None, where)
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise bad_request(
            f"{where}: expected a base64-encoded data URL or an address, but got {str(url)[:40]!r}"
        )
    return Media(kind, None, 0, url)
