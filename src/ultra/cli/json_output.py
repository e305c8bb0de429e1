"""The output of `--json`: one document on stdout, which is the result or the error."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final, Self

import msgspec

from ultra._support.control_characters import CONTROLS, DIRECTIONS, LINE_ENDS
from ultra.errors import QuorumNotReached, UltraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ultra.messages.events import Event
    from ultra.messages.results import OrchestrationResult

__all__ = ["JsonView", "document", "reporting_errors", "write_document"]

_OBEYED: Final = re.compile(f"[{''.join(map(chr, (*CONTROLS, *DIRECTIONS, *LINE_ENDS)))}]")
"""What JSON need not escape, and a terminal obeys, or some readers take for the end of a line."""


def write_document(value: object) -> None:
    """Write `value` to stdout as one line of JSON, in UTF-8 with any locale."""
    sys.stdout.flush()
    sys.stdout.buffer.write(document(value).encode())
    sys.stdout.buffer.flush()


def document(value: object) -> str:
    """Return `value` as one line of JSON that no terminal obeys."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", msgspec.json.encode(value).decode()) + "\n"


@contextmanager
def reporting_errors(*, enabled: bool) -> Iterator[None]:
    """Write an error that leaves the block as a document, if `enabled`, and let the error pass."""
    try:
        yield
    except Exception as error:
        # Other errors of the operating system come from writing to stdout, and this would write there, too.
        if enabled and (isinstance(error, UltraError) or not isinstance(error, OSError)):
            write_document({"error": _described(error)})
        raise


class JsonView:
    """The view of `--json`: it writes the result and nothing else; with `silent`, nothing."""

    interval = inf

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, event: Event) -> None:
        """Do nothing: the result has all that is in the events."""

    def refresh(self) -> None:
        """Do nothing."""

    def conclude(self, result: OrchestrationResult) -> None:
        """Write the result."""
        if not self._silent:
            write_document(result)


def _described(error: Exception) -> dict[str, object]:
    described: dict[str, object] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, QuorumNotReached):
        described |= {"stage": error.stage, "failures": error.failures}
    return described
