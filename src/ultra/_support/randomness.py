"""Randomness that no caller has given: from the operating system or, in a simulation, from its seed."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_id", "new_random", "new_secret", "seeded"]

_source: ContextVar[Random | None] = ContextVar("ultra_random_source", default=None)


@contextmanager
def seeded(source: Random) -> Iterator[None]:
    """Draw from `source` all that this module makes in the block, and in tasks that are started in it."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def new_random() -> Random:
    """Return a new generator, seeded by the operating system or by the simulation."""
    source = _source.get()
    return Random() if source is None else Random(source.getrandbits(64))


def new_secret(size: int) -> bytes:
    """Return `size` bytes that nobody can guess; in a simulation they follow from its seed."""
    source = _source.get()
    return secrets.token_bytes(size) if source is None else source.randbytes(size)


def new_id() -> str:
    """Return 32 hexadecimal digits, different each time."""
    source = _source.get()
    return secrets.token_hex(16) if source is None else f"{source.getrandbits(128):032x}"
