"""How errors are copied, pickled, and told as text.

An error of Ultra's has attributes and a cause, which a copy must have, too. Exceptions of other code may fail
at all of that: their own methods are anybody's code.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any, Self, TypeVar

__all__ = ["CopyableError", "text_of", "title_of", "writable"]

E = TypeVar("E", bound="CopyableError")


def text_of(error: BaseException) -> str:
    """Return ``str(error)``, or a sentence in its place where the exception's own code fails at that.

    A lone surrogate in it, as in words of a provider that were cut in two, becomes a question mark: what is
    told of an error is written into events and journals.
    """
    try:
        return writable(str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - `__str__` is anybody's code
        return f"<its text cannot be told: __str__ raised {type(failure).__name__}>"


def writable(text: str) -> str:
    """Return `text` with a question mark for each lone surrogate, which no encoding has."""
    return text.encode("utf-8", "replace").decode("utf-8")


def title_of(error: BaseException) -> str:
    """Return the class and the text of `error`, as the last line of a traceback does; never raises."""
    return f"{type(error).__name__}: {text_of(error)}"


class CopyableError(Exception):
    """Base of exceptions that can be copied and pickled, with their attributes and their `__cause__`.

    Pickling replaces an attribute, or a cause, that cannot be pickled itself by its text.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild the error without calling `__init__`, whose parameters differ from `args`."""
        attributes = {name: _picklable(value) for name, value in vars(self).items()}
        cause = None if self.__cause__ is None else _picklable_error(self.__cause__)
        state = (attributes, cause, self.__suppress_context__)
        return _made, (type(self), tuple(map(_picklable, self.args))), state

    def __setstate__(self, state: Any) -> None:  # noqa: ANN401 - the base class has another form of it
        """Take what `__reduce__` gave; causes may lead back to this error, so it is made first."""
        attributes, self.__cause__, suppress_context = state
        vars(self).update(attributes)
        self.__suppress_context__ = suppress_context

    def __copy__(self) -> Self:
        """Return a copy with the same attributes and the same cause."""
        copied = _made(type(self), self.args)
        copied.__setstate__((vars(self), self.__cause__, self.__suppress_context__))
        return copied

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return a copy whose attributes are copies too, where they can be copied."""
        memo[id(self)] = copied = _made(type(self), self.args)
        attributes = {name: _deep_copy(value, memo) for name, value in vars(self).items()}
        cause = None if self.__cause__ is None else _deep_copy(self.__cause__, memo)
        copied.__setstate__((attributes, cause, self.__suppress_context__))
        return copied


def _made(kind: type[E], args: tuple[object, ...]) -> E:
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _picklable_error(error: BaseException) -> BaseException:
    if type(error).__reduce__ is not CopyableError.__reduce__:
        return error if _can_be_pickled(error) else RuntimeError(title_of(error))
    # Ultra's own can be if their class can; to try would take twice as long with each further cause.
    return error if _can_be_pickled(type(error)) else RuntimeError(title_of(error))


def _picklable(value: object) -> object:
    if isinstance(value, BaseException):
        return _picklable_error(value)
    if _can_be_pickled(value):
        return value
    try:
        return repr(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - it is anybody's code
        return f"<{type(value).__name__}>"


def _can_be_pickled(value: object) -> bool:
    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 - made on this line
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - `__reduce__` and `__init__` of other classes are anybody's code
        return False
    return True


def _deep_copy(value: Any, memo: dict[int, object]) -> Any:  # noqa: ANN401 - as above
    try:
        return copy.deepcopy(value, memo)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - as above; a copy that shares one attribute is better than none
        return value
