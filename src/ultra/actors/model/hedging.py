"""Hedged calls: a second call after a delay, the first answer wins, the other is cancelled.

After Dean and Barroso, "The Tail at Scale" (2013): a second call after the 95th percentile of response
times shortens the slowest answers a lot, for about five more calls in a hundred.
"""

from __future__ import annotations

from math import ceil, inf
from typing import TYPE_CHECKING, Final, Literal

import trio
from msgspec import Struct

from ultra._support.checks import check_seconds
from ultra.errors import BadCall, ModelError
from ultra.messages.reasoning import JoinedReasoning, ReasoningDelta

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from ultra.clients.adapter import OnText
    from ultra.messages.results import Completion

__all__ = ["Hedge", "HedgedCall", "percentile"]

_LEAST_SAMPLES: Final = 20
"""How many response times must be known before their percentile is used."""


class Hedge(Struct, frozen=True):
    """When a second call is made: `after` so many seconds, or after the 95th percentile of the model.

    With ``"p95"``, no call is hedged until twenty response times of the model are known.
    """

    after: float | Literal["p95"]

    def __post_init__(self) -> None:
        if self.after == "p95":
            return
        try:
            check_seconds("hedge after", self.after)
        except BadCall as error:
            raise BadCall(f"{error}, or 'p95'") from None

    def delay(self, response_times: Sequence[float]) -> float:
        """Return the seconds until the second call, by the newest response times; may be infinite."""
        if self.after != "p95":
            return self.after
        return percentile(response_times, 0.95) if len(response_times) >= _LEAST_SAMPLES else inf


def percentile(values: Sequence[float], share: float) -> float:
    """Return the lowest value that at least a `share` (0..1) of `values` does not exceed (nearest rank)."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


class HedgedCall:
    """One call that may become two.

    The call that gives text first, or an answer first, wins; the other is cancelled, and `run` waits for its
    end. If one fails, the answer of the other counts; if both fail, the error of the first is raised.

    Reasoning decides nothing. That of the call which thinks first is passed on as it comes, and that of the
    other waits; if that one wins, what was passed on is void, and its own follows.

    Args:
        calls: ways to make the call; the second, if there is one, is for the hedge.
        delay: seconds until the hedge.
        on_hedge: called before the second call, which is made inside the context manager that it returns;
            if it returns None, there is no second call.
        on_text: called with the text of the winner, and with reasoning.
        on_void: called when the reasoning so far is void.
    """

    def __init__(
        self,
        calls: tuple[Callable[[OnText | None], Awaitable[Completion]], ...],
        delay: float,
        *,
        on_hedge: Callable[[], Awaitable[AbstractContextManager[object] | None]],
        on_text: OnText | None = None,
        on_void: Callable[[], None] = lambda: None,
    ) -> None:
        self._calls = calls
        self._delay = delay
        self._on_hedge = on_hedge
        self._on_text = on_text
        self._on_void = on_void
        self._thinks: int | None = None  # whose reasoning is passed on
        self._waiting = JoinedReasoning()  # that of the other one
        self._scopes = (trio.CancelScope(), trio.CancelScope())
        self._winner: int | None = None
        self._completion: Completion | None = None
        self._errors: dict[int, ModelError] = {}
        self._first_settled = trio.Event()
        self._is_hedged = False  # whether the second call is made
        self.hedge_won = False

    async def run(self) -> Completion:
        """Make the call; raise `ModelError`. Cancelling this cancels both calls."""
        try:
            async with trio.open_nursery(strict_exception_groups=True) as nursery:
                nursery.start_soon(self._make_first)
                nursery.start_soon(self._make_later)
        except ExceptionGroup as group:
            if len(group.exceptions) != 1:
                raise
            raise group.exceptions[0] from None  # a client that has broken down, as without a hedge
        if self._completion is None:
            raise self._errors.pop(0, None) or self._errors.pop(1)
        self.hedge_won = self._winner == 1
        return self._completion

    async def _make_first(self) -> None:
        with self._scopes[0]:
            await self._make(0)

    async def _make_later(self) -> None:
        with trio.move_on_after(self._delay):
            # After an answer no hedge is needed. After a failure the retry policy decides.
            await self._first_settled.wait()
            return
        with self._scopes[1]:  # the permission may take a while, if other processes have to be asked
            if self._first_settled.is_set() or (permit := await self._on_hedge()) is None:
                return
            with permit:
                self._is_hedged = True
                await self._make(1)

    async def _make(self, number: int) -> None:
        def hear(text: str) -> None:
            # A sign of life moves the timeouts, but does not decide who answers.
            counts = self._wins(number) if text else self._winner in {None, number}
            if not counts or self._on_text is None:
                return
            if not text and isinstance(text, ReasoningDelta) and not self._passes_on(number, text):
                text = ""
            self._on_text(text)

        try:
            completion = await self._calls[min(number, len(self._calls) - 1)](
                hear if self._on_text is not None else None
            )
        except ModelError as error:
            self._failed(number, error)
        else:
            if self._wins(number):
                self._completion = completion

    def _wins(self, number: int) -> bool:
        """Return whether this call has won; the first one that asks wins, and the other is cancelled."""
        if self._winner is None:
            self._winner = number
            self._first_settled.set()
            self._scopes[1 - number].cancel()
            self._let_think(number)
        return self._winner == number

    def _failed(self, number: int, error: ModelError) -> None:
        self._errors[number] = error
        self._first_settled.set()
        if not self._is_hedged:
            self._scopes[1].cancel()
        if self._winner is None and self._thinks == number:
            self._let_think(1 - number)

    def _passes_on(self, number: int, delta: ReasoningDelta) -> bool:
        """Return whether this call's reasoning is passed on now; if not, keep it."""
        if self._thinks is None:
            self._thinks = number
        if self._thinks != number:
            self._waiting.add(delta.part)
        return self._thinks == number

    def _let_think(self, number: int) -> None:
        """Pass on the reasoning of this call from now on; that of the other one is void."""
        before, self._thinks = self._thinks, number
        if before == 1 - number and self._on_text is not None:
            self._on_void()
            for part in self._waiting.parts():
                self._on_text(ReasoningDelta.of(part))
