"""The sections of `ultra.toml` as types: runs, cache, models and their deployments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct, field

from ultra.actors.model.breaker import BreakerPolicy
from ultra.actors.model.hedging import Hedge
from ultra.actors.model.limits import Limits
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.timeouts import Timeouts
from ultra.clients.genai_prices import PriceList
from ultra.clients.pricing import Price
from ultra.clients.providers import connect
from ultra.errors import BadCall
from ultra.stores.opening import without_password
from ultra.strategies.catalog import load_strategy

if TYPE_CHECKING:
    from ultra.clients import HTTPClient
    from ultra.strategies.base import Strategy

__all__ = ["CacheConfig", "DeploymentConfig", "ModelConfig", "RunConfig"]

_NO_OPTIONS: Final = {
    "name": "the provider and model stand in model",
    "api_key": "it stands beside them",
    "base_url": "it stands beside them",
    "transport": "it is an object, which only a program can give",
}
"""Arguments of `connect` that are no options, and why they cannot be given as one."""


class RunConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of every run, see `MultiLLMOrchestrator`: times in seconds, `max_cost` in dollars.

    `strategy` is a name, or a section with the name and the strategy's options. `ensemble` is what the
    command asks where the user names none.
    """

    strategy: str | dict[str, Any] | None = None
    stages: tuple[str, ...] | None = None
    quorum: int | Literal["all"] = 1
    grace: float | None = None
    timeout: float | None = None
    samples: int = 1
    system: str | None = None
    judge: str | None = None
    max_cost: float | None = None
    ensemble: str | None = None

    @property
    def strategy_name(self) -> str | None:
        """The name of the strategy, if the file gives one."""
        return self.strategy.get("name") if isinstance(self.strategy, dict) else self.strategy

    def load_strategy(self) -> Strategy | None:
        """Return the strategy, if the file gives one; a class is imported. Raises `BadCall`."""
        options = dict(self.strategy) if isinstance(self.strategy, dict) else {}
        name = options.pop("name", self.strategy)
        return None if name is None else load_strategy(name, options)


class CacheConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether answers are cached, and where: ``memory``, ``sqlite:///path`` or ``redis://host``."""

    enabled: bool = True
    store: str = "memory"

    def __repr__(self) -> str:
        return f"CacheConfig(enabled={self.enabled!r}, store={without_password(self.store)!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown: a URL may hold a password."""
        return [("enabled", self.enabled), ("store", without_password(self.store))]


class DeploymentConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deployment of a model that needs a key, an endpoint or options of its own."""

    model: str
    api_key: str | None = None
    base_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def provider(self) -> str:
        """The part before the colon."""
        return self.model.partition(":")[0]

    def connect(self) -> HTTPClient:
        """Return its client; raise `BadCall` or `MissingExtra` if there can be none."""
        for name in _NO_OPTIONS:
            if name in self.options:
                raise BadCall(f"{name} is not one of the options; {_NO_OPTIONS[name]}")
        return connect(self.model, api_key=self.api_key, base_url=self.base_url, **self.options)

    def __repr__(self) -> str:
        return f"DeploymentConfig(model={self.model!r})"  # a key must not be shown

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("model", self.model)]


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: its ``provider:model``, or several deployments of it, which are tried in order.

    `api_key` and `base_url` hold for all deployments, which then must be of one provider. `options` hold
    for all, too; a deployment's own options replace them. `fetch_urls`: whether images and documents that are
    given by their address are fetched where an API takes only bytes.
    """

    model: str | tuple[str | DeploymentConfig, ...]
    weight: float = 1.0
    api_key: str | None = None
    base_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits | None = None
    price: Price | PriceList | None = None
    retry: RetryPolicy | None = None
    timeouts: Timeouts | None = None
    breaker: BreakerPolicy | None = None
    hedge_after: float | Literal["p95"] | None = None
    fetch_urls: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise BadCall("model is empty; allowed is 'provider:model', or a list of them")
        providers = dict.fromkeys(each.provider for each in self.deployments)
        for name in ("api_key", "base_url"):
            if getattr(self, name) is not None and len(providers) > 1:
                raise BadCall(
                    f"{name} is for one provider, and the deployments are of {' and '.join(providers)}; "
                    f'give them their own: model = [{{ model = "…", {name} = "…" }}, …]'
                )

    @property
    def deployments(self) -> tuple[DeploymentConfig, ...]:
        """The deployments, in the order in which they are tried, each with all that holds for it."""
        given = (self.model,) if isinstance(self.model, str) else self.model
        return tuple(map(self._deployment, given))

    def _deployment(self, given: str | DeploymentConfig) -> DeploymentConfig:
        own = DeploymentConfig(model=given) if isinstance(given, str) else given
        return DeploymentConfig(
            model=own.model,
            api_key=own.api_key or self.api_key,
            base_url=own.base_url or self.base_url,
            options={**({"fetch_urls": True} if self.fetch_urls else {}), **self.options, **own.options},
        )

    def connect(self) -> list[object]:
        """Return a client for each deployment; raise `BadCall` or `MissingExtra` if there can be none."""
        return [deployment.connect() for deployment in self.deployments]

    def policies(self) -> dict[str, Any]:
        """Return the other arguments of `MultiLLMOrchestrator.register_model`."""
        hedge = None if self.hedge_after is None else Hedge(self.hedge_after)
        names = ("retry", "timeouts", "limits", "breaker", "price")
        return {"hedge": hedge, **{name: getattr(self, name) for name in names}}

    def __repr__(self) -> str:
        return f"ModelConfig(model={self.model!r}, weight={self.weight!r})"  # a key must not be shown

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("model", self.model), ("weight", self.weight)]
