"""Whom an orchestrator tells of its runs and calls, the section `[telemetry]`."""

from __future__ import annotations

from msgspec import Struct

from ultra._support.checks import check_flag
from ultra.messages.observers import named_observer

__all__ = ["TelemetryConfig"]


class TelemetryConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Telemetry by OpenTelemetry, which the variables ``OTEL_…`` say more of.

    Attributes:
        otel: whether traces and metrics are sent to a collector.
        content: whether traces have messages and answers.
        propagate: whether providers get the header ``traceparent``.

    Raises:
        BadCall: a value is not allowed.
    """

    otel: bool = False
    content: bool = False
    propagate: bool = True

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            check_flag(name, getattr(self, name))

    def observer(self) -> object:
        """Return what an orchestrator gets as `telemetry`. Raises `MissingExtra`."""
        if not self.otel:
            return None
        return named_observer("otel", content=self.content, propagate=self.propagate, export=True)
