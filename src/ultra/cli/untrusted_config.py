"""A configuration that was found in the working directory, and that the user has not named.

It may be a part of another person's project, so it is not trusted: it must not have code imported, and must
not send the user's keys, which are in environment variables, to an endpoint of its own. It may send the keys
that it holds itself. Without an endpoint of its own, it can send a provider's key to that provider only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultra.clients.catalog import PROVIDERS
from ultra.clients.providers import find_provider, key_variable
from ultra.errors import BadCall, ConfigError
from ultra.strategies.catalog import names_a_class

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.clients.catalog import Provider
    from ultra.config.loading import Configuration, DeploymentConfig

__all__ = ["check_no_code", "check_untrusted"]


def check_no_code(configuration: Configuration, how_to_name: str) -> None:
    """Raise `ConfigError` if the configuration would have code imported: a class as its strategy.

    `how_to_name` says in the error how the user names the file, and so trusts it.
    """
    name = configuration.run.strategy_name
    if name is not None and names_a_class(name):
        raise ConfigError(
            f"{configuration.lines.place('run', 'strategy')}: {name!r} is not imported for a file that was "
            f"found here and not named; if you trust the file, {how_to_name}"
        )


def check_untrusted(configuration: Configuration, how_to_name: str) -> None:
    """Raise `ConfigError` if the configuration would have code imported, or send a key to its own endpoint.

    A key is one in the usual variables, for a `base_url` without another key, or by ``${VAR}``.
    `how_to_name` says in the error how the user names the file, and so trusts it.
    """
    check_no_code(configuration, how_to_name)
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
    """Yield each place where the file sets an endpoint, and the variable whose key is sent by default."""
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
