"""What a run may cost, before it begins: the calls that its strategy makes at most, each with its limit.

It is an upper bound where every model has a limit of tokens (``max_tokens``, for all, in `per_model`, or of
its client), and nothing fails: what retries and answers in place of failed ones cost, nobody knows
beforehand. A model without a limit is taken to write as much as the service assumes. A strategy of somebody
else's counts as all models in each of its `rounds`, and one that reads the answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ultra.messages.model_options import model_options_of
from ultra.messages.request import SamplingOptions
from ultra.messages.results import Usage
from ultra.messages.tokens import estimate_tokens
from ultra.service.costs import Cost
from ultra.strategies.best_of import BestOf
from ultra.strategies.cascade import Cascade
from ultra.strategies.catalog import make_strategy
from ultra.strategies.debate import Debate
from ultra.strategies.fields import Fields
from ultra.strategies.layers import Layers
from ultra.strategies.one_model import OneModel
from ultra.strategies.rank import Rank
from ultra.strategies.route import Route
from ultra.strategies.self_consistency import SelfConsistency
from ultra.strategies.synthesize import Synthesize
from ultra.strategies.vote import Vote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ultra.service.costs import Prices

__all__ = ["estimate"]

_TASK: Final = 250
"""Tokens of what a model is told to do with the answers that it reads."""
_FENCE: Final = 30
"""Tokens around each answer that is read: its label, and the marks where it begins and ends."""


def estimate(
    prompt: int,
    arguments: Mapping[str, Any],
    panel: Sequence[str],
    prices: Prices,
    *,
    longest: Callable[[str, SamplingOptions], int],
    judge: str | None = None,
) -> Cost:
    """Return what a run may cost, rather too much than too little.

    `prompt` are the tokens of the request, `arguments` those of `process_responses`, `panel` its models, and
    `judge` the orchestrator's. `longest` returns how many tokens a model may write with these options.
    """
    plan = _Plan(prompt, arguments, prices, longest, judge)
    strategy = arguments.get("strategy")
    total = plan.of(Synthesize() if strategy is None else make_strategy(strategy), panel)
    most = arguments.get("max_cost")
    return total if most is None else Cost(total.tokens, min(total.dollars, most))


class _Read(NamedTuple):
    """Answers that are read: how many, and their tokens together."""

    answers: int = 0
    tokens: int = 0

    def plus(self, other: _Read) -> _Read:
        return _Read(self.answers + other.answers, self.tokens + other.tokens)


class _Plan:
    """The calls of one run."""

    def __init__(
        self,
        prompt: int,
        arguments: Mapping[str, Any],
        prices: Prices,
        longest: Callable[[str, SamplingOptions], int],
        judge: str | None,
    ) -> None:
        self._options = SamplingOptions.of(arguments.get("options"))
        self._own = model_options_of(arguments.get("per_model") or {})
        self._prompt = prompt
        self._longest = longest
        self._prices = prices
        self._judge = judge
        self._stages = arguments.get("stages")
        self.samples: int = arguments.get("samples") or 1

    def of(self, strategy: object, panel: Sequence[str]) -> Cost:
        """Return the cost of a strategy over these models."""
        if not panel:
            return Cost()
        if isinstance(strategy, OneModel):
            return self.answers(panel[:1], samples=1)
        for kind, count in _KINDS.items():
            if isinstance(strategy, kind):
                return count(self, strategy, panel)
        rounds = max(1, int(getattr(strategy, "rounds", 1) or 1))
        read = self.read(panel)
        return _sum(
            self.answers(panel),
            *(self.reading(panel, read, samples=self.samples) for _ in range(rounds - 1)),
            self.reader(panel, read),
        )

    # --- steps -----------------------------------------------------------------------------------------

    def limit(self, model: str, given: int | None = None) -> int:
        """Return the tokens that a model may write; `given` is a limit of the strategy's own."""
        own = self._own[model].sampling.max_tokens if model in self._own else None
        return own or given or self._options.max_tokens or self._unlimited(model, self._options)

    def _unlimited(self, model: str, options: SamplingOptions) -> int:
        return self._longest(model, self._own[model].over(options) if model in self._own else options)

    def read(self, models: Iterable[str], samples: int | None = None) -> _Read:
        """Return what those read who read the answers of these models."""
        times = self.samples if samples is None else samples
        tokens = [self.limit(model) for model in models]
        return _Read(len(tokens) * times, sum(tokens) * times)

    def answers(self, models: Iterable[str], samples: int | None = None) -> Cost:
        """Return the cost of these models' answers to the question."""
        times = self.samples if samples is None else samples
        return _sum(
            *(
                self._call(model, self._prompt + self._role(model), self.limit(model), times)
                for model in models
            )
        )

    def reading(
        self, models: Iterable[str], read: _Read, *, samples: int = 1, given: int | None = None
    ) -> Cost:
        """Return the cost of these models, each of which reads the answers and writes."""
        tokens = self._prompt + _TASK + read.tokens + read.answers * _FENCE
        return _sum(*(self._call(model, tokens, self.limit(model, given), samples) for model in models))

    def reader(self, models: Sequence[str], read: _Read, *, given: int | None = None) -> Cost:
        """Return the cost of the one who reads the answers, whoever of these models that is."""
        return self.dearest(models, lambda model: self.reading([model], read, given=given))

    def judged(self, read: _Read) -> Cost:
        """Return the cost of the grades of the orchestrator's judge, if there is one."""
        return (
            Cost() if self._judge is None else self._free([self._judge], read.tokens + read.answers * _FENCE)
        )

    def dearest(self, models: Sequence[str], cost: Callable[[str], Cost]) -> Cost:
        """Return the highest of these costs."""
        found = [cost(model) for model in models]
        return Cost(max(each.tokens for each in found), max(each.dollars for each in found))

    def choice(self, chooser: str, panel: Sequence[str], about: Mapping[str, str]) -> Cost:
        """Return the cost of a model that chooses among these."""
        listed = sum(estimate_tokens(f"- {name}: {about.get(name, '')}") for name in panel)
        return self._free([chooser], listed + _FENCE * len(panel))

    def _free(self, models: Iterable[str], read: int) -> Cost:
        """Return the cost of calls to which the limit of the request does not apply."""
        tokens = self._prompt + _TASK + read
        no_options = SamplingOptions()
        return _sum(*(self._call(model, tokens, self._unlimited(model, no_options), 1) for model in models))

    def stages_of(self, strategy: Synthesize) -> Sequence[object]:
        """Return the stages of a run with this strategy."""
        return self._stages or strategy.stages or ("initial", "meta", "synthesis")

    def _role(self, model: str) -> int:
        role = self._own[model].role if model in self._own else None
        return estimate_tokens(role) if role else 0

    def _call(self, model: str, read: int, written: int, times: int) -> Cost:
        # All of a prompt may be written into the provider's cache, which may cost more.
        cost = self._prices.cost(model, Usage(input=read, written=read, output=written))
        return Cost(cost.tokens * times, cost.dollars * times)


