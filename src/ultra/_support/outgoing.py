"""Headers, such as ``traceparent``, that calls of this context carry to providers beside their own."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["outgoing_headers"]

outgoing_headers: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("outgoing_headers", default=None)
"""An observer sets it in the context of a call; the names are in lower case."""
