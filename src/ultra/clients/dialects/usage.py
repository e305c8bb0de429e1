"""Reading token counts: a broken count must not cost a good answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

import msgspec

from ultra.clients.dialects.tolerant import TolerantDecoder

if TYPE_CHECKING:
    from ultra.messages.results import Usage

__all__ = ["Count", "read_usage"]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None
"""A number of tokens as a provider reports it; None where it reports none."""


class WireUsage(Protocol):
    """Counts in a provider's own fields."""

    def normalized(self) -> Usage:
        """Return the counts in the sense of `Usage`."""
        ...


def read_usage(found: object, wire: type[WireUsage]) -> Usage | None:
    """Return the counts in `found`, JSON of the shape `wire`; None where there are none to be read."""
    if not isinstance(found, dict):
        return None
    try:
        usage = TolerantDecoder(wire)(msgspec.json.encode(found)).normalized()
    except (msgspec.ValidationError, UnicodeError):
        return None
    return None if usage.input is None and usage.output is None else usage
