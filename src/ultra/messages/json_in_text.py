"""JSON within what a model wrote: the whole text, a fenced block, or objects and lists between prose."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from ultra._support.lazy import lazy_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MOST_TRIED", "json_candidates"]

MOST_TRIED: Final = 16
"""So many pieces of a text are looked at, so that the time is linear in the text."""

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
    fenced = [match[1].strip() for match in _FENCED().finditer(text)] if "```" in text else []
    seen = {whole}
    for piece in [piece for piece in reversed(fenced) if _may_be_json(piece)][:MOST_TRIED]:
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
        msgspec.json.decode(piece)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return False
    return True


def _between_prose(text: str) -> list[str]:
    """Return the outermost objects and lists of the text, in their order."""
    found: list[str] = []
    at = 0
    for _ in range(MOST_TRIED):
        spans, begin = _balanced(text, at)
        for start, end in spans:
            piece = text[start:end]
            if not _is_json(piece):
                begin = start
                break
            found.append(piece)
        if begin is None:
            break
        at = begin + 1  # a bracket of the prose, or half of an object: there may be a whole one inside
    return found[-MOST_TRIED:]


def _balanced(text: str, start: int) -> tuple[list[tuple[int, int]], int | None]:
    """Return where balanced objects and lists stand, and where one begins that is never closed."""
    spans: list[tuple[int, int]] = []
    open_: list[str] = []
    begin, in_string = 0, False
    for match in _SIGN().finditer(text, start):
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
            return spans, begin
        else:
            open_.pop()
            if not open_:
                spans.append((begin, match.end()))
    return spans, begin if open_ else None
