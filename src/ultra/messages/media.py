"""What images and documents are: told by their content, from bytes, files, data URLs and addresses."""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from stat import S_ISREG
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from ultra._support.lazy import lazy_pattern
from ultra.errors import BadCall

__all__ = [
    "LARGEST_FILE",
    "LARGEST_IMAGE",
    "Source",
    "document_type",
    "file_source",
    "image_source",
    "image_type",
    "read_data_url",
]

LARGEST_IMAGE: Final = 20 * 1024 * 1024
"""Bytes of one image."""

LARGEST_FILE: Final = 32 * 1024 * 1024
"""Bytes of one document."""

_LONGEST_SHOWN: Final = 60  # characters of what was given, in an error
_DATA_URL: Final = lazy_pattern(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)
_OTHER_SCHEME: Final = lazy_pattern(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of two letters at least: C:// is a path

_IMAGES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


class Source(NamedTuple):
    """Where an image or a document is: here as bytes, or at an address."""

    data: bytes | None
    url: str | None
    media_type: str | None
    name: str | None = None


def image_type(data: bytes) -> str | None:
    """Return the media type of an image by its first bytes; None: it is none of PNG, JPEG, GIF, WebP."""
    for start, media_type in _IMAGES:
        if data.startswith(start):
            return media_type
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def document_type(data: bytes) -> str | None:
    """Return the media type of a document by its content: PDF, or text in UTF-8; None: neither."""
    if b"%PDF-" in data[:1024]:
        return "application/pdf"
    if b"\0" in data[:1024]:
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "text/plain"


def image_source(source: object) -> Source:
    """Return what an image is made of; see `ImagePart.of`. Raises `BadCall`."""
    found = _found(source, "image", LARGEST_IMAGE)
    if found.data is None:
        return found
    media_type = image_type(found.data)
    if media_type is None:
        raise BadCall(f"{_called(found, 'image')} is of no known type; give a PNG, JPEG, GIF or WebP image")
    return found._replace(media_type=media_type)


def file_source(source: object) -> Source:
    """Return what a document is made of; see `FilePart.of`. Raises `BadCall`."""
    found = _found(source, "file", LARGEST_FILE)
    if found.data is None:
        return found
    media_type = document_type(found.data)
    if media_type is None:
        raise BadCall(f"{_called(found, 'file')} is of no known type; give a PDF, or text in UTF-8")
    return found._replace(media_type=media_type)


def read_data_url(url: str, largest: int) -> bytes:
    """Return the bytes in a data URL (RFC 2397), of at most `largest` bytes. Raises `BadCall`."""
    match = _DATA_URL().match(url)
    if match is None:
        raise BadCall(f"{url[:_LONGEST_SHOWN]!r} is no data URL; it must be data:TYPE;base64,DATA")
    body = url[match.end() :]
    is_base64 = match[2].lower().endswith(";base64")
    if (len(body) * 3 // 4 if is_base64 else len(body)) > largest + 3:
        raise _too_large("data in the URL", largest)
    try:
        data = base64.b64decode("".join(body.split()), validate=True) if is_base64 else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise BadCall(f"the data URL is not in base64: {error}") from None
    return _checked(data, "data in the URL", largest)


def _called(found: Source, kind: str) -> str:
    return f"the {kind} {found.name!r}" if found.name else f"the {kind}"


def _found(source: object, kind: str, largest: int) -> Source:
    if isinstance(source, bytes | bytearray | memoryview):
        return Source(_checked(bytes(source), kind, largest), None, None)
    if isinstance(source, str):
        scheme = source[:5].lower()
        if scheme == "data:":
            return Source(read_data_url(source, largest), None, None)
        if source[:8].lower().startswith(("http://", "https://")):
            return Source(None, _checked_url(source, kind), None)
        if _OTHER_SCHEME().match(source):
            raise _wrong_address(source, kind)
        return _read(Path(source), kind, largest)
    if isinstance(source, Path):
        return _read(source, kind, largest)
    raise BadCall(
        f"the {kind} is of type {type(source).__name__}; give bytes, a path, a data URL or an address"
    )


def _read(path: Path, kind: str, largest: int) -> Source:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadCall(f"the {kind} {str(path)[:_LONGEST_SHOWN]!r} is a device or a pipe, and no file")
            data = file.read(largest + 1)
    except (OSError, ValueError) as error:
        raise BadCall(f"the {kind} {str(path)[:_LONGEST_SHOWN]!r} cannot be read: {error}") from None
    return Source(_checked(data, f"{kind} {path.name!r}", largest), None, None, path.name)


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to is not waited for."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _checked(data: bytes, what: str, largest: int) -> bytes:
    if not data:
        raise BadCall(f"the {what} is empty")
    if len(data) > largest:
        raise _too_large(what, largest)
    return data


def _checked_url(url: str, kind: str) -> str:
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or not url.isprintable() or " " in url:
        raise _wrong_address(url, kind)
    return url


def _wrong_address(url: str, kind: str) -> BadCall:
    shown = url[:_LONGEST_SHOWN]
    return BadCall(
        f"the address {shown!r} of the {kind} is not one of http or https; give such an address, a path "
        "without a scheme, or bytes"
    )


def _too_large(what: str, largest: int) -> BadCall:
    return BadCall(f"the {what} has more than {largest // 2**20} MiB; make it smaller")
