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
from ultra.config.placement import ClusterConfig, PlacementConfig, check_class, made_client
from ultra.errors import BadCall
from ultra.stores.opening import without_password
from ultra.strategies.catalog import load_strategy

if TYPE_CHECKING:
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
    """One deployment of a model that needs a key, an endpoint or options of its own.

    Or, in place of `model`, a `client` of the user's own, as ``package.module:Class``, which gets the options
    as arguments; with a `placement`, it is made in a process of a cluster.
    """

    model: str = ""
    api_key: str | None = None
    base_url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    client: str | None = None
    placement: PlacementConfig | None = None

    def __post_init__(self) -> None:
        if self.client is None:
            if not self.model:
                raise BadCall("model is empty; allowed is 'provider:model', or client = 'module:Class'")
            if self.placement is not None:
                raise BadCall(
                    f"placement is for a client of your own, client = 'module:Class'; {self.model!r} is "
                    "asked over HTTP, or embedded here"
                )
            return
        check_class(self.client)
        for name in ("model", "api_key", "base_url"):
            if getattr(self, name):
                raise BadCall(f"{name} is for models of providers; a client has what it takes in options")

    @property
    def provider(self) -> str | None:
        """The part before the colon; None: it is a client of the user's own."""
        return self.model.partition(":")[0] if self.client is None else None

    @property
    def what(self) -> str:
        """What it is, for people."""
        return self.client or self.model

    def connect(self, cluster: ClusterConfig | None = None) -> object:
        """Return its client; raise `BadCall` or `MissingExtra` if there can be none.

        `cluster`: where one with a placement is made, later; by default the one that this machine belongs to.
        """
        if self.client is not None:
            return made_client(self.client, self.options, self.placement, cluster)
        for name in _NO_OPTIONS:
            if name in self.options:
                raise BadCall(f"{name} is not one of the options; {_NO_OPTIONS[name]}")
        return connect(self.model, api_key=self.api_key, base_url=self.base_url, **self.options)

    def __repr__(self) -> str:
        return f"DeploymentConfig({self.what!r})"  # a key must not be shown

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("model", self.what)]


class ModelConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: its ``provider:model``, or several deployments of it, which are tried in order.

    `api_key` and `base_url` hold for all deployments, which then must be of one provider. `options` hold
    for all, too; a deployment's own options replace them. `fetch_urls`: whether images and documents that are
    given by their address are fetched where an API takes only bytes. `client` and `placement` are those of
    `DeploymentConfig`.
    """

    model: str | tuple[str | DeploymentConfig, ...] | None = None
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
    client: str | None = None
    placement: PlacementConfig | None = None

    def __post_init__(self) -> None:
        if self.model is None and self.client is None:
            raise BadCall("it has no model; give model = 'provider:model', or client = 'module:Class'")
        if not self.model and self.model is not None:
            raise BadCall("model is empty; allowed is 'provider:model', or a list of them")
        if self.client is not None:
            check_class(self.client)
        if self.model and self.client is not None:
            deployments = f'model = [{{ client = "{self.client}" }}, "provider:model"]'
            raise BadCall(f"model and client are both given; for one after the other: {deployments}")
        providers = dict.fromkeys(each.provider for each in self.deployments if each.provider is not None)
        for name in ("api_key", "base_url"):
            if getattr(self, name) is not None and len(providers) > 1:
                raise BadCall(
                    f"{name} is for one provider, and the deployments are of {' and '.join(providers)}; "
                    f'give them their own: model = [{{ model = "…", {name} = "…" }}, …]'
                )

    @property
    def deployments(self) -> tuple[DeploymentConfig, ...]:
        """The deployments, in the order in which they are tried, each with all that holds for it."""
        if self.client is not None:
            return (
                DeploymentConfig(
                    client=self.client,
                    placement=self.placement,
                    api_key=self.api_key,
                    base_url=self.base_url,
                    options=self.options,
                ),
            )
        given = (self.model,) if isinstance(self.model, str) else self.model or ()
        return tuple(map(self._deployment, given))

    def _deployment(self, given: str | DeploymentConfig) -> DeploymentConfig:
        own = DeploymentConfig(model=given) if isinstance(given, str) else given
        if own.client is not None:
            return own
        return DeploymentConfig(
            model=own.model,
            placement=self.placement,
            api_key=own.api_key or self.api_key,
            base_url=own.base_url or self.base_url,
            options={**({"fetch_urls": True} if self.fetch_urls else {}), **self.options, **own.options},
        )

    def connect(self, cluster: ClusterConfig | None = None) -> list[object]:
        """Return a client for each deployment; raise `BadCall` or `MissingExtra` if there can be none."""
        return [deployment.connect(cluster) for deployment in self.deployments]

    def policies(self) -> dict[str, Any]:
        """Return the other arguments of `MultiLLMOrchestrator.register_model`."""
        hedge = None if self.hedge_after is None else Hedge(self.hedge_after)
        names = ("retry", "timeouts", "limits", "breaker", "price")
        return {"hedge": hedge, **{name: getattr(self, name) for name in names}}

    def __repr__(self) -> str:
        return f"ModelConfig(model={self.client or self.model!r}, weight={self.weight!r})"  # no key

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Return what may be shown."""
        return [("model", self.client or self.model), ("weight", self.weight)]
