"""The rates, budgets and places of keys: taken before the work, and settled by what it came to."""

from __future__ import annotations

import datetime as dt
import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio
from msgspec import Struct

from ultra._support.log import get_logger
from ultra.service.problems import Problem
from ultra.service.uninterrupted import NoAnswer, uninterrupted
from ultra.stores.connections import keep_connected
from ultra.stores.contracts import GRANT_SECONDS, Decision, LimitsUnavailable, Want

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AsyncExitStack

    from ultra.config.keys import KeyConfig
    from ultra.service.access import Caller
    from ultra.service.costs import Cost
    from ultra.stores.contracts import SharedLimits

__all__ = ["Admission", "Limit", "Place", "Quotas"]

_REQUESTS: Final = "requests"
_TOKENS: Final = "tokens"
_RUNNING: Final = "running"
_DAY: Final = "day"
_MONTH: Final = "month"

_LIMITS: Final = {
    _REQUESTS: "requests_per_minute",
    _TOKENS: "tokens_per_minute",
    _DAY: "dollars_per_day",
    _MONTH: "dollars_per_month",
}
"""The settings of a key, by the word in the name of their limit."""

_log = get_logger("ultra.service")


class Place:
    """The place of a request among those that its key may make at once. `give_up` gives it to others."""

    def __init__(self, give_up: Callable[[], Awaitable[None]]) -> None:
        self._give_up = give_up
        self._is_moved = False

    async def leave(self) -> None:
        """Give the place up at the end of the request, unless it was moved."""
        if not self._is_moved:
            await self._give_up()

    def move_to(self, held: AsyncExitStack) -> None:
        """Keep the place until `held` is closed, also when the request is over."""
        self._is_moved = True
        held.push_async_callback(self._give_up)


class Admission(NamedTuple):
    """A request that was let in: headers that tell what is left, and its place, where these are limited."""

    headers: Mapping[str, str] = {}
    place: Place | None = None


class Limit(Struct, frozen=True, kw_only=True):
    """A limit of a key: of `most`, so much is `left`; all of it is there again in `reset` seconds."""

    name: str
    most: float
    left: float
    reset: float


