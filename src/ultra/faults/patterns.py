"""The patterns of a rule: which actors, models, URLs and messages it is about."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MessageMatch",
    "MessagePattern",
    "covers_message",
    "message_matcher",
    "model_matcher",
    "path_matcher",
    "stage_matcher",
    "url_matcher",
]

MessagePattern: TypeAlias = type | str | tuple[type | str, ...]
"""A class of messages, the name of one (``"Gen*"`` matches `Generate`), or several of either."""

MessageMatch: TypeAlias = "Callable[[object], bool]"


def path_matcher(pattern: object) -> Callable[[str], bool]:
    """Return a function that matches actor paths: ``*`` and ``?`` in a name, ``**`` for any number of names.

    Raises:
        BadCall: no actor can have such a path.
    """
    if not isinstance(pattern, str) or not pattern.startswith("/"):
        raise BadCall(
            f"the path pattern {pattern!r} matches no actor: paths begin with '/', as '/models/*/actor'"
        )
    names = pattern[1:].split("/")
    if "" in names:
        raise BadCall(f"the path pattern {pattern!r} matches no actor: a name between its slashes is empty")
    for name in names:
        _check_brackets(name, pattern)
        if "**" in name and name != "**":
            raise BadCall(
                f"the path pattern {pattern!r} is unknown: '**' stands for whole names, as in '/a/**/b'"
            )
    return lambda path: _names_match(names, path[1:].split("/"))


def _names_match(patterns: list[str], names: list[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_names_match(patterns[1:], names[skipped:]) for skipped in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], patterns[0]) and _names_match(patterns[1:], names[1:])


def _check_brackets(part: str, pattern: str) -> None:
    if re.search(r"[\[\]]", re.sub(r"\[!?[^\[\]]+\]", "", part)):
        raise BadCall(f"the pattern {pattern!r} is unknown: a bracket is empty or not closed")


def model_matcher(pattern: object) -> Callable[[str], bool]:
    """Return a function that matches the names of registered models, with ``*`` and ``?``."""
    return _text_matcher("model", pattern)


def stage_matcher(pattern: object) -> Callable[[str], bool]:
    """Return a function that matches the names of stages, with ``*`` and ``?``."""
    return _text_matcher("stage", pattern)


def url_matcher(pattern: object) -> Callable[[str], bool]:
    """Return a function that matches whole URLs; ``*`` matches slashes, too.

    Raises:
        BadCall: no URL of HTTP can match.
    """
    matches = _text_matcher("URL", pattern)
    fixed = re.split(r"[*?\[]", str(pattern))[0]
    if not any(fixed.startswith(scheme) or scheme.startswith(fixed) for scheme in ("http://", "https://")):
        raise BadCall(f"the URL pattern {pattern!r} matches no URL: those begin with 'http://' or 'https://'")
    return matches


def _text_matcher(what: str, pattern: object) -> Callable[[str], bool]:
    if not isinstance(pattern, str) or not pattern:
        raise BadCall(f"the {what} pattern {pattern!r} matches nothing: give text, with '*' for any letters")
    _check_brackets(pattern, pattern)
    return partial(_text_matches, pattern)


def _text_matches(pattern: str, text: str) -> bool:
    return fnmatchcase(text, pattern)


# --- messages ------------------------------------------------------------------------------------


def message_matcher(pattern: MessagePattern | None, stage: str | None) -> MessageMatch | None:
    """Return a function that matches messages by class and by `stage`, or None if it would match all.

    Raises:
        BadCall: no message can match.
    """
    tests: list[MessageMatch] = []
    if pattern is not None:
        tests.append(_class_matcher(pattern))
    if stage is not None:
        matches = stage_matcher(stage)
        for cls in _classes(pattern):
            if not hasattr(cls, "stage") and "stage" not in getattr(cls, "__struct_fields__", ("stage",)):
                raise BadCall(f"stage={stage!r} matches no {cls.__name__}: such messages have no stage")
        tests.append(partial(_stage_matches, matches))
    if not tests:
        return None
    return lambda message: all(test(message) for test in tests)


def _stage_matches(matches: Callable[[str], bool], message: object) -> bool:
    stage = getattr(message, "stage", None)
    return isinstance(stage, str) and matches(stage)


def _classes(pattern: MessagePattern | None) -> list[type]:
    given = pattern if isinstance(pattern, tuple) else (pattern,)
    return [item for item in given if isinstance(item, type)]


def _class_matcher(pattern: MessagePattern) -> MessageMatch:
    given = pattern if isinstance(pattern, tuple) else (pattern,)
    if not given or not all(item and isinstance(item, (type, str)) for item in given):
        raise BadCall(
            f"message={pattern!r} matches nothing: give a class of messages, its name, or a tuple of them"
        )
    classes = tuple(_classes(pattern))
    names = [_text_matcher("message", item) for item in given if isinstance(item, str)]
    known: dict[type, bool] = {}

    def matches(message: object) -> bool:
        cls = type(message)
        if cls not in known:
            known[cls] = issubclass(cls, classes) or any(
                name(base.__name__) for name in names for base in cls.__mro__[:-1]
            )
        return known[cls]

    return matches


def covers_message(wide: MessagePattern | None, narrow: MessagePattern | None) -> bool:
    """Return whether every message that matches `narrow` surely matches `wide`."""
    if wide is None or wide == narrow:
        return True
    classes = tuple(_classes(wide))
    return isinstance(narrow, type) and bool(classes) and issubclass(narrow, classes)
