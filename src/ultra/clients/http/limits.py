"""How long one call over HTTP may take, and how much may come back."""

from __future__ import annotations

from msgspec import Struct

from ultra.errors import BadCall

__all__ = ["HTTPLimits"]


class HTTPLimits(Struct, frozen=True, kw_only=True):
    """The limits of each call of a client.

    Args:
        timeout: seconds for the whole call; of a stream, from its first piece being asked for to its last.
        connect_timeout: seconds for opening a connection, TLS included.
        read_timeout: the longest silence of the server while an answer is awaited or read, in seconds.
        max_response_bytes: the most bytes of one answer, decompressed.

    Raises:
        BadCall: a limit is not greater than 0.
    """

    timeout: float = 600.0
    connect_timeout: float = 5.0
    read_timeout: float = 300.0
    max_response_bytes: int = 32 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not getattr(self, name) > 0:
                raise BadCall(f"{name} must be greater than 0, not {getattr(self, name)!r}")