class Quotas:
    """What the keys of one service may use, in a store of limits. `now`: seconds of Unix time."""

    def __init__(self, limits: SharedLimits, *, now: Callable[[], float] = time.time) -> None:
        self._limits = limits
        self._now = now
        self._open: dict[str, None] = {}
        self._unsettled: dict[str, Mapping[str, float]] = {}

    async def admit(self, caller: Caller, held: AsyncExitStack) -> Admission:
        """Take a request's place until `held` is closed; return it, and what is left.

        Raises:
            Problem: it is one too many, or a budget is spent.
        """
        key = caller.key
        if key is None:
            return Admission()
        wants = [
            *_rate(caller.name, _REQUESTS, key.requests_per_minute, 1.0),
            *_lease(caller.name, key.concurrency),
            *self._limits_of_runs(caller.name, key, tokens=0.0, dollars=0.0),
        ]
        if not wants:
            return Admission()
        decision = await self._take(wants)
        headers = _headers(key, caller.name, decision)
        if decision.grant is None:
            raise self._refusal(key, caller.name, decision, headers)
        place = Place(partial(self._settle, decision.grant, {}))
        held.push_async_callback(place.leave)
        return Admission(headers, place)

    async def reserve(self, caller: Caller, cost: Cost) -> str | None:
        """Take what a run may cost; return what `settle` needs, None if nothing limits it.

        Raises:
            Problem: the limits do not allow it.
        """
        key = caller.key
        if key is None:
            return None
        wants = self._limits_of_runs(caller.name, key, tokens=cost.tokens, dollars=cost.dollars)
        if not wants:
            return None
        decision = await self._take(wants)
        if decision.grant is None:
            raise self._refusal(key, caller.name, decision, _headers(key, caller.name, decision))
        return decision.grant

    async def settle(self, caller: Caller, grant: str, cost: Cost) -> None:
        """Let a run count for what it has cost. Nothing is raised, and it is not cancelled.

        If the store does not do it, within ten seconds, `keep` tries again.
        """
        names = {
            **{want.name: cost.tokens for want in _rate(caller.name, _TOKENS, 1, 0.0)},
            **{want.name: cost.dollars for want in self._budgets(caller.name, 1.0, 1.0, 0.0)},
        }
        # A run that began on the day before counts for that day, under whose name it was reserved.
        before = self._budgets(caller.name, 1.0, 1.0, 0.0, days_ago=1)
        names |= {want.name: cost.dollars for want in before}
        await self._settle(grant, names)

    async def left(self, caller: Caller) -> list[Limit]:
        """Return what limits a key, and what is left of each now; nothing is taken.

        Raises:
            Problem: the limits cannot be read.
        """
        key = caller.key
        if key is None:
            return []
        wants = [
            *_rate(caller.name, _REQUESTS, key.requests_per_minute, 0.0),
            *self._limits_of_runs(caller.name, key, tokens=0.0, dollars=0.0),
        ]
        if not wants:
            return []
        decision = await self._take(wants)
        if decision.grant is not None:
            await self._settle(decision.grant, {})
        return [
            Limit(
                name=_LIMITS[want.name.removeprefix(f"{caller.name}:").partition(":")[0]],
                most=want.most,
                left=max(0.0, decision.states[want.name].left),
                reset=decision.states[want.name].reset,
            )
            for want in wants
        ]

    async def keep(self) -> None:
        """Renew what is taken until this is cancelled, and settle what could not be settled."""
        while True:
            await anyio.sleep(GRANT_SECONDS / 3)
            try:
                for grant, used in tuple(self._unsettled.items()):
                    await self._limits.settle(grant, used)
                    self._forget(grant)
                if self._open:
                    await self._limits.renew(tuple(self._open))
            except LimitsUnavailable as error:
                _log.error("limits unavailable", error=str(error))

    async def keep_connected(self) -> None:
        """Keep the connections of the store, if it has any, until this is cancelled."""
        await keep_connected(self._limits)

    async def aclose(self) -> None:
        """Close the store."""
        await self._limits.aclose()

    async def _take(self, wants: list[Want]) -> Decision:
        decision = Decision()
        try:
            # Not cancelled half-way: nobody would know whether it was taken.
            with uninterrupted("taking from the limits"):
                decision = await self._limits.take(wants)
        except (LimitsUnavailable, NoAnswer) as error:
            _log.error("limits unavailable", error=str(error))
            text = "the limits of keys cannot be read now; ask again in a moment"
            raise Problem(503, "overloaded_error", "limits_unavailable", text, retry_after=5.0) from None
        if decision.grant is not None:
            self._open[decision.grant] = None
        return decision

    async def _settle(self, grant: str, used: Mapping[str, float]) -> None:
        try:
            with uninterrupted("settling with the limits"):
                await self._limits.settle(grant, used)
        except (LimitsUnavailable, NoAnswer) as error:
            _log.error("limits unavailable", error=str(error))
            self._unsettled[grant] = used
            return
        self._forget(grant)

    def _forget(self, grant: str) -> None:
        self._unsettled.pop(grant, None)
        self._open.pop(grant, None)

    def _limits_of_runs(self, name: str, key: KeyConfig, *, tokens: float, dollars: float) -> list[Want]:
        return [
            *_rate(name, _TOKENS, key.tokens_per_minute, tokens),
            *self._budgets(name, key.dollars_per_day, key.dollars_per_month, dollars),
        ]

    def _budgets(
        self, name: str, day: float | None, month: float | None, amount: float, *, days_ago: int = 0
    ) -> list[Want]:
        today = dt.datetime.fromtimestamp(self._now(), dt.UTC).date() - dt.timedelta(days=days_ago)
        first = today.replace(day=1)
        wants: list[Want] = []
        if day is not None:
            until = _timestamp(today + dt.timedelta(days=1))
            limit = f"{name}:{_DAY}:{today.isoformat()}"
            wants.append(Want(name=limit, kind="budget", most=day, amount=amount, until=until))
        if month is not None:
            until = _timestamp((first + dt.timedelta(days=32)).replace(day=1))
            limit = f"{name}:{_MONTH}:{first.isoformat()[:7]}"
            wants.append(Want(name=limit, kind="budget", most=month, amount=amount, until=until))
        return wants

    def _refusal(self, key: KeyConfig, name: str, decision: Decision, headers: dict[str, str]) -> Problem:
        kind = (decision.refused or "").removeprefix(f"{name}:").partition(":")[0]
        if kind in {_DAY, _MONTH}:
            dollars = key.dollars_per_day if kind == _DAY else key.dollars_per_month
            text = f"the budget of this key is used up: {dollars:g} dollars a {kind}, by the calendar of UTC"
            # All SDKs retry a 429 by themselves, but for this header.
            headers = {**headers, "x-should-retry": "false"}
            return Problem(429, "insufficient_quota", "insufficient_quota", text, headers=headers)
        words = {
            _REQUESTS: f"{key.requests_per_minute} requests a minute",
            _TOKENS: f"{key.tokens_per_minute} tokens a minute",
            _RUNNING: f"{key.concurrency} requests at once",
        }
        text = f"the rate limit of this key is reached: {words[kind]}"
        wait = max(decision.retry_after or 0.0, 0.001)
        return Problem(
            429, "rate_limit_error", "rate_limit_exceeded", text, retry_after=wait, headers=headers
        )


def _rate(name: str, what: str, most: int | None, amount: float) -> list[Want]:
    return [] if most is None else [Want(name=f"{name}:{what}", kind="rate", most=most, amount=amount)]


def _lease(name: str, most: int | None) -> list[Want]:
    return [] if most is None else [Want(name=f"{name}:{_RUNNING}", kind="lease", most=most)]


def _timestamp(day: dt.date) -> float:
    return dt.datetime.combine(day, dt.time(), dt.UTC).timestamp()


def _headers(key: KeyConfig, name: str, decision: Decision) -> dict[str, str]:
    """Return what is left of the rates, in OpenAI's headers."""
    headers: dict[str, str] = {}
    for what, most in ((_REQUESTS, key.requests_per_minute), (_TOKENS, key.tokens_per_minute)):
        state = decision.states.get(f"{name}:{what}")
        if most is not None and state is not None:
            headers[f"x-ratelimit-limit-{what}"] = str(most)
            headers[f"x-ratelimit-remaining-{what}"] = str(math.floor(state.left + 1e-6))
            headers[f"x-ratelimit-reset-{what}"] = _duration(state.reset)
    return headers


def _duration(seconds: float) -> str:
    """Return a time as OpenAI writes it: ``6m0s``, ``1.5s``, ``20ms``."""
    milliseconds = math.ceil(max(0.0, seconds) * 1000 - 1e-6)
    if milliseconds < 1000:  # noqa: PLR2004 - of a second
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return f"{minutes}m{text}s" if minutes else f"{text}s"
