"""Logging through structlog, or through the standard library where the program does not use structlog.

In a program that has configured structlog, Ultra's events go through its processors. In any other program
they go to the standard library's logger of the same name (``ultra.…``) as logfmt lines, so
`logging.basicConfig`, levels and handlers work as for every library; the fields are attributes of the
record, too. Nothing is written to stdout.

Each line of a request has the fields of its `LogScope`, and the context variables that the caller has bound
with `structlog.contextvars`. No text from outside ends a line or steers a terminal: see `log_text`.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog
from msgspec import Struct

from ultra._support.lazy import lazy_pattern
from ultra._support.log_text import shown_error, shown_text, shown_value

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["Level", "LogScope", "Logger", "current_scope", "get_logger", "log_scope", "scoped_context"]

Level = Literal["debug", "info", "warning", "error", "critical"]

_NUMBERS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_render = structlog.processors.LogfmtRenderer(key_order=["event"], bool_as_flag=False)

_OF_RECORDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NOT_IN_NAMES: Final = lazy_pattern(r'[\s="]')


def _as_record(logger: WrappedLogger, name: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Make one printable line of the fields, and leave the traceback to the handlers, which format it."""
    exc_info = event.pop("exc_info", None)
    line = _render(logger, name, {_NOT_IN_NAMES().sub("_", key): value for key, value in event.items()})
    # A record refuses fields that have the names of its own attributes.
    extra = {f"{key}_" if key in _OF_RECORDS else key: value for key, value in event.items()}
    return (shown_text(line),), {"exc_info": exc_info, "extra": extra}


class LogScope(Struct, frozen=True):
    """The request that log lines belong to: its fields, and the context variables of who asked."""

    fields: Mapping[str, object]
    context: Context | None = None  # None: those of the code that logs


_scope: ContextVar[LogScope | None] = ContextVar("ultra_log_scope", default=None)


def current_scope() -> LogScope | None:
    """Return the scope of what is logged here; None outside of a request."""
    return _scope.get()


class ScopeBlock:
    """The block of `log_scope`. A class, since it takes less time than a generator, in every call."""

    __slots__ = ("_scope", "_token")

    def __init__(self, scope: LogScope | None) -> None:
        self._scope = scope

    def __enter__(self) -> None:
        self._token = _scope.set(self._scope)

    def __exit__(self, *_: object) -> None:
        _scope.reset(self._token)


def log_scope(scope: LogScope | None) -> ScopeBlock:
    """Return the block in which what is logged belongs to `scope`; None: to nothing."""
    return ScopeBlock(scope)


def scoped_context(context: Context, fields: Mapping[str, object]) -> Context:
    """Return a copy of `context` in which each line of Ultra has these fields."""
    copy = context.copy()
    copy.run(_scope.set, LogScope(fields))
    return copy


class Logger:
    """Writes events with fields: ``log.error("attempt failed", model="llama", attempt=2)``.

    Each call asks again whether the program has configured structlog, so it may do so after the import.

    Args:
        name: the name of the logger.
        ownerless: whether its lines belong to no request, although the code of one may write them, such as
            those of the supervisor.
    """

    def __init__(self, name: str, *, ownerless: bool = False) -> None:
        self.name = name
        self._ownerless = ownerless
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
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the program may have a logger class of its own
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

        What the program's own processors, filters or handlers raise goes no further, but for
        KeyboardInterrupt. It is logged itself, or, where that fails too, written to stderr as the standard
        library does.
        """
        if not self.enabled(level):
            return
        try:
            scope = None if self._ownerless else _scope.get()
            if scope is not None:
                fields = {**scope.fields, **fields}
            exc_info = fields.get("exc_info")
            error = sys.exc_info()[1] if exc_info is True else exc_info
            if isinstance(error, BaseException):
                fields["exc_info"] = shown_error(error)
            if self._ownerless:
                Context().run(self._write, level, event, fields)
            elif scope is not None and scope.context is not None:
                scope.context.copy().run(self._write, level, event, fields)
            else:
                self._write(level, event, fields)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - whatever it is, logging is no reason to fail
            try:
                self._standard.exception("logging, as configured, could not log event %r", event)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - as above
                _report_to_stderr()

    def _write(self, level: Level, event: str, fields: Mapping[str, object]) -> None:
        known = dict(sorted(structlog.contextvars.get_contextvars().items()))
        bound = {name: shown_value(value) for name, value in known.items() if name not in {"event", "self"}}
        own = {name: value if name == "exc_info" else shown_value(value) for name, value in fields.items()}
        if structlog.is_configured():
            # Its processors may not know the name: a PrintLogger has none.
            logger = structlog.get_logger(self.name).bind(**(bound | {"logger": self.name}))
        else:
            logger = self._fallback.bind(**bound)
        getattr(logger, level)(event, **own)


def _report_to_stderr() -> None:
    if logging.raiseExceptions:  # as `logging.Handler.handleError` has it
        with suppress(Exception):  # such as a stderr that is closed
            traceback.print_exc()


def get_logger(name: str, *, ownerless: bool = False) -> Logger:
    """Return the logger called `name`; the module's docstring says where it writes."""
    return Logger(name, ownerless=ownerless)
