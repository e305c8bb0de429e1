"""Another configuration for a service that runs: at SIGHUP, and without dropping a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from ultra._support.log import get_logger
from ultra.errors import UltraError, text_of
from ultra.service.server import check_address
from ultra.service.setup import make_generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.config.loading import Configuration
    from ultra.service.core import Service
    from ultra.service.generation import Generation

__all__ = ["Reloader"]

_log = get_logger("ultra.service")


class Reloader:
    """Reads the configuration of a service again.

    Args:
        service: what it is for.
        read: returns the configuration as it is now, in any thread; None: there is none.
        host: the address that the service listens on.
        tell: is called with one line that says how it went.
    """

    def __init__(
        self,
        service: Service,
        read: Callable[[], Configuration | None],
        *,
        host: str,
        tell: Callable[[str], None],
    ) -> None:
        self._service = service
        self._read = read
        self._host = host
        self._tell = tell

    async def reload(self) -> None:
        """Let the configuration hold as it is now; if that is wrong, the old one stays. Raises nothing.

        Cancelled while it is read and its clients are made, nothing changes; the thread in which that happens
        is given up.
        """
        try:
            generation = await anyio.to_thread.run_sync(self._make, abandon_on_cancel=True)
            if generation is None:
                self._tell("there is no configuration file, so nothing is reloaded")
                return
            await self._service.adopt(generation)
        except Exception as error:  # noqa: BLE001 - it may be of anybody's code, and must not end the service
            known = isinstance(error, UltraError | OSError)
            _log.error("reload failed", error=text_of(error), exc_info=None if known else error)
            self._tell(f"the configuration is as it was; the changed one is not used: {text_of(error)}")
            return
        _log.info("configuration reloaded", keys=len(generation.settings.keys))
        self._tell("the configuration was reloaded")

    def _make(self) -> Generation | None:
        """Read the configuration and make what it asks for; None: there is none.

        In a thread of its own: a client of the user's may take long to be made, and streams go on meanwhile.
        """
        configuration = self._read()
        if configuration is None:
            return None
        generation = make_generation(configuration, self._service)
        check_address(generation.access, self._host)
        return generation
