"""The logs of a command: on stderr, and only if the user asks for them."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

from ultra.cli.printable_text import printable

if TYPE_CHECKING:
    from structlog.typing import Processor

__all__ = ["configure_logs"]


def configure_logs(verbose: int, *, as_json: bool = False) -> None:
    """Write logs to stderr: none (0), those of level info and above (1), or all of them (2 and more).

    `as_json`: each line is a JSON object, and those of level info are written in any case.
    """
    if as_json:
        _configure_json(logging.DEBUG if verbose > 1 else logging.INFO)
        return
    root = logging.getLogger()
    if not verbose:
        root.addHandler(logging.NullHandler())  # or Python writes warnings to stderr
        return
    handler = _Stderr()
    handler.setFormatter(_Printable("{asctime} {levelname:<8} {name} {message}", style="{"))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose > 1 else logging.INFO)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to the `sys.stderr` of the moment, which the live display replaces."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Printable(logging.Formatter):
    """Formats as usual, in printable text, since logs have errors with the words of providers."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _configure_json(level: int) -> None:
    """Write each line as one JSON object: of Ultra by structlog, of all other libraries in the same form."""
    import structlog  # noqa: PLC0415 - as the rest of this, only for those who ask for it

    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level)
