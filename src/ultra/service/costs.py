"""What a run may cost, before it begins, and what it has cost: tokens and dollars of all its calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ultra.clients.pricing import Price
from ultra.messages.events import (
    Chunk,
    ModelFailed,
    ModelResponded,
    ModelRetrying,
    ModelStarted,
    RunCompleted,
)
from ultra.messages.results import Usage
from ultra.service.ledger import call_of
from ultra.service.targets import OneModel
from ultra.strategies.synthesize import Synthesize

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ultra.messages.events import Event
    from ultra.service.ledger import Call

__all__ = ["Cost", "CostAccount", "Prices", "estimate"]


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


def estimate(
    prompt: int, arguments: Mapping[str, Any], panel: Sequence[str], prices: Prices, assumed_tokens: int
) -> Cost:
    """Return what a run may cost, rather too much than too little; `prompt` are the tokens of the request.

    It counts one answer of each model and sample, and those who read the answers: in the way of the strategy
    `synthesize`, or else one judge, as often as the strategy has rounds.
    """
    strategy = arguments.get("strategy")
    options = arguments.get("options") or {}
    limit = options.get("max_tokens") if isinstance(options, dict) else options.max_tokens
    answer = limit or assumed_tokens
    calls: list[tuple[str, int, int]] = []
    samples = arguments.get("samples") or 1
    rounds = max(1, int(getattr(strategy, "rounds", 1) or 1))
    answers = len(panel) * samples * answer
    for number in range(rounds):
        calls += [(model, prompt + (answers if number else 0), answer) for model in panel] * samples
    if not isinstance(strategy, OneModel) and panel:
        calls += _readers(strategy, arguments, panel, prompt + answers, answer)
    costs = [prices.cost(model, Usage(input=read, output=written)) for model, read, written in calls]
    total = Cost(sum(cost.tokens for cost in costs), sum(cost.dollars for cost in costs))
    most = arguments.get("max_cost")
    return total if most is None else Cost(total.tokens, min(total.dollars, most))


def _readers(
    strategy: object, arguments: Mapping[str, Any], panel: Sequence[str], read: int, answer: int
) -> list[tuple[str, int, int]]:
    """Return the calls that read all answers: model, tokens of the prompt, tokens of the answer."""
    if strategy is not None and not isinstance(strategy, Synthesize):
        return [(model, read, answer) for model in panel[:1]]
    stages = arguments.get("stages") or (strategy.stages if strategy is not None else None)
    analysts = strategy.analysts if strategy is not None else "all"
    several = stages is None or any(str(getattr(stage, "name", stage)) == "meta" for stage in stages)
    readers = list(panel) if analysts == "all" else list(panel[:1]) if analysts == "one" else []
    calls = [(model, read, answer) for model in readers] if several else []
    written = (strategy.answer_tokens if strategy is not None else None) or answer
    writer = (strategy.writer if strategy is not None else None) or panel[0]
    return [*calls, (writer, read + len(calls) * answer, written)]


class CostAccount:
    """Follows the events of one run, and says what it has cost so far.

    `prompt` are about the tokens of the request: a call that is cut off has used at least these, and the text
    that had come.
    """

    def __init__(self, prices: Prices, prompt: int) -> None:
        self._prices = prices
        self._prompt = prompt
        self._ended = Cost()
        self._open: dict[Call, Cost] = {}
        self._texts: dict[Call, int] = {}
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
            case Chunk():
                call = call_of(event)
                self._texts[call] = self._texts.get(call, 0) + len(event.text)
            case ModelRetrying():
                call = (event.stage, event.round, event.model_name, event.sample)
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
                cut = self._cut_off(call) if call in self._texts and failure.usage is None else Cost()
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

    def _cut_off(self, call: Call) -> Cost:
        """Return what a call has cost that nobody has counted."""
        usage = Usage(input=self._prompt, output=self._texts.get(call, 0) // _LETTERS)
        return self._prices.cost(call[2], usage)

    def _close(self, call: Call) -> None:
        self._open.pop(call, None)
        self._texts.pop(call, None)

    def _add(self, cost: Cost) -> None:
        self._ended = self._ended.plus(cost)