def _synthesize(plan: _Plan, strategy: Synthesize, panel: Sequence[str]) -> Cost:
    chosen = [name for name in panel if strategy.panel is None or name in strategy.panel] or list(panel)
    total, read = Cost(), plan.read(chosen)
    for stage in plan.stages_of(strategy):
        name = str(getattr(stage, "name", stage))
        if name == "initial":
            total = _sum(total, plan.answers(chosen), plan.judged(read))
        elif name == "meta":
            if strategy.analysts == "all":
                total = _sum(total, plan.reading(chosen, read, samples=plan.samples))
                read = read.plus(plan.read(chosen))
            elif strategy.analysts == "one":
                total = _sum(total, plan.reader(panel, read))
                read = read.plus(_Read(1, max(map(plan.limit, panel))))
        elif name == "synthesis":
            longest = strategy.answer_tokens or max(map(plan.limit, panel))
            total = _sum(total, plan.reader(panel, read, given=strategy.answer_tokens))
            if strategy.on_cut != "tell":  # it is written again, or goes on behind what was cut off
                total = _sum(total, plan.reader(panel, read.plus(_Read(1, longest)), given=longest))
        elif getattr(stage, "asks", "all") == "all":
            total = _sum(total, plan.reading(chosen, read, samples=plan.samples))
            read = read.plus(plan.read(chosen))
        else:
            total = _sum(total, plan.reader(panel, read))
            read = read.plus(_Read(1, max(map(plan.limit, panel))))
    return total


