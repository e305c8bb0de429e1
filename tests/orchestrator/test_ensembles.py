"""Ensembles of an orchestrator: models and settings under one name."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.event_loops import on_asyncio
from ultra import BadCall, ModelError, MultiLLMOrchestrator, RetryPolicy, Synthesize
from ultra.testing import FakeModel


def made(**models: FakeModel) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(cache_enabled=False, retry=RetryPolicy(max_retries=0))
    for number, (name, model) in enumerate(models.items()):
        orchestrator.register_model(name, model, float(len(models) - number))
    return orchestrator


async def test_an_ensemble_asks_its_models_in_its_way() -> None:
    a, b, c = FakeModel("Paris."), FakeModel("Lyon."), FakeModel("Rome.")
    orchestrator = made(a=a, b=b, c=c)
    orchestrator.add_ensemble("pair", models=["c", "b"], strategy="best_of")

    async with orchestrator:
        result = await orchestrator.ensemble("pair").process_responses("Which city?")

    assert result.strategy == "best_of"
    assert list(result.initial_responses) == ["b", "c"]
    assert a.calls == []


@on_asyncio
async def test_an_ensemble_is_asked_on_asyncio_too() -> None:
    orchestrator = made(a=FakeModel("Paris."), b=FakeModel("Lyon."))
    ensemble = orchestrator.add_ensemble("one", models=["b"], stages=["initial"])

    async with orchestrator, ensemble.stream_responses("Which city?") as run:
        result = await run.result()

    assert list(result.initial_responses) == ["b"]


async def test_arguments_of_a_call_go_before_those_of_the_ensemble() -> None:
    orchestrator = made(a=FakeModel("Paris."), b=FakeModel("Lyon."))
    ensemble = orchestrator.add_ensemble("both", stages=["initial"], quorum=2)

    async with orchestrator:
        result = await ensemble.process_responses("Which city?", models=["a"], quorum=1)
        other = await ensemble.process_responses("Which city?", strategy="vote")

    assert list(result.initial_responses) == ["a"]
    assert other.strategy == "vote"


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("", {}),
        ("taken", {}),
        ("x", {"models": ["nobody"]}),
        ("x", {"quorum": 3}),
        ("x", {"strategy": "no_such"}),
        ("x", {"nonsense": 1}),
    ],
)
def test_a_wrong_ensemble_is_refused(name: str, run: dict[str, Any]) -> None:
    orchestrator = made(a=FakeModel(), b=FakeModel())
    orchestrator.add_ensemble("taken")

    with pytest.raises(BadCall):
        orchestrator.add_ensemble(name, **run)
    assert list(orchestrator.get_ensembles()) == ["taken"]


def test_an_unknown_ensemble_is_told_with_those_that_there_are() -> None:
    orchestrator = made(a=FakeModel())
    orchestrator.add_ensemble("council")

    with pytest.raises(BadCall, match="unknown ensemble 'counsil'; there are: council; did you mean"):
        orchestrator.ensemble("counsil")


async def test_another_model_than_the_first_can_write_the_synthesis() -> None:
    a, b = FakeModel("Paris."), FakeModel("Lyon.")
    strategy = Synthesize(stages=("initial", "synthesis"), writer="b")

    result = await made(a=a, b=b).process_responses("Which city?", strategy=strategy)

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "b"
    assert (len(a.calls), len(b.calls)) == (1, 2)


async def test_a_writer_outside_of_the_panel_answers_nothing_but_the_synthesis() -> None:
    a, b, c = FakeModel("Paris."), FakeModel("Lyon."), FakeModel("Both.")
    strategy = Synthesize(stages=("initial", "synthesis"), writer="c", panel=("a", "b"))

    result = await made(a=a, b=b, c=c).process_responses("Which city?", strategy=strategy, quorum="all")

    assert str(result.final_synthesis) == "Both."
    assert list(result.initial_responses) == ["a", "b"]
    assert len(c.calls) == 1


async def test_a_writer_that_fails_is_replaced_by_those_that_answered() -> None:
    a, b = FakeModel("Paris."), FakeModel("Lyon.").fail(ModelError("x"), at=2)
    strategy = Synthesize(stages=("initial", "synthesis"), writer="b")

    result = await made(a=a, b=b).process_responses("Which city?", strategy=strategy)

    assert result.final_synthesis is not None
    assert result.final_synthesis.model_name == "a"
    assert result.synthesis_source == "fallback"


async def test_the_limit_of_the_answer_is_that_of_the_synthesis_alone() -> None:
    a, b = FakeModel("Paris."), FakeModel("Lyon.")
    strategy = Synthesize(stages=("initial", "synthesis"), answer_tokens=50)

    await made(a=a, b=b).process_responses("Which city?", strategy=strategy, options={"max_tokens": 9})

    assert [call.options.max_tokens for call in a.calls] == [9, 50]


async def test_an_unknown_writer_is_refused() -> None:
    with pytest.raises(BadCall, match="writer names 'nobody'"):
        await made(a=FakeModel("x"), b=FakeModel("y")).process_responses(
            "Which city?", strategy=Synthesize(writer="nobody", stages=("initial", "synthesis"))
        )
