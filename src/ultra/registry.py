"""The models of one orchestrator: names, weights, and all that belongs to a registration."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from ultra.actors.breaker import BreakerPolicy, CircuitBreaker
from ultra.actors.cell import Interceptor
from ultra.actors.limits import Limiter, Limits
from ultra.actors.model import RegisteredModel, Timeouts
from ultra.actors.retry import RetryPolicy
from ultra.clients.adapter import ClientAdapter
from ultra.errors import BadCall
from ultra.metrics import MetricsRecorder

if TYPE_CHECKING:
    from ultra.actors.cache import CacheStore

__all__ = ["Faults", "ModelRegistry", "Policies", "check_weight"]

UNREGISTERED: Final = 32
"""How many clients that were never registered are remembered, with their caches."""


class Policies(NamedTuple):
    """How a model's calls are retried, timed, limited and broken off; None: as for all models."""

    retry: RetryPolicy | None = None
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    breaker: BreakerPolicy | None = None


class Faults(Interceptor, Protocol):
    """What injects faults into an orchestrator: into its actors, and into the calls to its models."""

    def around(self, model: str, adapter: ClientAdapter) -> ClientAdapter:
        """Called once for each model, when it is registered; what this gives is called in its place."""
        ...


class ModelRegistry:
    """Registered models by name. Weights, caches and counters live here, whatever runs or not."""

    def __init__(self, cache: CacheStore | None, policies: Policies, faults: Faults | None = None) -> None:
        self._cache = cache
        self._faults = faults
        self._policies = policies
        self._models: dict[str, RegisteredModel] = {}
        self._clients: dict[str, object] = {}
        self._unnamed = 0
        self._strangers: OrderedDict[int, tuple[object, RegisteredModel]] = OrderedDict()

    def register(self, name: object, client: object, weight: object, policies: Policies) -> RegisteredModel:
        """Add a model; raises `BadCall` for a name that is taken, a bad weight, an unusable client.

        What `policies` leaves open is as for the whole registry.
        """
        if not isinstance(name, str) or not name.strip():
            raise BadCall(f"the model name is {name!r}; it must be text that is not empty")
        if name in self._models:
            raise BadCall(
                f"a model named {name!r} is already registered; choose another name, or unregister it first"
            )
        model = self._make(name, client, check_weight(weight), policies)
        self._models[name] = model
        self._clients[name] = client
        return model

    def _make(self, name: str, client: object, weight: float, policies: Policies) -> RegisteredModel:
        common = self._policies
        adapter = ClientAdapter(client, owned=getattr(client, "reopens", False) is True)
        return RegisteredModel(
            name,
            weight,
            adapter=adapter if self._faults is None else self._faults.around(name, adapter),
            policy=policies.retry or common.retry or RetryPolicy(),
            timeouts=policies.timeouts or common.timeouts or Timeouts(),
            shard=self._cache.shard(name) if self._cache is not None else None,
            limiter=Limiter(name, policies.limits or common.limits),
            breaker=CircuitBreaker(name, policies.breaker or common.breaker),
            metrics=MetricsRecorder(),
        )

    def unregister(self, name: str) -> RegisteredModel:
        """Forget a model; raises `BadCall` when there is none of that name."""
        model = self.get(name)
        del self._models[name], self._clients[name]
        return model

    def get(self, name: object) -> RegisteredModel:
        """The model called `name`; raises `BadCall` that names the choices."""
        model = self._models.get(name) if isinstance(name, str) else None
        if model is None:
            raise BadCall(f"unknown model {name!r}; registered: {', '.join(self._models) or 'none'}")
        return model

    def of_client(self, client: object) -> RegisteredModel:
        """The first model registered with `client`; else one that is kept for it, under a name of its own.

        Of the clients that were never registered, only those used last are remembered.

        Raises:
            BadCall: the client is unusable.
        """
        for name, known in self._clients.items():
            if known is client:
                return self._models[name]
        if id(client) not in self._strangers:
            self._unnamed += 1
            model = self._make(f"unregistered-{self._unnamed}", client, 1.0, Policies())
            self._strangers[id(client)] = (client, model)  # the client is kept, so its id stays its own
            if len(self._strangers) > UNREGISTERED:
                self._strangers.popitem(last=False)
        self._strangers.move_to_end(id(client))
        return self._strangers[id(client)][1]

    def set_weight(self, name: str, weight: float) -> None:
        """Change a model's weight; it counts from the next run on."""
        self.get(name).weight = check_weight(weight)

    def prioritized(self, names: Iterable[str] | None = None) -> list[RegisteredModel]:
        """These models, or all, by weight, highest first; equal weights in the order of registration.

        Raises:
            BadCall: an unknown or repeated name, an empty list, or something that is no list of names.
        """
        chosen = list(self._models.values()) if names is None else self._chosen(names)
        order = {name: number for number, name in enumerate(self._models)}
        return sorted(chosen, key=lambda model: (-model.weight, order[model.name]))

    def _chosen(self, names: object) -> list[RegisteredModel]:
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise BadCall(f"models is {names!r}; give a list of names: {', '.join(self._models) or 'none'}")
        chosen = [self.get(name) for name in names]
        if not chosen:
            raise BadCall(f"models is empty; give at least one of: {', '.join(self._models) or 'none'}")
        if len({model.name for model in chosen}) < len(chosen):
            raise BadCall(f"a model is named twice in {[model.name for model in chosen]!r}; name each once")
        return chosen


def check_weight(weight: object) -> float:
    """Return `weight` as a float; raises `BadCall` when it is not a number that is finite and >= 0."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise BadCall(f"the weight is {weight!r}; it must be a finite number, 0 or more")
    return float(weight)
