"""Images and documents that go with a question of a chat."""

from __future__ import annotations

import os
from itertools import islice
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ultra.errors import BadCall
from ultra.messages.chat import FilePart, ImagePart, TextPart

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.chat import ChatMessage, Part

__all__ = ["kind_of", "paths_from", "read_attachment", "with_attachments"]

_ADDRESSES: Final = ("http://", "https://", "data:")
_MOST_COMPLETED: Final = 100


def read_attachment(source: str) -> Part:
    """Return the image or the document at a path or an address; a file is told by its content.

    Raises:
        BadCall: it is neither an image, nor a PDF, nor text; or it cannot be read, or is too large.
    """
    if source.startswith(_ADDRESSES):
        is_image = source.startswith("data:image/") or (guess_type(source)[0] or "").startswith("image/")
        return ImagePart.of(source) if is_image else FilePart.of(source)
    path = Path(source).expanduser()
    try:
        return ImagePart.of(path)
    except BadCall:
        return FilePart.of(path)  # which tells what is wrong with one that cannot be read


def kind_of(part: Part) -> str:
    """Return what a part is, in words."""
    kind = "image" if isinstance(part, ImagePart) else "document"
    data = getattr(part, "data", None)
    return kind if data is None else f"{kind}, {max(1, round(len(data) / 1000)):,} kB"


def with_attachments(message: ChatMessage) -> str:
    """Return the text of a message; what went with it is named behind it."""
    names = [
        getattr(part, "name", None) or getattr(part, "url", None) or kind_of(part)
        for part in message.parts
        if not isinstance(part, TextPart)
    ]
    return f"{message.text}\n\n({', '.join(names)})" if names else message.text


def paths_from(text: str) -> Iterator[str]:
    """Yield the paths that begin with `text`; folders end with a slash."""
    folder, _, beginning = text.rpartition("/")
    where = Path(f"{folder}/" if "/" in text else ".").expanduser()
    try:
        with os.scandir(where) as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in islice(entries, 10_000)
                if entry.name.startswith(beginning) and entry.name.isprintable()
            )
    except OSError:
        return
    for name, is_folder in found[:_MOST_COMPLETED]:
        if beginning or not name.startswith("."):
            yield f"{f'{folder}/' if '/' in text else ''}{name}{'/' if is_folder else ''}"
