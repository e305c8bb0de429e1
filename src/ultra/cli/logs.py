"""Logs go to stderr, and only when asked for."""

from __future__ import annotations

import logging
import sys

from ultra.cli.text import printable

__all__ = ["configure_logs"]


def configure_logs(verbose: int) -> None:
    """Write no logs (0), those from level info (1), or all of them (2 and more) to stderr."""
    root = logging.getLogger()
    if not verbose:
        root.addHandler(logging.NullHandler())  # else Python writes warnings to stderr, over the live display
        return
    handler = _Stderr()
    handler.setFormatter(_Printable("{asctime} {levelname:<8} {name} {message}", style="{"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is at that moment: the live display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Printable(logging.Formatter):
    """Formats as usual, and leaves a terminal nothing to obey: models' errors are in the logs."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
