"""A registered model: what outlives its actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import replace

from ultra._support.forking import Forkable
from ultra._support.log import get_logger
from ultra.actors.model.retry import load_tenacity
from ultra.errors import ActorDown, ActorStopped, ModelError, ModelUnregistered, text_of
from ultra.stores.outage import Outage

if TYPE_CHECKING:
    from ultra.actors.model.breaker import CircuitBreaker
    from ultra.actors.model.deployments import Deployments
    from ultra.actors.model.limits import Limiter
    from ultra.actors.model.metrics import MetricsRecorder
    from ultra.actors.model.replicas import ReplicaLink
    from ultra.actors.model.retry import RetryPolicy
    from ultra.actors.model.started_clients import StartedClients
    from ultra.actors.model.timeouts import Timeouts
    from ultra.clients.catalog import ModelInfo
    from ultra.clients.pricing import Price
    from ultra.messages.observers import ObserverGroup
    from ultra.stores.contracts import CacheShard

__all__ = ["RegisteredModel"]

log = get_logger("ultra.model", ownerless=True)

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that clients may take to close their connections."""


class RegisteredModel(Forkable):
    """One registration: name, weight, clients, cache shard, limits, breaker, metrics."""

    __slots__ = (
        "breaker",
        "cache_is_slow",
        "cache_lookups",
        "cache_outage",
        "client",
        "limiter",
        "metrics",
        "name",
        "observers",
        "policy",
        "price",
        "registered",
        "replicas",
        "shard",
        "started",
        "timeouts",
        "users",
        "weight",
    )

    def __init__(
        self,
        name: str,
        weight: float,
        *,
        client: Deployments,
        price: Price | None,
        policy: RetryPolicy,
        timeouts: Timeouts,
        shard: CacheShard | None,
        limiter: Limiter,
        breaker: CircuitBreaker,
        metrics: MetricsRecorder,
        observers: ObserverGroup | None = None,
        started: StartedClients | None = None,
    ) -> None:
        super().__init__()
        load_tenacity()
        self.name = name
        self.weight = weight
        self.client = client
        self.price = price
        self.policy = policy
        self.timeouts = timeouts
        self.shard = shard
        self.limiter = limiter
        self.breaker = breaker
        self.metrics = metrics
        self.observers = observers or None
        self.started = started  # its clients that start and end with its actor
        self.replicas: ReplicaLink | None = None
        self.cache_outage = Outage(model=name)
        self.cache_lookups = 0  # those that ended
        self.cache_is_slow = False  # then no reply waits for its answer to be kept
        self.registered = True
        self.users = 0  # how many actor trees have an actor for it

    def forked(self) -> None:
        """Forget the actors and the calls of the parent process."""
        self.users = 0
        self.limiter.forked()
        self.breaker.forked()

    @property
    def info(self) -> ModelInfo:
        """What is known of it, with the price that holds here."""
        return replace(self.client.info, price=self.price)

    def pause(self, seconds: float) -> None:
        """Start no call for so long, as the provider asks; tell the processes that share its limits."""
        if self.limiter.pause(seconds) and self.replicas is not None:
            self.replicas.paused(seconds)

    def explain(self, error: Exception) -> Exception:
        """Return the error of a request for its asker: `ModelUnregistered` in place of `ActorStopped`."""
        if self.registered or not isinstance(error, ActorStopped) or isinstance(error, ActorDown):
            return error
        explained = ModelUnregistered(self.name)
        explained.__cause__ = error
        return explained

    async def release(self) -> None:
        """Note that one actor tree has no actor for this model any more; after the last, close the clients.

        Closing is not cancelled, and ends after 5 seconds at the latest. Its errors are logged and not
        raised, since all requests to the model have ended.
        """
        self.users -= 1
        if self.users:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT) as scope:
            try:
                await self.client.aclose()
            except ModelError as error:
                log.warning("client failed to close", model=self.name, error=text_of(error))
        if scope.cancelled_caught:
            log.warning("client did not close in time", model=self.name, timeout=CLOSE_TIMEOUT)
