"""Reprs that show no secret, and tracebacks that show none with the variables of each frame."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ultra.errors import UltraError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HiddenText", "hiding_frames"]

P = ParamSpec("P")
R = TypeVar("R")


class HiddenText(str):
    """Text that may hold a password, such as a URL; its repr shows none of it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def hiding_frames(function: Callable[P, R]) -> Callable[P, R]:
    """Let no error of Ultra's that leaves `function` have a frame in which its arguments can be seen.

    For functions that take a key. Tools such as rich, structlog and Sentry show the variables of each frame.
    The errors say in their message what is wrong. ::

        @hiding_frames
        def connect(name, *, api_key=None): ...
    """

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UltraError as error:
            failure: BaseException = error
        del args, kwargs
        _forget_frames(failure)
        try:
            raise failure
        finally:
            del failure  # its traceback refers to this frame

    return wrapper


def _forget_frames(error: BaseException) -> None:
    """Take the tracebacks from an error, and from all that led to it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        found.__traceback__ = None
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions
