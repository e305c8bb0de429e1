"""Keeps keys of the environment from endpoints that only a file from the working directory names.

Such a file may have come with somebody else's project. A key that it holds itself is its own affair, and
without an endpoint of its own it can send a provider's key to that provider only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.clients.catalog import PROVIDERS
from ultra.clients.providers import find_provider, key_variable
from ultra.errors import BadCall, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.clients.catalog import Provider
    from ultra.config.loading import Configuration, DeploymentConfig

__all__ = ["check_found"]


def check_found(configuration: Configuration, how_to_name: str) -> None:
    """Check a configuration that was found and not named; `how_to_name` tells in an error how to do that.

    Raises:
        ConfigError: a provider's key, in one of its usual variables, would go to an endpoint that the file
            sets, because it names no other key or takes that one by ``${VAR}``.
    """
    usual = {variable for provider in _providers(configuration) for variable in provider.keys}
    taken = next((variable for variable in configuration.variables if variable in usual), None)
    for where, sent in _own_endpoints(configuration):
        if variable := sent or taken:
            raise ConfigError(
                f"{configuration.lines.place(*where)}: the key in {variable} is not sent to an endpoint of a "
                f"file that was found here and not named; if you trust the file, {how_to_name}, or else give "
                'the endpoint a key of its own, as in api_key = "${MY_KEY}"'
            )


def _own_endpoints(configuration: Configuration) -> Iterator[tuple[tuple[str, ...], str | None]]:
    """Where the file sets an endpoint, and the variable whose key goes there without being named."""
    for name, model in configuration.models.items():
        for deployment in model.deployments:
            if _is_elsewhere(deployment):
                sent = None if deployment.api_key else key_variable(deployment.provider)
                yield ("models", name, "base_url"), sent
    if configuration.cache.enabled and "@" in configuration.cache.store:  # of a server, with a password
        yield ("cache", "store"), None


def _providers(configuration: Configuration) -> Iterator[Provider]:
    """Ultra's own providers, and those of other packages that the configuration names."""
    yield from PROVIDERS.values()
    for model in configuration.models.values():
        for deployment in model.deployments:
            if (provider := _provider(deployment)) is not None:
                yield provider


def _provider(deployment: DeploymentConfig) -> Provider | None:
    try:
        return find_provider(deployment.provider)
    except BadCall:
        return None  # which connecting to it says


def _is_elsewhere(deployment: DeploymentConfig) -> bool:
    provider = _provider(deployment)
    return bool(deployment.base_url) and (provider is None or deployment.base_url != provider.base_url)
