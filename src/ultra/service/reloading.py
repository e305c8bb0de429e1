"""Another configuration for a service that runs: at SIGHUP, and without dropping a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra._support.log import get_logger
from ultra.errors import UltraError, text_of
from ultra.service.server import check_address
from ultra.service.setup import make_generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.config.loading import Configuration
    from ultra.service.core import Service

__all__ = ["Reloader"]

_log = get_logger("ultra.service")


class Reloader:
    """Reads the configuration of a service again.

    Args:
        service: what it is for.
        read: returns the configuration as it is now; None: there is none.
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
        """Let the configuration hold as it is now; if that is wrong, the old one stays. Raises nothing."""
        try:
            configuration = self._read()
            if configuration is None:
                self._tell("there is no configuration file, so nothing is reloaded")
                return
            generation = make_generation(configuration, self._service)
            check_address(generation.access, self._host)
            await self._service.adopt(generation)
        except Exception as error:  # noqa: BLE001 - it may be of anybody's code, and must not end the service
            known = isinstance(error, UltraError | OSError)
            _log.error("reload failed", error=text_of(error), exc_info=None if known else error)
            self._tell(f"the configuration is as it was; the changed one is not used: {text_of(error)}")
            return
        _log.info("configuration reloaded", keys=len(configuration.serve.keys))
        self._tell("the configuration was reloaded")
