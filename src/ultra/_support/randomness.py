"""Where randomness comes from that nobody has given: the system, or in a simulation its seed."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["decided_by", "new_id", "new_random", "new_secret"]

_source: ContextVar[Random | None] = ContextVar("chance", default=None)


@contextmanager
def decided_by(source: Random) -> Iterator[None]:
    """Let `source` decide all that is made in this context, and in the tasks that are started in it."""
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)


def new_random() -> Random:
    """A generator of its own, seeded by the system or by the simulation."""
    source = _source.get()
    return Random() if source is None else Random(source.getrandbits(64))


def new_secret(size: int) -> bytes:
    """So many bytes that nobody can guess; in a simulation, its seed tells them."""
    source = _source.get()
    return secrets.token_bytes(size) if source is None else source.randbytes(size)


def new_id() -> str:
    """32 hexadecimal digits that differ each time."""
    source = _source.get()
    return secrets.token_hex(16) if source is None else f"{source.getrandbits(128):032x}"
