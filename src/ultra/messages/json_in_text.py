"""JSON within what a model wrote: the whole text, a fenced block, or objects and lists between prose."""

from __future__ import annotations

import re
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from ultra._support.lazy import lazy_pattern
from ultra.messages.bounded_json import decode_json

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_TRIED", "json_candidates"]

MOST_TRIED: Final = 16
"""So many pieces of a text are looked at, so that the time is linear in the text."""
_MOST_SIGNS: Final = 1_000_000
"""So many quotes and brackets are looked at in all; of a text of brackets, that is less than a second."""

_FENCED: Final = lazy_pattern(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", flags=re.MULTILINE | re.DOTALL)
_SIGN: Final = lazy_pattern(r'\\.|["{}\[\]]', flags=re.DOTALL)
_CLOSES: Final = {"}": "{", "]": "["}
_WORDS: Final = frozenset({"true", "false", "null"})


def json_candidates(text: str) -> Iterator[str]:
    """Give the pieces of `text` that may be the JSON which was asked for, the most likely ones first.

    These are the whole text, what stands in fences of Markdown, and objects and lists between prose; of
    several, the last one first, since models correct themselves. It takes a time that is linear in the text.
    The pieces need not be JSON: the caller has to try. ::

        list(json_candidates('Sure: {"a": 1}. Bye!')) == ['{"a": 1}']
    """
    whole = text.strip().removeprefix("\ufeff")
    if _may_be_json(whole):
        yield whole
    fenced: deque[str] = deque(maxlen=MOST_TRIED)
    if "```" in text:
        fenced.extend(filter(_may_be_json, (match[1].strip() for match in _FENCED().finditer(text))))
    seen = {whole}
    for piece in reversed(fenced):
        if piece not in seen:
            seen.add(piece)
            yield piece
    for piece in reversed(_between_prose(text)):
        if piece not in seen:
            yield piece


def _may_be_json(piece: str) -> bool:
    return bool(piece) and (piece[0] in '{["-0123456789' or piece in _WORDS)


def _is_json(piece: str) -> bool:
    try:
        decode_json(piece)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def _between_prose(text: str) -> deque[str]:
    """Return the last of the outermost objects and lists of the text, in their order."""
    found: deque[str] = deque(maxlen=MOST_TRIED)
    reader = _Reader(text)
    at: int | None = 0
    for _ in range(MOST_TRIED):
        if at is None:
            break
        at = reader.read(at, found)
    return found


class _Reader:
    """Reads the objects and lists between prose; it looks at so many signs in all, and no more."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = _MOST_SIGNS

    def read(self, start: int, found: deque[str]) -> int | None:
        """Add the JSON from `start` on; return where to begin again: behind a bracket that begins none."""
        open_: list[str] = []
        begin, in_string = 0, False
        for match in islice(_SIGN().finditer(self._text, start), self._left):
            self._left -= 1
            sign = match[0]
            if not open_:
                if sign in "{[":
                    open_.append(sign)
                    begin, in_string = match.start(), False
            elif sign == '"':
                in_string = not in_string
            elif in_string or len(sign) > 1:
                continue
            elif sign in "{[":
                open_.append(sign)
            elif open_[-1] != _CLOSES[sign]:
                return begin + 1  # a bracket of the prose, or half of an object
            else:
                open_.pop()
                if not open_:
                    piece = self._text[begin : match.end()]
                    if not _is_json(piece):
                        return begin + 1  # there may be a whole one inside
                    found.append(piece)
        return begin + 1 if open_ and self._left else None
