"""What a model is asked, and what had to go so that its context window holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.messages.request import ModelRequest

__all__ = ["Written"]


class Written(NamedTuple):
    """A request, and what had to go to make it fit.

    `cuts` is by how many tokens its parts were cut, `left_out` how many of the oldest messages are not in it.
    """

    request: ModelRequest
    cuts: Mapping[str, int] = {}
    left_out: int = 0
