"""What an object keeps alive."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

__all__ = ["longest_bytes_held_by"]


def longest_bytes_held_by(thing: object) -> int:
    """The length of the longest bytes that can be reached from here, other than through code."""
    longest = 0
    seen = {id(thing)}
    level = [thing]
    while level:
        found: list[object] = []
        for each in gc.get_referents(*level):
            if id(each) in seen or isinstance(each, (type, FunctionType, ModuleType)):
                continue
            seen.add(id(each))
            if isinstance(each, (bytes, bytearray)):
                longest = max(longest, len(each))
            else:
                found.append(each)
        level = found
    return longest
