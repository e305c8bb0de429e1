"""What a run has cost so far: tokens and dollars of all its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ultra.clients.pricing import Price
from ultra.errors import DeadlineExceeded
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    ReasoningChunk,
    RunCompleted,
    call_of,
)
from ultra.messages.results import ModelFailure, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from ultra.messages.events import CallKey, Event

__all__ = ["Cost", "CostAccount", "Prices"]


_TOO_LATE: Final = DeadlineExceeded.__name__

_LETTERS: Final = 4
"""Characters of a token, by the usual rule of thumb."""


class Cost(NamedTuple):
    """Tokens of prompts and answers together, and dollars."""

    tokens: float = 0.0
    dollars: float = 0.0

    def plus(self, other: Cost) -> Cost:
        """Return both together."""
        return Cost(self.tokens + other.tokens, self.dollars + other.dollars)


class Prices:
    """The prices of models by name; a model without one counts as `assumed` dollars for a million tokens."""

    def __init__(self, find: Callable[[str], Price | None], assumed: float) -> None:
        self._find = find
        self._assumed = Price(input=assumed, output=assumed)

    def of(self, model: str) -> Price:
        """Return the price of a model."""
        return self._find(model) or self._assumed

    def cost(self, model: str, usage: Usage | None, dollars: float | None = None) -> Cost:
        """Return what calls of a model cost; `dollars` is what is known of that."""
        if usage is None:
            return Cost(0.0, dollars or 0.0)
        return Cost(usage.total, self.of(model).of(usage) if dollars is None else dollars)


class CostAccount:
    """Follows the events of one run, and says what it has cost so far.

    `prompt` are about the tokens of the request: a call that is cut off has used at least these, and the text
    and the reasoning that had come. `unseen`: that no text is told before an answer is whole; then an answer
    that is cut off is taken to have as many tokens as this says of its model, since nobody knows how far it
    was written. None: texts are told.
    """

    def __init__(self, prices: Prices, prompt: int, *, unseen: Callable[[str], int] | None = None) -> None:
        self._prices = prices
        self._prompt = prompt
        self._unseen = unseen
        self._ended = Cost()
        self._open: dict[CallKey, Cost] = {}
        self._texts: dict[CallKey, int] = {}
        self._whole: Cost | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the result of the run was seen."""
        return self._whole is not None

    def take(self, event: Event) -> None:
        """Note what an event tells."""
        match event:
            case ModelStarted():
                self._open[call_of(event)] = Cost()
            case Chunk() | ReasoningChunk():
                call = call_of(event)
                self._texts[call] = self._texts.get(call, 0) + len(event.text)
            case ModelRetrying():
                call = call_of(event)
                self._open[call] = self._prices.cost(event.model_name, event.usage, event.cost)
                self._texts.pop(call, None)
            case ModelResponded():
                self._close(call_of(event))
                answer = event.response
                if not answer.cached:
                    usage = answer.usage.plus(answer.lost_usage)
                    self._add(self._prices.cost(event.model_name, usage, answer.cost))
            case ModelFailed():
                call, failure = call_of(event), event.failure
                is_cut = failure.usage is None and (call in self._texts or self._is_cut_unseen(failure))
                cut = self._cut_off(call) if is_cut else Cost()
                self._close(call)
                self._add(self._prices.cost(event.model_name, failure.usage, failure.cost).plus(cut))
            case RunCompleted():
                # The judge's grades are in this sum, and in no event.
                self._whole = Cost(self._ended.tokens, max(event.result.cost or 0.0, self._ended.dollars))
            case _:
                pass

    def so_far(self) -> Cost:
        """Return what the run has cost."""
        if self._whole is not None:
            return self._whole
        total = self._ended
        for call, before in self._open.items():
            total = total.plus(before).plus(self._cut_off(call))
        return total

    def _cut_off(self, call: CallKey) -> Cost:
        """Return what a call has cost that nobody has counted."""
        model = call[2]
        output = self._texts.get(call, 0) // _LETTERS if self._unseen is None else self._unseen(model)
        return self._prices.cost(model, Usage(input=self._prompt, output=output))

    def _is_cut_unseen(self, failure: ModelFailure) -> bool:
        """Return whether an answer of which nothing was told was given up while it may have been written."""
        return self._unseen is not None and (failure.kind == "timeout" or failure.error == _TOO_LATE)

    def _close(self, call: CallKey) -> None:
        self._open.pop(call, None)
        self._texts.pop(call, None)

    def _add(self, cost: Cost) -> None:
        self._ended = self._ended.plus(cost)
