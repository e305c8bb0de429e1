"""Bad input: refused before any model is called, in words that say what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from ultra import BadCall, MultiLLMOrchestrator
from ultra.clients import connect
from ultra.messages.conversation import conversation_of
from ultra.testing import FakeModel

RUNS = [
    ({"prompt": None}, "the prompt is of type NoneType; it must be text"),
    ({"prompt": "\t"}, "the prompt is empty"),
    ({"models": 7}, "give a list of names: a"),
    ({"models": ["a", 7]}, "unknown model 7; registered: a"),
    ({"stages": [None]}, "unknown stage None; there are: initial, meta, synthesis"),
    ({"system": 7}, "the system prompt is of type int"),
    ({"timeout": 0}, "a number of seconds above 0"),
    ({"timeout": float("nan")}, "a number of seconds above 0"),
    ({"timeout": True}, "a number of seconds above 0"),
    ({"timeout": "5"}, "a number of seconds above 0"),
    ({"quorum": 2}, r"at most the number of models that are asked \(1\)"),
    ({"quorum": "most"}, "it must be 'all', or a whole number"),
    ({"quorum": 1.0}, "a whole number"),
    ({"quorum": True}, "a whole number"),
    ({"grace": -1}, "grace is -1; it must be a number of seconds, 0 or more, or None"),
    ({"grace": "soon"}, "grace is 'soon'"),
    ({"samples": 0}, "samples is 0; it must be a whole number, 1 or more"),
    ({"samples": 1.5}, "samples is 1.5"),
    ({"max_cost": 0}, "max_cost is 0; it must be a number of dollars above 0, or None"),
    ({"tempo": 3}, "unknown setting 'tempo' of a run; there are: timeout, quorum, grace"),
    ({"strategy": "vot"}, "unknown strategy 'vot'; there are: synthesize, vote, self_consistency"),
    ({"strategy": 7}, "strategy is 7; give one of synthesize, vote, .*, or an object"),
    ({"strategy": "vote", "stages": ["initial"]}, "strategy 'vote' has no stages; leave stages out"),
    ({"stages": []}, "stages is empty; give at least one of: initial, meta, synthesis"),
    ({"use_cache": "no"}, "use_cache is 'no'; it must be True or False"),
    ({"options": 7}, "options is int; it must be a mapping"),
    ({"options": {1: 2}}, r"options is \[1\]; it must be a mapping"),
    ({"options": {"tool": print}}, r"the options \('tool'\) cannot be sent to a model.*use plain values"),
]


@pytest.mark.parametrize(("arguments", "message"), RUNS)
async def test_a_bad_run_is_refused_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    fake = FakeModel()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", fake)
    call: dict[str, Any] = {"prompt": "Q", **arguments}
    with pytest.raises(BadCall, match=message):
        await orchestrator.process_responses(**call)
    with pytest.raises(BadCall, match=message):
        orchestrator.stream_responses(**call)
    assert len(fake.calls) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"model": "b"}, "unknown model 'b'; registered: a"),
        ({"model": None}, "a client must"),
        ({"system": b"x"}, "the system prompt is of type bytes"),
        ({"timeout": -1}, "a number of seconds above 0"),
        ({"stage": 3}, "the stage is 3; it must be the name of a stage"),
        ({"stage": ""}, "the stage is ''; it must be the name of a stage"),
        ({"use_cache": "no"}, "use_cache is 'no'; it must be True or False"),
        ({"use_cache": None}, "use_cache is None; it must be True or False"),
        ({"options": [1]}, "it must be a mapping"),
        ({"options": {"tool": print}}, r"the options \('tool'\) cannot be sent to a model.*use plain values"),
    ],
)
async def test_a_bad_request_is_refused_with_what_is_allowed(arguments: dict[str, Any], message: str) -> None:
    fake = FakeModel()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", fake)
    with pytest.raises(BadCall, match=message):
        await orchestrator.get_model_response(**{"model": "a", "prompt": "Q", **arguments})
    assert len(fake.calls) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quorum": 0}, "quorum is 0"),
        ({"quorum": "some"}, "it must be 'all'"),
        ({"timeout": 0}, "seconds above 0"),
        ({"system": 7}, "the system prompt is of type int"),
        ({"max_retries": 1.5}, "max_retries is 1.5; it must be a whole number"),
        ({"cache": "file:///x"}, "cache="),
        ({"cache_enabled": False, "cache": "memory"}, "leave one of them out"),
        ({"cache_enabled": 3}, "cache_enabled is 3; it must be True or False"),
        ({"max_cost": 0}, "max_cost is 0"),
        ({"intensity": 3}, "intensity is 3; it must be a RestartIntensity object"),
        ({"random": 3}, "random is 3; it must be a Random object"),
        ({"judge": 3}, "judge is 3; it must be a str object"),
        ({"samples": 0}, "samples is 0"),
        ({"grace": -1}, "grace is -1"),
        ({"strategy": "vot"}, "unknown strategy 'vot'; there are: synthesize, vote, self_consistency"),
        ({"strategy": "vote", "stages": ["initial"]}, "strategy 'vote' has no stages"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=message):
        MultiLLMOrchestrator(**settings)


async def test_options_that_are_refused_are_not_shown() -> None:
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", FakeModel())
    for options in ({7: "sk-secret"}, {"key": "sk-secret", "tool": print}, ["sk-secret"]):
        with pytest.raises(BadCall) as caught:
            await orchestrator.process_responses("Q", options=options)  # type: ignore[arg-type]
        assert "sk-secret" not in str(caught.value)


async def test_options_must_be_values_where_nothing_is_cached_too() -> None:
    fake = FakeModel()
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", fake)
    options = {"tool": print}
    with pytest.raises(BadCall, match=r"the options \('tool'\) cannot be sent to a model"):
        await orchestrator.process_responses("Q", stages=["initial"], use_cache=False, options=options)
    with pytest.raises(BadCall, match=r"the options \('tool'\) cannot be sent to a model"):
        await orchestrator.get_model_response("a", "Q", use_cache=False, options=options)
    assert len(fake.calls) == 0


async def test_options_are_plain_values_where_nothing_is_cached_too() -> None:
    given = []

    async def generate(prompt: str, *, tool: object = None) -> str:
        given.append((prompt, tool))
        return "answer"

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("a", generate)
    with pytest.raises(BadCall, match="use plain values"):
        await orchestrator.process_responses("Q", use_cache=False, options={"tool": print})
    tool = {"name": "print", "arguments": ["text", 1, None]}
    await orchestrator.process_responses("Q", stages=["initial"], use_cache=False, options={"tool": tool})
    await orchestrator.get_model_response("a", "Q", use_cache=False, options={"tool": tool})
    assert given == [("Q", tool)] * 2


@pytest.mark.parametrize("name", ["retry", "timeouts", "limits", "breaker", "hedge", "price"])
def test_a_policy_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(BadCall, match=f"{name} is 3"):
        MultiLLMOrchestrator().register_model("one", FakeModel(), **{name: 3})  # type: ignore[arg-type]


def test_a_prompt_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(BadCall, match="surrogate"):
        conversation_of("\ud800")


def test_a_model_to_connect_to_is_named_by_text() -> None:
    with pytest.raises(BadCall, match="give text"):
        connect(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grace": -1}, "grace is -1"),
        ({"grace": "x"}, "grace is 'x'"),
        ({"drain": "no"}, "drain is 'no'; it must be True or False"),
    ],
)
async def test_a_model_stays_registered_where_its_unregistration_is_refused(
    arguments: dict[str, Any], message: str
) -> None:
    async with MultiLLMOrchestrator() as orchestrator:
        orchestrator.register_model("a", FakeModel())
        with pytest.raises(BadCall, match=message):
            await orchestrator.unregister_model("a", **arguments)
        assert orchestrator.get_prioritized_models() == ["a"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("initial", "stages is 'initial'; give a list of names"),
        ([], "stages is empty; give at least one of: initial, meta, synthesis"),
        (["initial", "synthesys"], "unknown stage 'synthesys'; there are: initial, meta, synthesis"),
        (["initial", "initial"], "stage 'initial' is asked for twice"),
        (["meta"], "stage 'meta' reads stage 'initial', which must come before it"),
    ],
)
def test_wrong_stages_of_an_orchestrator_are_refused_when_it_is_made(stages: Any, message: str) -> None:
    with pytest.raises(BadCall, match=message):
        MultiLLMOrchestrator(stages=stages)


def test_the_stages_of_an_orchestrator_may_be_those_that_its_own_methods_make() -> None:
    class Reviewing(MultiLLMOrchestrator):
        def _create_review_prompt(self, responses: object) -> str:
            return f"Review {responses}"

    Reviewing(stages=["initial", "review"])
    with pytest.raises(BadCall, match="unknown stage 'reviews'; there are: initial, meta, synthesis, review"):
        Reviewing(stages=["initial", "reviews"])
