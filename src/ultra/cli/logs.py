"""The logs of a command: on stderr, and only if the user asks for them."""

from __future__ import annotations

import logging
import sys

from ultra.cli.printable_text import printable

__all__ = ["configure_logs"]


def configure_logs(verbose: int) -> None:
    """Write logs to stderr: none (0), those of level info and above (1), or all of them (2 and more)."""
    root = logging.getLogger()
    if not verbose:
        root.addHandler(logging.NullHandler())  # or Python writes warnings to stderr
        return
    handler = _Stderr()
    handler.setFormatter(_Printable("{asctime} {levelname:<8} {name} {message}", style="{"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to the `sys.stderr` of the moment, which the live display replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Printable(logging.Formatter):
    """Formats as usual, in printable text, since logs have errors with the words of providers."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
