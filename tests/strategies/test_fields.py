"""The strategy that merges structured answers field by field."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from helpers.event_loops import on_every_loop
from ultra import BadCall, MultiLLMOrchestrator, OrchestrationResult, Price, QuorumNotReached, Tool, Usage
from ultra.config import load_configuration
from ultra.errors import ModelError
from ultra.strategies import Fields, StrategySpec
from ultra.testing import FakeModel


class Line(msgspec.Struct):
    sku: str
    price: float


class Order(msgspec.Struct):
    paid: bool
    city: str
    currency: Literal["EUR", "USD"]
    lines: list[Line]


def order(*, paid: bool = True, city: str = "Rome", currency: str = "EUR", price: float = 2.5) -> str:
    return msgspec.json.encode(
        {"paid": paid, "city": city, "currency": currency, "lines": [{"sku": "A", "price": price}]}
    ).decode()


def orchestrator(*answers: Any, weights: tuple[float, ...] = ()) -> MultiLLMOrchestrator:
    made = MultiLLMOrchestrator(max_retries=0)
    for name, answer, weight in zip("abcdef", answers, weights or (1.0,) * len(answers), strict=False):
        model = answer if isinstance(answer, FakeModel) else FakeModel(answer)
        made.register_model(name, model, weight)
    return made


async def merged(made: MultiLLMOrchestrator, **options: Any) -> OrchestrationResult:
    return await made.process_responses("Extract.", output=Order, strategy=Fields(**options))


@on_every_loop
async def test_fields_are_merged_and_each_has_its_share() -> None:
    made = orchestrator(
        order(price=2.501),
        f"```json\n{order(paid=False)}\n```",
        order(currency="USD", city="rome"),
    )
    async with made.stream_responses("Extract.", output=Order, strategy="fields") as stream:
        events = [event async for event in stream]
        result = await stream.result()

    assert result.output == Order(paid=True, city="Rome", currency="EUR", lines=[Line("A", 2.5)])
    assert result.agreement == {
        "$.paid": pytest.approx(2 / 3),
        "$.city": 1.0,
        "$.currency": pytest.approx(2 / 3),
        "$.lines[0].sku": 1.0,
        "$.lines[0].price": 1.0,
    }
    assert (result.synthesis_source, result.status) == ("merged", "success")
    assert result.confidence == pytest.approx(13 / 15)
    assert result.confidence_basis == "votes"
    assert [step.name for step in result.steps] == ["initial"]
    assert result.final_synthesis is not None
    assert msgspec.json.decode(result.final_synthesis.content, type=Order) == result.output
    again = msgspec.json.decode(msgspec.json.encode(events[-1]), type=type(events[-1]))
    assert again.result.output == msgspec.to_builtins(result.output)  # type: ignore[union-attr]


async def test_the_order_in_which_models_are_registered_decides_nothing() -> None:
    answers = [order(), order(paid=False, city="Oslo"), order(paid=False, price=7.5)]
    first = await merged(orchestrator(*answers), threshold=0.0)
    second = await merged(orchestrator(*reversed(answers)), threshold=0.0)
    assert first.output == second.output
    assert first.agreement == second.agreement


async def test_the_judge_decides_only_what_is_disputed_in_one_request() -> None:
    def answer(city: str) -> FakeModel:
        return FakeModel(
            lambda request: (
                '{"$.city": "Bern", "$.paid": false}' if request.output is None else order(city=city)
            )
        )

    models = [answer(city) for city in ("Rome", "Oslo", "Bern")]
    result = await merged(orchestrator(*models))
    assert result.output == Order(paid=True, city="Bern", currency="EUR", lines=[Line("A", 2.5)])
    assert [step.name for step in result.steps] == ["initial", "judge"]
    assert result.agreement["$.city"] < 0.5
    (question,) = [call.prompt for model in models for call in model.calls if call.request.output is None]
    assert question.count('{"$.city":"') == 3
    assert "$.paid" not in question
    assert "Candidate A: <" in question


async def test_a_judge_is_named_and_must_be_one_of_the_models() -> None:
    models = [
        FakeModel(lambda request, city=city: '{"$.city": "Oslo"}' if not request.output else order(city=city))
        for city in ("Rome", "Oslo", "Bern")
    ]
    result = await merged(orchestrator(*models), judge="c")
    assert result.steps[1].responses[0].model_name == "c"
    assert result.output.city == "Oslo"
    with pytest.raises(BadCall, match="judge names 'z', which is none of the models"):
        await merged(orchestrator(*models), judge="z")


@pytest.mark.parametrize(
    "said", ["Paris, surely", '{"$.city": "Paris"}', '{"$.city": ', "[1]", '{"$.ci": "Oslo"}']
)
async def test_what_a_judge_says_beside_the_candidates_decides_nothing(said: str) -> None:
    models = [
        FakeModel(lambda request, city=city: said if request.output is None else order(city=city))
        for city in ("Rome", "Oslo", "Bern")
    ]
    result = await merged(orchestrator(*models, weights=(3.0, 1.0, 1.0)), threshold=0.9)
    assert result.output.city == "Rome"
    assert result.status == "success"


async def test_a_judge_that_fails_leaves_what_most_weight_stands_for_and_a_notice() -> None:
    models = [
        FakeModel(lambda request, city=city: RuntimeError("no") if not request.output else order(city=city))
        for city in ("Rome", "Oslo")
    ]
    result = await merged(orchestrator(*models, weights=(2.0, 1.0)), threshold=0.7)
    assert result.output.city == "Rome"
    assert any("no judge decided these disputed fields" in notice for notice in result.notices)


async def test_where_the_merged_value_does_not_satisfy_the_type_the_best_whole_answer_stands() -> None:
    class Range(msgspec.Struct):
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    made = orchestrator(
        '{"low": 1, "high": 2}', '{"low": 5, "high": 6}', '{"low": 5, "high": 5}', '{"low": 0, "high": 2}'
    )
    result = await made.process_responses("Q", output=Range, strategy=Fields(threshold=0.0))
    assert (result.output, result.synthesis_source) == (Range(1, 2), "selected")
    assert any("do not satisfy the schema" in notice for notice in result.notices)
    assert result.status == "degraded"


async def test_a_value_that_is_no_object_is_merged_too() -> None:
    made = orchestrator('{"answer": ["a", "b"]}', '["a"]', '["a", "b"]')
    result = await made.process_responses("Q", output=list[str], strategy="fields")
    assert result.output == ["a", "b"]
    assert result.agreement == {"$[0]": 1.0, "$[1]": pytest.approx(2 / 3)}


async def test_one_answer_stands_as_it_is() -> None:
    result = await merged(orchestrator(order(), "nonsense"))
    assert (result.output.city, result.synthesis_source, result.status) == ("Rome", "selected", "degraded")


async def test_samples_of_models_are_merged() -> None:
    made = orchestrator(FakeModel([order(city="Oslo"), order(), order()]))
    result = await made.process_responses("Q", output=Order, strategy="fields", samples=3)
    assert result.output.city == "Rome"


async def test_it_needs_an_output_and_says_so_before_any_call() -> None:
    model = FakeModel(order())
    with pytest.raises(BadCall, match="output="):
        await orchestrator(model).process_responses("Q", strategy="fields")
    assert not model.calls


@pytest.mark.parametrize(
    "options", [{"threshold": 2}, {"threshold": -0.1}, {"tolerance": 1.0}, {"key": 3}, {"judge": 3}]
)
def test_options_that_are_not_allowed_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadCall, match=next(iter(options))):
        Fields(**options)


async def test_it_has_its_name_and_options_in_code_and_in_the_configuration(tmp_path: Any) -> None:
    made = orchestrator(order(), order(city="Oslo"), order(city="Oslo"))
    spec = StrategySpec("fields", {"threshold": 0.0})
    result = await made.process_responses("Q", output=Order, strategy=spec)
    assert (result.strategy, result.output.city) == ("fields", "Oslo")
    path = tmp_path / "ultra.toml"
    path.write_text('[run]\nstrategy = "fields"\n\n[models.a]\nmodel = "ollama:m"\n')
    assert MultiLLMOrchestrator.from_config(load_configuration(path)) is not None


async def test_an_ensemble_may_merge_field_by_field_and_the_form_comes_with_the_question() -> None:
    made = orchestrator(order(), order(), order(city="Oslo"))
    council = made.add_ensemble("council", strategy="fields")
    result = await council.process_responses("Extract.", output=Order)
    assert result.output == Order(paid=True, city="Rome", currency="EUR", lines=[Line("A", 2.5)])
    with pytest.raises(BadCall, match="give their form with output="):
        await council.process_responses("Extract.")


async def test_a_budget_that_is_used_up_before_the_first_step_is_a_quorum_that_is_not_reached() -> None:
    failure = ModelError("no", kind="content", retryable=False, usage=Usage(input=1_000_000, output=0))
    made = MultiLLMOrchestrator(max_retries=0)
    for name in "ab":
        made.register_model(name, FakeModel(failure), price=Price(input=1.0, output=1.0))
    with pytest.raises(QuorumNotReached):
        await made.process_responses(
            "Extract.", output=Order, strategy=Fields(), tools=[Tool("f")], tool_policy="vote", max_cost=0.5
        )
