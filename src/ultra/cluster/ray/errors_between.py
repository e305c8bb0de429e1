"""Errors on their way from the process of a model to its actor.

An error is pickled with its cause: by cloudpickle, which brings an exception of a class of the main program
back as one of that very class. An `ErrorValue` brings back only classes that the other process has loaded.
"""

from __future__ import annotations

import copy
import traceback

from ray import cloudpickle

from ultra.clients.plain_values import plain_usage
from ultra.errors import ModelError, title_of

__all__ = ["packed", "unpacked"]


def packed(error: ModelError) -> bytes:
    """Return an error with its cause, as bytes. The cause tells the lines of code where it was raised."""
    bare = copy.copy(error)
    cause, bare.__cause__ = error.__cause__, None
    if cause is not None:
        cause = _with_note(cause)
    for form in ((bare, cause), (bare, _in_words(cause)), (_plain(bare), _in_words(cause))):
        data = _pickled(form)
        if data is not None:
            return data
    raise TypeError(f"{title_of(error)} cannot be pickled")


def unpacked(data: bytes) -> ModelError:
    """Return the error that was packed; another `ModelError`, if its classes are not known here."""
    error: ModelError
    cause: BaseException | None
    try:
        error, cause = cloudpickle.loads(data)
    except Exception as failure:  # noqa: BLE001 - `__setstate__` and imports are anybody's code
        said = f"the error of the model cannot be read here: {title_of(failure)}"
        error = ModelError(said, retryable=False)
        cause = failure
    error.__cause__ = cause
    return error


def _with_note(cause: BaseException) -> BaseException:
    lines = "".join(traceback.format_tb(cause.__traceback__))
    if lines:
        cause.add_note(f"raised in the process of the model:\n{lines.rstrip()}")
    return cause


def _in_words(cause: BaseException | None) -> BaseException | None:
    if cause is None:
        return None
    told = RuntimeError(title_of(cause))
    for note in getattr(cause, "__notes__", ()):
        told.add_note(str(note))
    return told


def _plain(error: ModelError) -> ModelError:
    plain = ModelError(
        error.message,
        provider=error.provider,
        kind=error.kind,
        status=error.status,
        retryable=error.retryable,
        retry_after=error.retry_after,
        request_id=error.request_id,
        usage=plain_usage(error.usage),
    )
    plain.unexpected = error.unexpected
    return plain


def _pickled(form: tuple[ModelError, BaseException | None]) -> bytes | None:
    """Return the bytes; None if it cannot be pickled, or not be read again."""
    try:
        data: bytes = cloudpickle.dumps(form)  # type: ignore[no-untyped-call] # the library's
        cloudpickle.loads(data)
    except Exception:  # noqa: BLE001 - `__reduce__` is anybody's code
        return None
    return data
