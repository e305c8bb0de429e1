"""Checks of arguments that many rooms take: whole numbers, numbers, times, flags, choices.

Each raises `BadCall`, which says what was given and what is allowed::

    check_seconds("timeout idle", -1, positive=True)
    # BadCall: timeout idle is -1; it must be a number of seconds above 0
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeVar, get_args

import msgspec

from ultra.errors import BadCall

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "as_json",
    "check_choice",
    "check_count",
    "check_flag",
    "check_name",
    "check_number",
    "check_seconds",
    "check_text",
    "check_writable",
    "did_you_mean",
    "nearest",
    "shown",
]

T = TypeVar("T")

_LONGEST_NAME: Final = 64  # of which the likeness is looked at
_LONGEST_SHOWN: Final = 200
_LARGEST: Final = 2**64 - 1
"""As far as whole numbers can be encoded, in messages to other processes."""


def check_count(name: str, value: object, *, least: int = 1, optional: bool = False) -> None:
    """Raise `BadCall` unless `value` is a whole number of at least `least`, or None where `optional`."""
    if value is None and optional:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
        raise _refusal(name, value, f"a whole number, {least} or more", optional=optional)


def check_number(
    name: str,
    value: object,
    *,
    least: float = 0.0,
    most: float = inf,
    positive: bool = False,
    endless: bool = False,
    optional: bool = False,
    unit: str = "",
) -> None:
    """Raise `BadCall` unless `value` is a number from `least` to `most`, or None where `optional`.

    `positive`: above 0, in place of `least`. `endless`: it may be infinite, too. `unit` is what it counts.
    """
    if value is None and optional:
        return
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        is_enough = value > 0 if positive else value >= least
        fits = abs(value) <= _LARGEST if isinstance(value, int) else endless or value < inf
        if is_enough and value <= most and fits:
            return
    allowed = f"a number of {unit}" if unit else "a number"
    if positive:
        allowed += " above 0" if most == inf else f" above 0, up to {most:g}"
    else:
        allowed += f", {least:g} or more" if most == inf else f" from {least:g} to {most:g}"
    if isinstance(value, float) and value == inf:
        allowed += ", and finite"
    raise _refusal(name, value, allowed, optional=optional)


def check_seconds(
    name: str, value: object, *, positive: bool = False, endless: bool = False, optional: bool = False
) -> None:
    """Raise `BadCall` unless `value` is a number of seconds, or None where `optional`; see `check_number`."""
    check_number(name, value, positive=positive, endless=endless, optional=optional, unit="seconds")


def check_flag(name: str, value: object) -> None:
    """Raise `BadCall` unless `value` is True or False; "no" would count as True."""
    if not isinstance(value, bool):
        raise BadCall(f"{name} is {shown(value)}; it must be True or False")


def check_choice(name: str, value: T, choices: object) -> T:
    """Return `value` if it is one of the `Literal` `choices`; raise `BadCall` otherwise."""
    if value not in get_args(choices):
        raise BadCall(f"{name} is {shown(value)}; it must be one of {', '.join(get_args(choices))}")
    return value


def _refusal(name: str, value: object, allowed: str, *, optional: bool) -> BadCall:
    return BadCall(f"{name} is {shown(value)}; it must be {allowed}" + ", or None" * optional)


def check_text(name: str, value: object, *, optional: bool = False) -> None:
    """Raise `BadCall` unless `value` is a text that can be written, or None where `optional`."""
    if not (isinstance(value, str) or (value is None and optional)):
        raise _refusal(name, value, "a text", optional=optional)
    check_writable(name, value)


def check_writable(name: str, value: object) -> None:
    """Raise `BadCall` for a text with a lone surrogate, as in a character that was cut in two."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            text = f"{name} has a lone surrogate at {error.start}, which cannot be written as UTF-8"
            raise BadCall(text) from None


def as_json(name: str, value: object) -> bytes:
    """Return `value` as JSON; raise `BadCall` unless it has plain values alone, without a lone surrogate."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        text = f"{name} has a lone surrogate in {shown(error.object)}, which cannot be written as UTF-8"
        raise BadCall(text) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadCall(f"{name} cannot be written as JSON: {error}") from None


def check_name(what: str, value: object) -> str:
    """Return `value` if it is a text that is not empty, and can be written; raise `BadCall` otherwise."""
    if not isinstance(value, str) or not value.strip():
        raise BadCall(f"{what} is {shown(value)}; it must be text that is not empty")
    check_writable(what, value)
    return value


def shown(value: object) -> str:
    """Return the beginning of ``repr(value)``, or the type where the value's own code fails at that."""
    try:
        text = repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - it is anybody's code; Python itself refuses to write huge numbers
        return f"an object of type {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def nearest(name: str, choices: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return which of `choices` was probably meant by a wrong `name`; None if none is like it."""
    from difflib import get_close_matches  # noqa: PLC0415 - only errors need it

    found = get_close_matches(name[:_LONGEST_NAME], list(choices), n=1, cutoff=cutoff)
    return found[0] if found else None


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return the end of a sentence that asks for the nearest choice; empty if none is near."""
    meant = nearest(name, choices)
    return "" if meant is None else f"; did you mean {meant!r}?"
