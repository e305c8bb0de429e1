"""Logging through structlog, routed where the host application routes its own.

A host that configured structlog gets Ultra's events through its own processors. In any other program
they go to the standard library's logger of the same name (``ultra.…``) as logfmt lines, so that
`logging.basicConfig`, levels and handlers work as for every library. Nothing is written to stdout.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

import structlog

__all__ = ["Level", "Logger", "get_logger"]

Level = Literal["debug", "info", "warning", "error", "critical"]

_NUMBERS = logging.getLevelNamesMapping()


class Logger:
    """Writes events with fields; finds out at each call whether structlog is the host's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._standard = logging.getLogger(name)
        self._fallback: structlog.stdlib.BoundLogger = structlog.wrap_logger(
            self._standard,
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False),
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            context_class=dict,
            cache_logger_on_first_use=True,
        )

    def enabled(self, level: Level) -> bool:
        """Whether an event of this level could be written anywhere; cheap enough for warm paths."""
        return structlog.is_configured() or self._standard.isEnabledFor(_NUMBERS[level.upper()])

    def write(self, level: Level, event: str, **fields: Any) -> None:  # noqa: ANN401 - any field can be logged
        """Write one event."""
        target = structlog.get_logger(self.name) if structlog.is_configured() else self._fallback
        getattr(target, level)(event, **fields)


def get_logger(name: str) -> Logger:
    """The logger called `name`; see the module's text for where it writes."""
    return Logger(name)
