"""A whole configuration, as values: what a file had, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field, structs
from msgspec.structs import replace

from ultra._support.secrecy import HiddenText
from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.catalog import Facts
from ultra.config.ensembles import EnsembleConfig
from ultra.config.history import HistoryConfig
from ultra.config.journal import JournalConfig
from ultra.config.placement import ClusterConfig
from ultra.config.sections import CacheConfig, ModelConfig, RunConfig
from ultra.config.serving import ServeConfig
from ultra.config.shared import SharedConfig
from ultra.config.telemetry import TelemetryConfig
from ultra.config.toml_lines import TomlLines
from ultra.errors import BadCall, ConfigError
from ultra.stores.opening import check_cache

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Configuration", "without_values"]

_SHORTEST_SECRET: Final = 8
"""Characters; shorter values of variables are no keys, and occur in ordinary words."""


class Configuration(Struct, frozen=True, kw_only=True):
    """A whole configuration, checked as far as this is possible without the providers."""

    lines: TomlLines
    models: Mapping[str, ModelConfig]
    run: RunConfig = RunConfig()
    cache: CacheConfig = CacheConfig()
    journal: JournalConfig = JournalConfig()
    history: HistoryConfig = HistoryConfig()
    shared: SharedConfig = SharedConfig()
    cluster: ClusterConfig = ClusterConfig()
    retry: RetryPolicy | None = None
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    breaker: BreakerPolicy | None = None
    catalog: Mapping[str, Facts] = field(default_factory=dict)
    ensembles: Mapping[str, EnsembleConfig] = field(default_factory=dict)
    serve: ServeConfig = ServeConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    variables: tuple[str, ...] = ()
    """The names of the environment variables that the file uses."""

    @contextmanager
    def explaining(self, *where: str) -> Iterator[None]:
        """Turn a `BadCall` in the block into a `ConfigError` that names the place in the file."""
        try:
            yield
        except BadCall as error:
            raise ConfigError(
                f"{self.lines.place(*where)}: {without_values(self.variables, error)}"
            ) from None

    def without_store(self) -> Configuration:
        """Return it with a cache in memory and no other store, once they are checked: nothing is opened.

        Raises:
            ConfigError: there is no such store.
            MissingExtra: the store needs packages that are not installed.
        """
        with self.explaining("cache", "store"):
            if self.cache.enabled:
                check_cache(self.cache.store)
        cache = CacheConfig(enabled=self.cache.enabled)
        return replace(self, cache=cache, journal=JournalConfig(), shared=SharedConfig())

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `MultiLLMOrchestrator`, but for the strategy and the command's ensemble."""
        run = structs.asdict(self.run)
        del run["strategy"], run["ensemble"]
        return run | {
            "cache_enabled": self.cache.enabled,
            "cache": HiddenText(self.cache.store) if self.cache.enabled else None,
            "retry": self.retry,
            "timeouts": self.timeouts,
            "limits": self.limits,
            "breaker": self.breaker,
            "telemetry": self.telemetry.observer(),
        }


def without_values(variables: Iterable[str], message: object) -> str:
    """Return `message` with the names of variables in place of their values, since a value may be a key."""
    text = str(message)
    for variable in variables:
        value = os.environ.get(variable, "")
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, f"${{{variable}}}")
    return text
