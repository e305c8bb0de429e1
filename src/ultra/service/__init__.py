"""The HTTP service: an ensemble is a model name for every client there is. Needs the extra ``serve``.

`ultra serve` runs it on trio. Under another server, the application is the same::

    uvicorn --factory ultra.service:app_from_config
    granian --interface asgi --factory ultra.service:app_from_config
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.applications import Starlette

    from ultra.config.loading import Configuration
    from ultra.service.access import Authenticator

__all__ = ["app_from_config"]


def app_from_config(
    source: str | Path | Configuration | None = None, *, access: Authenticator | None = None
) -> Starlette:
    """Return the service as an ASGI application.

    Args:
        source: the path of a configuration, or one that was read. None: the one that ``ULTRA_CONFIG`` names,
            or ``ultra.toml`` in the working directory, or else what can be used here.
        access: decides who may ask; None: whoever is on this machine.

    Raises:
        ConfigError: something in the configuration is not allowed.
        BadCall: there is nothing to ask.
        MissingExtra: the extra ``serve`` is not installed, or what a model needs.
    """
    from ultra.service.app import make_app  # noqa: PLC0415 - so that other rooms need no extra
    from ultra.service.setup import found_configuration, make_service  # noqa: PLC0415 - as above

    return make_app(make_service(found_configuration() if source is None else source, access=access))
