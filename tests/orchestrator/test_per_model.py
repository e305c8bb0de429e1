"""Options of single models in a run: what each is asked with, where a role counts, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from ultra import BadCall, ConfigError, MultiLLMOrchestrator, RunOptions, SamplingOptions
from ultra.config import load_configuration
from ultra.messages.model_options import ModelOptions
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from pathlib import Path

SCEPTIC = "You look for what is wrong."


def made(**fakes: Any) -> MultiLLMOrchestrator:
    orchestrator = MultiLLMOrchestrator(stages=["initial", "synthesis"], max_retries=0)
    for name, fake in fakes.items():
        orchestrator.register_model(name, fake)
    return orchestrator


async def test_each_model_is_asked_with_its_own_options_and_the_others_with_those_of_the_run() -> None:
    a, b = FakeModel("one"), FakeModel("two")
    await made(a=a, b=b).process_responses(
        "Q", options={"temperature": 0.1, "max_tokens": 50}, per_model={"b": {"temperature": 0.9, "seed": 3}}
    )
    assert a.calls[0].options == SamplingOptions(temperature=0.1, max_tokens=50)
    assert b.calls[0].options == SamplingOptions(temperature=0.9, max_tokens=50, seed=3)


async def test_a_role_stands_behind_the_system_prompt_where_the_model_answers_and_nowhere_else() -> None:
    a, b = FakeModel("one"), FakeModel("two")
    orchestrator = made(a=a, b=b)
    await orchestrator.process_responses("Q", system="Be brief.", per_model={"a": {"role": SCEPTIC}})
    assert a.calls[0].system == f"Be brief.\n\n{SCEPTIC}"
    assert SCEPTIC not in (a.calls[1].system or "")  # it merges
    assert b.calls[0].system == "Be brief."
    await orchestrator.process_responses("Q", per_model={"b": {"role": SCEPTIC}}, stages=["initial"])
    assert b.calls[1].system == SCEPTIC


async def test_answers_of_other_roles_are_not_taken_from_the_cache() -> None:
    a = FakeModel(["one", "two"])
    orchestrator = made(a=a)
    for _ in range(2):
        await orchestrator.process_responses("Q", stages=["initial"])
    assert len(a.calls) == 1
    await orchestrator.process_responses("Q", stages=["initial"], per_model={"a": {"role": SCEPTIC}})
    assert len(a.calls) == 2


async def test_every_sample_and_every_strategy_has_them() -> None:
    a, b = FakeModel("4"), FakeModel("4")
    await made(a=a, b=b).process_responses(
        "Q", samples=2, strategy="vote", per_model={"a": {"reasoning_effort": "high"}}
    )
    assert {call.options.reasoning_effort for call in a.calls} == {"high"}
    assert {call.options.reasoning_effort for call in b.calls} == {None}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"zz": {}}, "per_model names an unknown model 'zz'; registered: a, b"),
        ({"a": 3}, "per_model of 'a' is of type int; it must be a mapping of options"),
        ([1], "per_model is .*list.*; it must be a mapping from models"),
        ({"a": {"temperature": "hot"}}, "an option of the call is not allowed"),
        ({"a": {"role": 3}}, "role is 3; it must be a text, or None"),
        ({"a": {"temprature": 1}}, "options has 'temprature', which no model of this call takes"),
    ],
)
async def test_what_is_wrong_is_refused_before_any_call(given: Any, message: str) -> None:
    fakes = FakeModel("one"), FakeModel("two")
    with pytest.raises(BadCall, match=message):
        await made(a=fakes[0], b=fakes[1]).process_responses("Q", per_model=given)
    assert [len(fake.calls) for fake in fakes] == [0, 0]


def test_the_settings_of_a_run_with_them_are_a_value() -> None:
    options = RunOptions(per_model={"a": ModelOptions(sampling=SamplingOptions(seed=1), role=SCEPTIC)})
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(options), type=RunOptions) == options


CONFIGURED = """
[models.gpt]
model = "vllm:x"

[models.claude]
model = "vllm:y"

[ensembles.council]
models = ["gpt", "claude"]
strategy = "rank"
options = { top = 2 }
quorum = 2
grace = 8

[ensembles.council.per_model.NAME]
temperature = 0.9
role = "You look for what is wrong."
"""


def test_an_ensemble_of_a_file_gives_each_model_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ultra.toml"
    path.write_text(CONFIGURED.replace("NAME", "claude"), "utf-8")
    orchestrator = MultiLLMOrchestrator.from_config(path)
    arguments = orchestrator.ensemble("council").arguments
    own = ModelOptions(sampling=SamplingOptions(temperature=0.9), role=SCEPTIC)
    assert arguments["per_model"] == {"claude": own}
    assert (arguments["quorum"], arguments["grace"], arguments["strategy"].top) == (2, 8, 2)
    path.write_text(CONFIGURED.replace("NAME", "zz"), "utf-8")
    with pytest.raises(ConfigError, match="per_model: found 'zz'; allowed are: gpt, claude"):
        load_configuration(path)
