"""Texts and errors as logs may show them: nothing from outside ends a line, or steers a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from ultra._support.control_characters import CONTROLS, DIRECTIONS, LINE_ENDS, SURROGATES
from ultra.errors import text_of

__all__ = ["shown_error", "shown_text", "shown_value"]


@cache
def _escapes() -> dict[int, str]:
    return {
        **{code: f"\\x{code:02x}" for code in CONTROLS if chr(code) not in "\t\n\r"},
        **{code: f"\\u{code:04x}" for code in (*DIRECTIONS, *LINE_ENDS, *SURROGATES)},
        0x0A: "\\n",
        0x0D: "\\r",
    }


def shown_text(text: str) -> str:
    """Return `text` on one line, with an escape for each control character but tab."""
    return text if text.isascii() and text.isprintable() else text.translate(_escapes())


def shown_value(value: object) -> object:
    """Return the value of a field, with each text in it as `shown_text` gives it."""
    if isinstance(value, str):
        return shown_text(value)
    if isinstance(value, tuple | list) and type(value) in {tuple, list}:
        return [shown_value(item) for item in value]
    if isinstance(value, Mapping):
        return {shown_value(key): shown_value(item) for key, item in value.items()}
    return value


def shown_error(error: BaseException) -> BaseException:
    """Return `error`, or what stands for it in a traceback if a text in it is not harmless.

    That has the same class name, traceback and causes, and it is an instance of the same class where that
    can be had. Its text has escapes, and is indented after its first line, so that no line of it can be
    taken for a line of the log.
    """
    chain = _chain(error)
    if all(_indented(text) == text for each in chain for text in (text_of(each), *_notes(each))):
        return error
    made: dict[int, BaseException] = {}
    for each in reversed(chain):  # members of groups before their groups
        made[id(each)] = _stand_in(each, made)
    for each in chain:
        copy = made[id(each)]
        copy.__traceback__ = each.__traceback__
        copy.__cause__ = None if each.__cause__ is None else made[id(each.__cause__)]
        copy.__context__ = None if each.__context__ is None else made[id(each.__context__)]
        copy.__suppress_context__ = each.__suppress_context__
    return made[id(error)]


def _chain(error: BaseException) -> list[BaseException]:
    """Return the error and all that led to it, each once, the members of a group after the group."""
    found: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in found:
            continue
        found[id(each)] = each
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions
    return list(found.values())


def _stand_in(error: BaseException, made: Mapping[int, BaseException]) -> BaseException:
    kind = type(error)
    text = _indented(text_of(error))
    names = {"__str__": lambda _: text, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    args = error.args
    if isinstance(error, BaseExceptionGroup):
        args = (text, [made.get(id(member), member) for member in error.exceptions])
    # Of a SyntaxError, tracebacks show more than its text.
    for base in (Exception,) if isinstance(error, SyntaxError) else (kind, Exception):
        try:
            made_class = type(kind.__name__, (base,), names)
            copy: BaseException = made_class.__new__(made_class, *args)
            for note in _notes(error):
                copy.add_note(_indented(note))
        except Exception:  # noqa: BLE001, S112 - the class is anybody's, and may refuse subclasses
            continue
        return copy
    return Exception(text)


def _notes(error: BaseException) -> list[str]:
    notes: object = getattr(error, "__notes__", None)
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def _indented(text: str) -> str:
    first, *more = text.split("\n")
    return "\n".join([shown_text(first), *(f"    {shown_text(line.lstrip(' '))}" for line in more)])
