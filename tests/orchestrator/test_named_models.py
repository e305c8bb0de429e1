"""Options of strategies that name models: a name that is not there is refused before any call."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import BadCall, Fields, MultiLLMOrchestrator, SelfConsistency, Synthesize, Vote
from ultra.testing import FakeModel

WRONG = [
    (Fields(judge="zz"), "judge names 'zz', which is none of the models of this run: a, b"),
    (Vote(judge="zz"), "judge names 'zz'"),
    (Vote(judge="c"), "judge names 'c', which is none of the models of this run: a, b$"),
    (Vote(weights={"a": 1.0, "b": 1.0, "zz": 1.0}), "weights names 'zz'"),
    (Vote(weights={"a": 1.0}), "weights has none for 'b', which this run asks"),
    (SelfConsistency(model="zz"), "model names 'zz'"),
    (Synthesize(writer="zz"), "writer names 'zz'"),
    (Synthesize(panel=("a", "zz")), "panel names 'zz'"),
]


@pytest.mark.parametrize(("strategy", "message"), WRONG)
async def test_an_option_that_names_an_unknown_model_is_refused_before_any_call(
    strategy: Any, message: str
) -> None:
    fakes = [FakeModel('{"x": 1}', name=name) for name in "abc"]
    orchestrator = MultiLLMOrchestrator()
    for fake in fakes:
        orchestrator.register_model(fake.name, fake)
    with pytest.raises(BadCall, match=message):
        await orchestrator.process_responses("Q", models=["a", "b"], strategy=strategy, output=dict[str, int])
    assert [len(fake.calls) for fake in fakes] == [0, 0, 0]


async def test_weights_may_name_models_that_this_run_does_not_ask() -> None:
    orchestrator = MultiLLMOrchestrator()
    for name in "abc":
        orchestrator.register_model(name, FakeModel("4", name=name))
    strategy = Vote(weights={"a": 1.0, "b": 1.0, "c": 2.0})
    result = await orchestrator.process_responses("Q", models=["a", "b"], strategy=strategy)
    assert str(result.final_synthesis) == "4"
