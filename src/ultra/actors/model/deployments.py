"""The deployments of one model, called as one client: in order, and hedged if the model has a `Hedge`."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import trio
from msgspec.structs import replace

from ultra._support.clock import ContinuousClock
from ultra.actors.model.hedging import Hedge, HedgedCall
from ultra.actors.model.pauses import LONGEST_PAUSE
from ultra.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from ultra.actors.model.metrics import MetricsRecorder
    from ultra.actors.model.spending import Spending
    from ultra.bridge.caller import Caller
    from ultra.clients.adapter import ClientAdapter, OnText
    from ultra.clients.catalog import ModelInfo
    from ultra.clients.context_reads import ContextReads
    from ultra.clients.wire.rate_limits import RateLimits
    from ultra.messages.request import ModelRequest, SamplingOptions
    from ultra.messages.results import Completion

__all__ = ["Asker", "Deployments"]

_REFUSED_BY_ALL: Final = frozenset({None, 400, 413, 422})
"""Statuses of bad requests that the other deployments would refuse, too, unlike a 404 or a redirect."""


Ask: TypeAlias = "Callable[[OnText | None], Awaitable[Completion]]"


class Asker(Protocol):
    """Who asks the deployments, and is told how that goes."""

    def reasoning_is_void(self) -> None:
        """Take note that the reasoning so far is void, since a hedge answers, or no longer does."""

    def deployment_failed(self, number: int, error: ModelError) -> None:
        """Take note that this deployment (from 1) has failed, and that another one is asked next."""

    def deployment_starts(self, *, streams: bool) -> None:
        """Take note that another deployment is asked, which may stream; the text so far is void."""

    async def permit_hedge(self) -> AbstractContextManager[object] | None:
        """Return a permit for a hedge; None: the limits of the model allow none now, so none is made."""
        ...


class Deployments:
    """The clients of one registration, at least one, asked in order until one answers.

    With a `hedge`, a slow call is hedged by a second one, to the next deployment or, where there is only
    one, to the same. A deployment whose error asks for a pause (Retry-After) is left out until the pause is
    over, unless all of them are paused; so is one whose hedge or first call failed while the other answered.
    """

    def __init__(
        self, adapters: tuple[ClientAdapter, ...], hedge: Hedge | None, metrics: MetricsRecorder
    ) -> None:
        self._adapters = adapters
        self._hedge = hedge
        self._metrics = metrics
        self._now = ContinuousClock()
        self._paused_until: dict[ClientAdapter, float] = {}
        self.takes_conversations = all(adapter.takes_conversations for adapter in adapters)
        """Whether all deployments take whole conversations, and not the prompt alone."""

    @property
    def is_own(self) -> bool:
        """Whether all clients are Ultra's own."""
        return all(adapter.is_own for adapter in self._adapters)

    @property
    def streams(self) -> bool:
        """Whether the first deployment streams."""
        return self._adapters[0].streams

    @property
    def reads_images(self) -> bool | None:
        """Whether all deployments read images; None: that is not known of all, and none is known not to."""
        return _all_known([adapter.reads_images for adapter in self._adapters])

    @property
    def reads_files(self) -> bool | None:
        """Whether all deployments read documents (PDF), likewise."""
        return _all_known([adapter.reads_files for adapter in self._adapters])

    @property
    def takes_tools(self) -> bool:
        """Whether tools may be offered to all deployments."""
        return all(adapter.takes_tools for adapter in self._adapters)

    @property
    def tells_finish_reason(self) -> bool:
        """Whether any deployment says why the model stopped, so that an answer without that may be a part."""
        return any(adapter.tells_finish_reason for adapter in self._adapters)

    @property
    def option_names(self) -> frozenset[str] | None:
        """The names of the options that at least one deployment takes; None: one takes any."""
        names: set[str] = set()
        for adapter in self._adapters:
            if adapter.option_names is None:
                return None
            names |= adapter.option_names
        return frozenset(names)

    @property
    def info(self) -> ModelInfo:
        """What is known of the model: of its first deployment, with the smallest window of all."""
        info = self._adapters[0].info
        return replace(info, context_window=self.context_window or info.context_window)

    @property
    def origin(self) -> tuple[str | None, str | None]:
        """The names of provider and model of the first deployment, as far as its client tells them."""
        return self._adapters[0].origin

    @property
    def context_window(self) -> int | None:
        """The smallest known context window of the deployments [tokens]; None where none is known."""
        return min((a.context_window for a in self._adapters if a.context_window is not None), default=None)

    def longest_answer(self, options: SamplingOptions, assumed: int) -> int:
        """Return how many tokens an answer may have that is asked for with these options.

        A deployment that does not say so counts as `assumed`.
        """
        return max(adapter.longest_answer(options) or assumed for adapter in self._adapters)

    @property
    def cache_identity(self) -> str:
        """What tells answers of this model from those of others: the identities of its deployments."""
        identities = [adapter.cache_identity for adapter in self._adapters]
        # Lengths, so that no identity can pretend to be two.
        return "".join(f"{len(identity)}:{identity}" for identity in identities) if any(identities) else ""

    @property
    def reads_context(self) -> ContextReads:
        """Which context variables of their caller the deployments read."""
        reads = [adapter.reads_context for adapter in self._adapters]
        if True in reads:
            return True
        known = [each for each in reads if not isinstance(each, bool)]
        return tuple(dict.fromkeys(variable for each in known for variable in each)) or False

    @property
    def rate_limits(self) -> RateLimits | None:
        """The newest rate limits that the provider of the first deployment announced in headers."""
        return self._adapters[0].rate_limits

    async def call(
        self,
        request: ModelRequest,
        *,
        on_text: OnText | None,
        asker: Asker,
        spending: Spending,
        caller: Caller | None = None,
    ) -> Completion:
        """Ask one deployment after the other until one answers.

        Args:
            request: what is asked.
            on_text: called with each piece of the answer; None: nobody listens.
            asker: is told what happens on the way to the answer.
            spending: counts what each call uses, however it ends.
            caller: on whose asyncio loop, and with whose context variables, a client runs.

        Raises:
            ModelError: no deployment answered. Of the retryable errors, the one that asks for the shortest
                wait; where none is retryable, the last error.
        """
        left = self._not_paused()
        errors: tuple[ModelError, ...] = ()
        while True:
            adapter, left = left[0], left[1:]
            failed: dict[ClientAdapter, ModelError] = {}  # with a hedge, two may fail at once
            try:
                delay = self._hedge_after()
                if delay < inf:
                    ask = partial(self._ask, request, caller, spending, failed=failed)
                    asks = partial(ask, adapter), partial(ask, left[0] if left else adapter)
                    return await self._hedged(asks, delay, on_text, asker)
                heard = on_text if adapter.streams else None
                with spending.call() as call:
                    completion = await adapter.call(request, on_text=heard, on_usage=call.seen, caller=caller)
                    call.answered(completion)
                    return completion
            except ModelError as error:
                if adapter not in failed:
                    self._failed(adapter, error, failed)
                errors += tuple(failed.values())
                left = tuple(each for each in left if each not in failed)
                if not left or (error.kind == "bad_request" and error.status in _REFUSED_BY_ALL):
                    break
                for number, each in enumerate(self._adapters, 1):
                    if each in failed:
                        asker.deployment_failed(number, failed[each])
            finally:
                failed.clear()  # an error would refer to itself: traceback, frame, dictionary
            asker.deployment_starts(streams=left[0].streams)
        try:
            raise _that_waits_least(errors)
        finally:
            del errors  # the one that is raised would refer to itself: traceback, frame, tuple

    async def _ask(
        self,
        request: ModelRequest,
        caller: Caller | None,
        spending: Spending,
        adapter: ClientAdapter,
        on_text: OnText | None,
        *,
        failed: dict[ClientAdapter, ModelError],
    ) -> Completion:
        """Make one of two calls. An error is noted in `failed`: it may not be the one that is raised."""
        heard = on_text if adapter.streams else None
        try:
            with spending.call() as call:
                completion = await adapter.call(request, on_text=heard, on_usage=call.seen, caller=caller)
                call.answered(completion)
                return completion
        except ModelError as error:
            self._failed(adapter, error, failed)
            raise

    def _failed(
        self, adapter: ClientAdapter, error: ModelError, failed: dict[ClientAdapter, ModelError]
    ) -> None:
        """Note the error of a deployment in `failed`, and leave it out for as long as the error asks for."""
        failed[adapter] = error
        if error.retry_after is not None:
            self._paused_until[adapter] = self._now() + min(error.retry_after, LONGEST_PAUSE)

    def _not_paused(self) -> tuple[ClientAdapter, ...]:
        """Return the deployments that are not paused, or all of them if all are."""
        if not self._paused_until:
            return self._adapters
        now = self._now()
        self._paused_until = {a: until for a, until in self._paused_until.items() if until > now}
        return tuple(a for a in self._adapters if a not in self._paused_until) or self._adapters

    def _hedge_after(self) -> float:
        return inf if self._hedge is None else self._hedge.delay(self._metrics.newest_response_times)

    async def _hedged(
        self,
        asks: tuple[Ask, Ask],
        delay: float,
        on_text: OnText | None,
        asker: Asker,
    ) -> Completion:
        """Make the first of these calls, and hedge it if it takes longer than `delay` seconds."""

        async def admit() -> AbstractContextManager[object] | None:
            permit = await asker.permit_hedge()
            if permit is not None:
                self._metrics.hedged()
            return permit

        call = HedgedCall(asks, delay, on_hedge=admit, on_text=on_text, on_void=asker.reasoning_is_void)
        completion = await call.run()
        self._metrics.hedges_won += call.hedge_won
        return completion

    async def aclose(self) -> None:
        """Close the clients that `connect` made; raise the last `ModelError` of those that fail to close."""
        failures: list[ModelError] = []

        async def close(adapter: ClientAdapter) -> None:
            try:
                await adapter.aclose()
            except ModelError as error:
                failures.append(error)

        # Side by side: one that hangs must not take the time of the others.
        async with trio.open_nursery(strict_exception_groups=True) as nursery:
            for adapter in self._adapters:
                nursery.start_soon(close, adapter)
        if failures:
            raise failures.pop()


def _that_waits_least(errors: Sequence[ModelError]) -> ModelError:
    """Return the retryable error that asks for the shortest wait; the last one, where none is retryable."""
    retryable = [error for error in errors if error.retryable]
    return min(retryable, key=lambda error: error.retry_after or 0.0, default=errors[-1])


def _all_known(found: Sequence[bool | None]) -> bool | None:
    """Return whether all are true: False if one is not; None if one is not known."""
    return False if False in found else None if None in found else True