def _vote(plan: _Plan, _: Vote, panel: Sequence[str]) -> Cost:
    return _sum(plan.answers(panel), plan.reader(panel, plan.read(panel)))


def _self_consistency(plan: _Plan, strategy: SelfConsistency, panel: Sequence[str]) -> Cost:
    samples = plan.samples if plan.samples > 1 else strategy.samples
    models = [name for name in panel if strategy.model in {None, name}] or panel
    return plan.dearest(
        models,
        lambda model: _sum(
            plan.answers([model], samples), plan.reading([model], plan.read([model], samples))
        ),
    )


def _best_of(plan: _Plan, strategy: BestOf, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    graded = plan.judged(read) if strategy.judge is None else plan.reading([strategy.judge], read)
    return _sum(plan.answers(panel), graded)


def _rank(plan: _Plan, strategy: Rank, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    rankers = [name for name in panel if strategy.rankers is None or name in strategy.rankers]
    merged = plan.reader(panel, read) if strategy.top > 1 else Cost()
    return _sum(plan.answers(panel), plan.reading(rankers, read), merged)


def _cascade(plan: _Plan, strategy: Cascade, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    graded = Cost()
    if strategy.quality is not None and strategy.test is None:
        # Each level is graded by itself, and the first is the longest.
        levels = 1 + max(0, len(panel) - strategy.first)
        graded = _sum(*(plan.judged(read) for _ in range(levels)))
    return _sum(plan.answers(panel), graded, plan.reader(panel, read))


def _layers(plan: _Plan, strategy: Layers, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    layer = plan.reading(panel, read, samples=plan.samples)
    return _sum(plan.answers(panel), *(layer for _ in range(strategy.rounds - 1)), plan.reader(panel, read))


def _debate(plan: _Plan, strategy: Debate, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    revised = plan.reading(panel, read, samples=plan.samples)
    return _sum(plan.answers(panel), *(revised for _ in range(strategy.rounds)), plan.reader(panel, read))


def _route(plan: _Plan, strategy: Route, panel: Sequence[str]) -> Cost:
    others = [name for name in panel if name != strategy.chooser] or list(panel)
    choice = Cost() if strategy.chooser is None else plan.choice(strategy.chooser, others, strategy.about)
    alone = plan.dearest(others, lambda model: plan.answers([model], 1))
    if strategy.chooser is not None and strategy.most == 1:
        return _sum(choice, alone)
    together = plan.of(make_strategy(strategy.strategy, strategy.options), others)
    return _sum(choice, Cost(max(alone.tokens, together.tokens), max(alone.dollars, together.dollars)))


def _fields(plan: _Plan, _: Fields, panel: Sequence[str]) -> Cost:
    read = plan.read(panel)
    return _sum(plan.answers(panel), plan.judged(read), plan.reader(panel, read))


_KINDS: Final[dict[type, Callable[[_Plan, Any, Sequence[str]], Cost]]] = {
    Synthesize: _synthesize,
    Vote: _vote,
    SelfConsistency: _self_consistency,
    BestOf: _best_of,
    Rank: _rank,
    Cascade: _cascade,
    Layers: _layers,
    Debate: _debate,
    Route: _route,
    Fields: _fields,
}


def _sum(*costs: Cost) -> Cost:
    return Cost(sum(cost.tokens for cost in costs), sum(cost.dollars for cost in costs))
