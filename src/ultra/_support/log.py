"""Logging through structlog, or through the standard library where the program does not use structlog.

In a program that has configured structlog, Ultra's events go through its processors. In any other program
they go to the standard library's logger of the same name (``ultra.…``) as logfmt lines, so
`logging.basicConfig`, levels and handlers work as for every library. Nothing is written to stdout.
"""

from __future__ import annotations

import logging
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["Level", "Logger", "get_logger"]

Level = Literal["debug", "info", "warning", "error", "critical"]

_NUMBERS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

# Terminals obey control characters, and some programs end a line at them. Other people's words are logged.
_ESCAPED: Final = {
    code: repr(chr(code))[1:-1]
    for code in (
        *range(0x20),
        *range(0x7F, 0xA0),
        *(0x061C, 0x200E, 0x200F),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}

_render = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)


def _as_record(logger: WrappedLogger, name: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Make one printable line of the fields, and leave the traceback to the handlers, which format it."""
    exc_info = event.pop("exc_info", None)
    return (_render(logger, name, event).translate(_ESCAPED),), {"exc_info": exc_info}


class Logger:
    """Writes events with fields: ``log.error("attempt failed", model="llama", attempt=2)``.

    Each call asks again whether the program has configured structlog, so it may do so after the import.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._standard = logging.getLogger(name)
        self._fallback: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            self._standard,
            processors=[structlog.stdlib.filter_by_level, _as_record],
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )

    def enabled(self, level: Level) -> bool:
        """Return whether an event of this level could be written anywhere; cheap enough for warm paths."""
        try:
            return structlog.is_configured() or self._standard.isEnabledFor(_NUMBERS[level])
        except Exception:  # noqa: BLE001 - the program may have a logger class of its own
            return True

    def debug(self, event: str, **fields: object) -> None:
        """Write an event that only those who look for a fault want to see."""
        self.log("debug", event, **fields)

    def info(self, event: str, **fields: object) -> None:
        """Write an event of normal work."""
        self.log("info", event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Write that something went wrong, and that the work goes on."""
        self.log("warning", event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Write that something failed. `exc_info` may be the exception, whose traceback is then shown."""
        self.log("error", event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """Write that something failed, with the traceback of the exception that is being handled."""
        self.log("error", event, **({"exc_info": True} | fields))

    def critical(self, event: str, **fields: object) -> None:
        """Write that something failed which will not work again by itself."""
        self.log("critical", event, **fields)

    def log(self, level: Level, event: str, /, **fields: object) -> None:
        """Write one event.

        An exception from the program's own processors, filters or handlers goes no further. It is logged
        itself, or, where that fails too, written to stderr as the standard library does.
        """
        try:
            if structlog.is_configured():
                getattr(structlog.get_logger(self.name), level)(event, **fields)
            else:
                getattr(self._fallback, level)(event, **fields)
        except Exception:  # noqa: BLE001 - whatever it is, logging is no reason to fail
            try:
                self._standard.exception("logging, as configured, could not log event %r", event)
            except Exception:  # noqa: BLE001 - as above
                _report_to_stderr()


def _report_to_stderr() -> None:
    if logging.raiseExceptions:  # as `logging.Handler.handleError` has it
        with suppress(Exception):
            traceback.print_exc()


def get_logger(name: str) -> Logger:
    """Return the logger called `name`; the module's docstring says where it writes."""
    return Logger(name)
