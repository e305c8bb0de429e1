"""Reading token counts: a broken count must not cost a good answer."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol, TypeAlias

import msgspec
from msgspec.structs import replace

from ultra.clients.dialects.tolerant import TolerantDecoder
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.results import Usage

__all__ = ["Count", "counted", "read_usage", "with_parts", "with_total"]

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None
"""A number of tokens as a provider reports it; None where it reports none."""


class Counts(Protocol):
    """What keeps the tokens of a call as far as its answer has told them."""

    @property
    def usage(self) -> Usage | None:
        """The tokens so far; None: nothing was told yet."""
        ...


@contextmanager
def counted(counts: Counts) -> Iterator[None]:
    """Write the tokens that were told so far into a `ModelError` of the block: they cost money, too."""
    try:
        yield
    except ModelError as error:
        if error.usage is None:
            error.usage = counts.usage
        raise


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
    return None if usage.input is None and usage.output is None else with_parts(usage)


def with_parts(usage: Usage) -> Usage:
    """Return the counts with no part above its whole: some servers count reasoning, or the cache, apart.

    Where a part is above, the whole is taken for the rest, so that nothing that costs is left out; that may
    be wrong, so the counts are marked as estimated.
    """
    cached, reasoning = (usage.cached or 0) + (usage.written or 0), usage.reasoning or 0
    if usage.input is not None and cached > usage.input:
        usage = replace(usage, input=usage.input + cached, estimated=True)
    if usage.output is not None and reasoning > usage.output:
        usage = replace(usage, output=usage.output + reasoning, estimated=True)
    return usage


def with_total(usage: Usage, total: int | None) -> Usage:
    """Return the counts with what only their `total` tells.

    Some servers count reasoning nowhere else. What is above the sum is taken for output, and one count that
    is missing for the rest; that may be wrong, so the counts are marked as estimated.
    """
    if not total or total <= usage.total or (usage.input is None and usage.output is None):
        return usage
    if usage.input is None:
        return replace(usage, input=total - usage.total, estimated=True)
    return replace(usage, output=total - usage.input, estimated=True)
