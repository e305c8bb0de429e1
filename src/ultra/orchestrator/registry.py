"""The registered models of one orchestrator, by name and by weight."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from msgspec import Struct

from ultra._support.checks import check_name, did_you_mean, shown
from ultra.actors.model.breaker import BreakerPolicy, CircuitBreaker
from ultra.actors.model.deployments import Deployments
from ultra.actors.model.hedging import Hedge
from ultra.actors.model.limits import Limiter, Limits
from ultra.actors.model.metrics import MetricsRecorder
from ultra.actors.model.registered import RegisteredModel
from ultra.actors.model.retry import RetryPolicy
from ultra.actors.model.started_clients import StartedClients
from ultra.actors.model.timeouts import Timeouts
from ultra.actors.runtime.cell import Interceptor, check_faults
from ultra.bridge.caller import current_runner, trio_runner
from ultra.clients.adapter import ClientAdapter
from ultra.clients.genai_prices import PriceList
from ultra.clients.pricing import Price
from ultra.errors import BadCall
from ultra.orchestrator.prices import check_price, price_of
from ultra.orchestrator.unregistered_clients import UnregisteredClients
from ultra.stores.memory import MemoryCache, MemoryShard

if TYPE_CHECKING:
    from ultra.actors.model.replicas import Replicas
    from ultra.bridge.caller import Runner
    from ultra.messages.observers import ObserverGroup
    from ultra.stores.contracts import CacheShard, CacheStore

__all__ = ["Faults", "ModelRegistry", "Policies", "check_weight"]


_WEIGHT: Final = attrgetter("weight")


class Policies(Struct, frozen=True):
    """The policies of one model, or of all; None: that of all models, or the default.

    Raises:
        BadCall: a policy is of another type.
    """

    retry: RetryPolicy | None = None
    timeouts: Timeouts | None = None
    limits: Limits | None = None
    breaker: BreakerPolicy | None = None
    hedge: Hedge | None = None
    price: Price | PriceList | None = None

    def __post_init__(self) -> None:
        check_price(self.price)
        kinds = (RetryPolicy, Timeouts, Limits, BreakerPolicy, Hedge)
        for name, kind in zip(self.__struct_fields__, kinds, strict=False):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise BadCall(f"{name} is {value!r}; it must be a {kind.__name__} object, or None")


@runtime_checkable
class Faults(Interceptor, Protocol):
    """Injects faults into the actors of an orchestrator, and into the calls to its models."""

    def around(self, model: str, adapter: ClientAdapter) -> ClientAdapter:
        """Return what is called in place of `adapter`. Called once for each client, when it is registered."""
        ...


class ModelRegistry:
    """The registered models by name. They stay when the actors stop. For use by any thread."""

    def __init__(
        self,
        cache: CacheStore | None,
        policies: Policies,
        faults: Faults | None = None,
        observers: ObserverGroup | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        check_faults(faults, Faults)
        self._lock = threading.Lock()
        self._cache = cache
        self._faults = faults
        self._observers = observers
        self._replicas = replicas
        self._policies = policies
        self._models: dict[str, RegisteredModel] = {}
        self._clients: dict[str, object] = {}
        self._given: dict[str, Policies] = {}
        self.unregistered = UnregisteredClients(self._make_unregistered)

    def register(self, name: object, client: object, weight: object, policies: Policies) -> RegisteredModel:
        """Add a model and return it. Where one of its `policies` is None, that of the registry holds.

        A model that is registered already, with this very client and these policies, takes the weight.

        Raises:
            BadCall: the name is taken or empty, the weight is not allowed, or the client cannot be used.
        """
        name = check_name("the model name", name)
        with self._lock:
            known = self._models.get(name)
            if known is not None and self._clients[name] is client and self._given[name] == policies:
                known.weight = check_weight(weight)
                return known
            if known is not None:
                raise BadCall(
                    f"a model named {name!r} is already registered with another client or other policies; "
                    "choose another name, or unregister it first"
                )
            shard = self._cache.shard(_shard_name(name, client)) if self._cache is not None else None
            model = self._make(name, client, check_weight(weight), policies, shard)
            if self._replicas is not None:
                model.replicas = self._replicas.link(_shard_name(name, client), model.limiter, model.breaker)
            self._models[name] = model
            self._clients[name] = client
            self._given[name] = policies
        return model

    def unregister(self, name: str) -> RegisteredModel:
        """Remove a model and return it; its cached answers are removed from memory.

        Raises:
            BadCall: there is no model of that name.
        """
        with self._lock:
            model = self.get(name)
            del self._models[name], self._clients[name], self._given[name]
            model.registered = False
        # Requests that are still under way must not write into the shard of the next model of this name.
        shard, model.shard = model.shard, None
        if model.replicas is not None:
            model.replicas.close()
        if isinstance(shard, MemoryShard):
            shard.clear()
        return model

    def _make(
        self, name: str, client: object, weight: float, policies: Policies, shard: CacheShard | None
    ) -> RegisteredModel:
        common = self._policies
        limiter = Limiter(name, policies.limits or common.limits)
        clients = _deployments(client)
        adapters = tuple(self._adapted(name, deployment, limiter) for deployment in clients)
        price = price_of(policies.price, clients, adapters)
        metrics = MetricsRecorder(priced=price is not None)
        return RegisteredModel(
            name,
            weight,
            client=Deployments(adapters, policies.hedge or common.hedge, metrics),
            price=price,
            policy=policies.retry or common.retry or RetryPolicy(),
            timeouts=policies.timeouts or common.timeouts or Timeouts(),
            shard=shard,
            limiter=limiter,
            breaker=CircuitBreaker(name, policies.breaker or common.breaker),
            metrics=metrics,
            observers=self._observers,
            started=StartedClients.among(clients),
        )

    def _adapted(self, name: str, client: object, limiter: Limiter) -> ClientAdapter:
        owned = getattr(client, "reopens", False) is True
        adapter = ClientAdapter(client, owned=owned, runner=_runner_of(client))
        adapter.keep_slot = limiter.keep_slot
        return adapter if self._faults is None else self._faults.around(name, adapter)

    def _make_unregistered(self, name: str, client: object) -> RegisteredModel:
        # In memory alone: a store may outlive the client, and this name does not identify it.
        cache = MemoryCache(max_entries=256, max_bytes=4 * 2**20) if self._cache is not None else None
        shard = cache.shard(name) if cache is not None else None
        return self._make(name, client, 1.0, Policies(), shard)

    # --- finding ---------------------------------------------------------------------------------------

    def get(self, name: object) -> RegisteredModel:
        """Return the model called `name`; raise `BadCall`, which names the choices."""
        model = self._models.get(name) if isinstance(name, str) else None
        if model is None:
            hint = did_you_mean(name, self._models) if isinstance(name, str) else ""
            raise BadCall(f"unknown model {shown(name)}; registered: {self._choices()}{hint}")
        return model

    def of_client(self, client: object) -> RegisteredModel | None:
        """Return the first model that was registered with `client`; None if there is none."""
        with self._lock:
            for name, known in self._clients.items():
                if known is client:
                    return self._models[name]
        return None

    def set_weight(self, name: str, weight: float) -> None:
        """Change the weight of a model, from the next run on."""
        self.get(name).weight = check_weight(weight)

    def prioritized(self, names: object = None) -> list[RegisteredModel]:
        """Return the models of these names, or all, highest weight first; ties in order of registration.

        Raises:
            BadCall: a name is unknown or repeated, the list is empty, or it is no list of names.
        """
        models = self._models.copy()  # another thread may register one meanwhile
        chosen = list(models.values())
        if names is not None:
            order = {name: number for number, name in enumerate(models)}
            chosen = sorted(self._named(names), key=lambda model: order.get(model.name, 0))
        return sorted(chosen, key=_WEIGHT, reverse=True)  # stable: equal weights keep their order

    def chosen(self, names: object = None) -> list[RegisteredModel]:
        """Return the same for a run; raise `BadCall` also if no model is registered."""
        if not self._models:
            raise BadCall("no model is registered; call register_model(name, client) first")
        return self.prioritized(names)

    def _named(self, names: object) -> list[RegisteredModel]:
        if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
            raise BadCall(f"models is {names!r}; give a list of names: {self._choices()}")
        models = [self.get(name) for name in names]
        if not models:
            raise BadCall(f"models is empty; give at least one of: {self._choices()}")
        if len({model.name for model in models}) < len(models):
            raise BadCall(f"a model is named twice in {[model.name for model in models]!r}; name each once")
        return models

    def _choices(self) -> str:
        return ", ".join(self._models) or "none"


def _runner_of(client: object) -> Runner | None:
    """Return where the client's coroutines run: on trio if it says so, else on the current loop."""
    return trio_runner if getattr(client, "async_library", None) == "trio" else current_runner()


def _shard_name(name: str, client: object) -> str:
    """Return the name of a model's shard in the cache, with provider and model of the client, if it has them.

    A store may outlive this registration, and another client may be registered under the same name.
    """
    parts = [getattr(client, attribute, None) for attribute in ("provider", "model")]
    identity = ":".join(part for part in parts if isinstance(part, str) and part)
    return f"{name} ({identity})" if identity else name


def check_weight(weight: object) -> float:
    """Return `weight` as a float; raise `BadCall` unless it is a finite number, 0 or more."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
        raise BadCall(f"the weight is {weight!r}; it must be a finite number, 0 or more")
    return float(weight)


def _deployments(client: object) -> Sequence[object]:
    """Return the clients of a registration; a list or tuple has several, which are tried in order."""
    if not isinstance(client, (list, tuple)):
        return (client,)
    if not client:
        raise BadCall("the list of clients is empty; give at least one")
    return client
