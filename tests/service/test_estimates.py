"""What a run may cost: at least what it costs, with every strategy, where all limits are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.panel_members import member, preferring
from ultra import MemoryCache, MultiLLMOrchestrator, Price, Usage
from ultra.messages.model_options import model_options_of
from ultra.messages.request import ModelRequest, SamplingOptions
from ultra.messages.tokens import estimate_request, estimate_tokens
from ultra.service.costs import Cost, Prices
from ultra.service.estimates import estimate
from ultra.strategies import (
    BestOf,
    Cascade,
    Debate,
    Fields,
    Layers,
    Rank,
    Route,
    SelfConsistency,
    Synthesize,
    Vote,
    strategy_names,
)
from ultra.strategies.one_model import OneModel
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT = "What is 2 + 2? Think about it, and say how you came to it."
SCHEMA = {"type": "object", "properties": {"sum": {"type": "string"}}, "required": ["sum"]}
LIMITS = {"a": 300, "b": 120, "c": 150, "d": 100}
PRICES = {"a": Price(input=1, output=9), "b": Price(input=7, output=2), "c": Price(input=3, output=3)}
STRATEGIES: dict[str, Any] = {
    "one model": OneModel(),
    "synthesize": Synthesize(),
    "synthesize by one analyst": Synthesize(analysts="one", answer_tokens=80),
    "synthesize alone": Synthesize(analysts="none"),
    "vote": Vote(rule="majority"),
    "vote at once": Vote(at_once=True),
    "self_consistency": SelfConsistency(samples=4),
    "best_of": BestOf(),
    "best_of by a judge": BestOf(judge="b"),
    "rank": Rank(),
    "rank and merge": Rank(top=3),
    "cascade": Cascade(),
    "cascade by grades": Cascade(quality=0.9, threshold=1.0),
    "layers": Layers(rounds=3),
    "debate": Debate(rounds=3),
    "debate with a judge": Debate(end="judge"),
    "route": Route(choose=lambda _: ["a", "b", "c"], strategy="debate"),
    "route by a model": Route(chooser="d", most=3, strategy="layers"),
    "route to one": Route(chooser="d"),
    "fields": Fields(threshold=1.0),
}


def filled(text: str, tokens: int) -> str:
    """Return a text of as many tokens as there may be."""
    while estimate_tokens(f"{text} well") <= tokens:
        text = f"{text} well"
    return text


def priced(name: str) -> Price:
    return PRICES.get(name, Price(input=2, output=4))


def writing(name: str, text: str) -> Callable[[ModelRequest], FakeAnswer]:
    """A model that writes as much as it may, and counts what it reads as Ultra does."""

    def answer(request: ModelRequest) -> FakeAnswer:
        limit = request.options.max_tokens or LIMITS[name]
        return FakeAnswer(text, usage=Usage(input=estimate_request(request), output=limit))

    return answer


def orchestrator_of(strategy: object, judge: str | None) -> tuple[MultiLLMOrchestrator, list[FakeModel]]:
    made = MultiLLMOrchestrator(max_retries=0, cache=MemoryCache(), judge=judge)
    fakes = []
    for number, (name, limit) in enumerate(LIMITS.items()):
        said = filled(f"The answer is {number}.", limit - 12)
        if isinstance(strategy, Fields):
            said = f'{{"sum": "{filled(str(number), limit - 30)}"}}'
        fakes.append(
            member(
                name,
                writing(name, said),
                improve=writing(name, said),
                revise=writing(name, said),
                merge=writing(name, said),
                rank=lambda request, name=name: writing(name, preferring()(request))(request),
                judge=lambda request, name=name: writing(name, "A: 5\nB: 4\nC: 3\nD: 2")(request),
                choose=writing(name, "a, b and c"),
            )
        )
        made.register_model(name, fakes[-1], price=priced(name))
    return made, fakes


def test_every_strategy_of_the_catalog_is_tried_here() -> None:
    assert {name.split()[0] for name in STRATEGIES} == {*strategy_names(), "one"}


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("judge", [None, "c"])
@pytest.mark.parametrize("name", STRATEGIES)
async def test_no_run_costs_more_than_its_estimate(name: str, judge: str | None, samples: int) -> None:
    strategy = STRATEGIES[name]
    made, fakes = orchestrator_of(strategy, judge)
    per_model = {model: {"max_tokens": limit} for model, limit in LIMITS.items()}
    arguments: dict[str, Any] = {"strategy": strategy, "per_model": per_model, "samples": samples}
    if name == "fields":
        arguments["output"] = SCHEMA
    prompt = estimate_request(ModelRequest.of(PROMPT)) + estimate_tokens(str(arguments.get("output", "")))
    panel = [fake.name for fake in fakes]
    bound = estimate(prompt, arguments, panel, Prices(priced, 1.0), longest=lambda *_: 300, judge=judge)
    result = await made.process_responses(PROMPT, use_cache=False, **arguments)
    assert result.cost is not None
    assert 0 < result.cost <= bound.dollars
    # It is no number that is right because it is huge.
    assert bound.dollars <= 4 * result.cost


def hundred(_: str, options: SamplingOptions) -> int:
    return options.max_tokens or 100


def cost_of(
    strategy: object,
    panel: str = "ab",
    longest: Callable[[str, SamplingOptions], int] = hundred,
    **arguments: Any,
) -> Cost:
    prices = Prices(lambda _: Price(input=0, output=1_000_000), 1.0)
    return estimate(50, {"strategy": strategy, **arguments}, [*panel], prices, longest=longest)


def test_a_limit_of_one_model_is_counted_for_that_model_alone() -> None:
    assert cost_of(BestOf()).dollars == 200
    assert cost_of(BestOf(), per_model={"a": {"max_tokens": 7}}).dollars == 107
    assert cost_of(BestOf(), options={"max_tokens": 30}).dollars == 60
    both = cost_of(
        BestOf(), options={"max_tokens": 30}, per_model=model_options_of({"b": {"max_tokens": 900}})
    )
    assert both.dollars == 930


def test_what_a_client_may_write_that_sets_its_limit_itself_is_counted() -> None:
    def claude(model: str, options: SamplingOptions) -> int:
        return options.max_tokens or (16_384 if options.show_reasoning else 4096) if model == "a" else 100

    shown = {"show_reasoning": True}
    assert cost_of(BestOf(), longest=claude).dollars == 4196
    assert cost_of(BestOf(), longest=claude, options=shown).dollars == 16_484
    assert cost_of(BestOf(), longest=claude, per_model={"a": shown}).dollars == 16_484
    assert cost_of(BestOf(), longest=claude, per_model={"b": shown}).dollars == 4196
    assert cost_of(BestOf(), longest=claude, options={**shown, "max_tokens": 30}).dollars == 60


def test_a_judge_counts_with_its_own_options_alone() -> None:
    def longest(_: str, options: SamplingOptions) -> int:
        return options.max_tokens or (1000 if options.show_reasoning else 10)

    def of(**arguments: Any) -> float:
        prices = Prices(lambda name: Price(input=0, output=1_000_000 if name == "j" else 0), 1.0)
        return estimate(50, arguments, ["a"], prices, longest=longest, judge="j").dollars

    assert of(options={"show_reasoning": True}) == 10
    assert of(per_model={"j": {"max_tokens": 7}}) == 7


def test_what_a_role_takes_is_counted() -> None:
    plain = cost_of(BestOf()).tokens
    role = "You look for what is wrong. " * 20
    assert cost_of(BestOf(), per_model={"a": {"role": role}}).tokens == plain + estimate_tokens(role)


def test_each_round_of_a_strategy_is_counted() -> None:
    assert cost_of(Layers(rounds=1)).dollars == 2 * 100 + 100
    assert cost_of(Layers(rounds=4)).dollars == 8 * 100 + 100
    assert cost_of(Debate(rounds=3)).dollars == 8 * 100 + 100
    assert cost_of(Rank()).dollars == 4 * 100
    assert cost_of(SelfConsistency(samples=5)).dollars == 5 * 100 + 100


def test_a_strategy_by_its_name_counts_as_that_strategy() -> None:
    assert cost_of("layers") == cost_of(Layers())


def test_a_limit_of_dollars_is_the_most_that_is_reserved() -> None:
    assert cost_of(Layers(), max_cost=3.0).dollars == 3.0
    assert cost_of(Layers(), panel="") == Cost()
