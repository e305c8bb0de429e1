"""One connection of Hypercorn's, which neither ends the server nor is idle for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ultra._support.log import get_logger
from ultra.errors import MissingExtra

try:
    import hypercorn.trio.run
    from hypercorn.protocol.h2 import H2Protocol
    from hypercorn.trio.tcp_server import TCPServer
except ImportError:
    raise MissingExtra("the service", "serve") from None

if TYPE_CHECKING:
    from hypercorn.events import Event

__all__ = ["guard_connections"]

_LONGEST: Final = 200
"""Characters of an error."""

_log = get_logger("ultra.service")


class _Connection(TCPServer):
    """Hypercorn's, but for two faults of it.

    An error in one connection ends all of them, and the server: a client of HTTP/2 that still sends its body
    when it is refused is enough. And where a client has begun with HTTP/2, its connection is idle for ever
    until it has asked for something.
    """

    def __init__(self, *args: Any) -> None:  # noqa: ANN401 - they are Hypercorn's own
        super().__init__(*args)
        self._begins = True

    async def run(self) -> None:
        """Serve the connection until it ends."""
        try:
            await super().run()
        except* Exception as group:  # noqa: BLE001 - the others go on
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            # In one line: anybody can bring this about, as often as they like.
            _log.warning("connection failed", error=repr(error)[:_LONGEST])

    async def protocol_send(self, event: Event) -> None:
        """Send, or note, what the protocol tells."""
        await super().protocol_send(event)
        protocol = self.protocol.protocol
        if self._begins and isinstance(protocol, H2Protocol):
            self._begins = False
            if not protocol.connection.open_inbound_streams:  # of an upgrade, one is open
                await self.idle_task.restart(self._task_group, self._idle_timeout)


def guard_connections() -> None:
    """Let Hypercorn on trio serve each connection like this; it has no other place where it takes a class."""
    setattr(hypercorn.trio.run, TCPServer.__name__, _Connection)
