"""Routing: a function or a model chooses who is asked, and what becomes of a bad choice."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.coordinator_runs import by_weight, failing, run
from helpers.panel_members import member
from ultra import BadCall, MultiLLMOrchestrator, OrchestrationResult, StageFailed
from ultra.errors import ModelError
from ultra.strategies import Route
from ultra.testing import FakeModel


async def routed(strategy: Route, *fakes: FakeModel, **fields: Any) -> OrchestrationResult:
    return await run(by_weight(zip(fakes, (3.0, 2.0, 1.0, 0.5), strict=False)), strategy=strategy, **fields)


def panel(**tasks: Any) -> list[FakeModel]:
    return [member("a", "1"), member("b", "2"), member("c", "2"), member("d", "9", **tasks)]


async def test_a_function_of_the_question_chooses_one() -> None:
    fakes = panel()
    result = await routed(Route(choose=lambda question: {"Q": "b"}[question]), *fakes)
    assert (str(result.final_synthesis), result.synthesis_source, result.status) == (
        "2",
        "primary",
        "success",
    )
    assert [len(fake.calls) for fake in fakes] == [0, 1, 0, 0]


async def test_or_several_which_another_strategy_asks() -> None:
    fakes = panel()
    result = await routed(Route(choose=lambda _: ("b", "c"), options={"at_once": True}), *fakes)
    assert (str(result.final_synthesis), result.confidence) == ("2", 1.0)
    assert [len(fake.calls) for fake in fakes] == [0, 1, 1, 0]


async def test_a_cheap_model_chooses_among_the_others() -> None:
    fakes = panel(choose="The best one is b.")
    about = {"b": "mathematics"}
    result = await routed(Route(chooser="d", about=about), *fakes)
    assert (str(result.final_synthesis), result.status) == ("2", "success")
    assert "- b: mathematics" in fakes[3].calls[0].prompt
    assert [step.name for step in result.steps] == ["route", "initial"]
    assert result.notices == ["chosen: 'b'"]
    result = await routed(Route(chooser="d", most=2), *panel(choose="c, b, a"))
    assert [response.model_name for response in result.steps[1].responses] == ["b", "c"]


@pytest.mark.parametrize("said", ["nobody of them", "", ModelError("down", kind="bad_request")])
async def test_where_it_names_nobody_the_heaviest_are_asked_and_it_is_told(said: Any) -> None:
    result = await routed(Route(chooser="d"), *panel(choose=said))
    assert (str(result.final_synthesis), result.status) == ("1", "degraded")
    assert "'d' named none of the models; the heaviest are asked" in result.notices


async def test_where_the_chosen_one_fails_the_others_stand_in() -> None:
    result = await routed(Route(choose=lambda _: "b"), member("a", "1"), failing("b"), member("c", "3"))
    assert (str(result.final_synthesis), result.synthesis_source, result.status) == (
        "1",
        "fallback",
        "degraded",
    )


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ("LLAMA", ["Llama"]),
        ("I choose llama-3 and Llama.", ["llama-3", "Llama"]),
        ("GPT or Gpt?", ["GPT"]),
        ("A good one is gpt.", ["gpt"]),
    ],
)
async def test_a_name_in_other_letters_is_understood_where_it_is_clear(said: str, asked: list[str]) -> None:
    names = ["Llama", "llama-3", "gpt", "GPT", "a"]
    fakes = [*(member(name, "4") for name in names), member("c", "5", choose=said)]
    weights = (1.0, 1.0, 1.0, 1.0, 1.0, 0.1)
    result = await run(
        by_weight(zip(fakes, weights, strict=True)),
        strategy=Route(chooser="c", most=2, options={"at_once": True}),
    )
    answered = [fake.name for fake in fakes if any(call.prompt == "Q" for call in fake.calls)]
    assert set(answered) == set(asked)
    assert str(result.final_synthesis) == "4"


@pytest.mark.parametrize("given", ["zz", (), 3, ["a", 3], [None], ["a", None]])
async def test_a_function_that_names_no_model_is_the_callers_error(given: Any) -> None:
    with pytest.raises(StageFailed, match="the choice of stage 'route' failed"):
        await routed(Route(choose=lambda _: given), *panel())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "route needs one of choose=.*and chooser="),
        ({"choose": len, "chooser": "a"}, "route needs one of choose=.*and chooser="),
        ({"choose": 3}, "choose is 3; it must be a function"),
        ({"chooser": "a", "most": 0}, "most is 0"),
        ({"chooser": "a", "about": {"b": 3}}, "about is .*a mapping from models to what they are good at"),
        ({"chooser": "a", "strategy": "route"}, "the strategy of route is 'route'"),
        ({"chooser": "a", "strategy": "vot"}, "unknown strategy 'vot'"),
        ({"chooser": "a", "options": {"rounds": 1}}, "strategy 'vote' has no option 'rounds'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        Route(**options)


async def test_unknown_names_are_refused_before_any_call() -> None:
    orchestrator = MultiLLMOrchestrator()
    fakes = panel()
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    for strategy in (
        Route(chooser="zz"),
        Route(chooser="a", about={"zz": "x"}),
        Route(chooser="a", options={"judge": "zz"}),
    ):
        with pytest.raises(BadCall, match="names 'zz'"):
            await orchestrator.process_responses("Q", strategy=strategy)
    assert [len(fake.calls) for fake in fakes] == [0, 0, 0, 0]


async def test_the_reply_of_the_chooser_is_no_vote_on_the_answer() -> None:
    result = await routed(Route(chooser="d"), *panel(choose="b"))
    assert (str(result.final_synthesis), result.confidence, result.confidence_basis) == ("2", 1.0, "votes")
