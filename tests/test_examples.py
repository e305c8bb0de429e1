"""The examples, run in this process on the voices that are written in them."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

import pytest

from helpers.paths import EXAMPLES
from ultra import MissingExtra

if TYPE_CHECKING:
    from types import ModuleType

    from trio.testing import MockClock

# What they wait for is simulated, and so is the time that it takes.
pytestmark = pytest.mark.usefixtures("autojump_clock")


def load(name: str) -> ModuleType:
    spec = spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_basic_example_runs_on_its_own_voices_without_the_embedded_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(_: str) -> Any:
        raise MissingExtra("the embedded model", "local")

    basic = load("basic")
    monkeypatch.setattr(basic, "connect", connect)

    await basic.main("Why is the sky blue?")

    printed = capsys.readouterr().out
    assert "asking, by weight: careful, concise, creative\n" in printed
    assert "(creative) You asked: Why is the sky blue?\n" in printed
    assert "=== together (success, by careful)\n(careful) I read the answers to: Why is the sky" in printed
    assert "careful: 3 attempts" in printed


async def test_the_conversation_example_goes_on_from_the_first_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await load("conversation").main()

    assert capsys.readouterr().out.splitlines() == [
        "You asked 1 question so far.",
        "counter: You asked 2 questions so far.",
        "reader: It began with: User: Hello! Who are you? (Be brief.)",
    ]


async def test_the_tools_example_calls_its_functions(capsys: pytest.CaptureFixture[str]) -> None:
    await load("tools").main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        'calling weather({"city": "Paris"})',
        'calling weather({"city": "Atlantis"})',
        'calling population({"city": "Paris"})',
    ]
    assert lines[3:] == [
        """weather({"city": "Atlantis"}) failed: KeyError: 'Atlantis'""",
        """In Paris: {"degrees":21.0,"unit":"C"}; KeyError: 'Atlantis'; 2103000""",
        "I was told of 3 results.",
        "careful calls: " + ", ".join(line.removeprefix("calling ") for line in lines[:3]),
    ]


async def test_the_custom_stage_example_runs_its_stages_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    await load("custom_stage").main()

    assert capsys.readouterr().out.splitlines() == [
        "initial    ann: I choose plan A.",
        "initial    bob: I choose plan B.",
        "initial    cid: I choose plan A.",
        "objection  ann: The strongest objection to plan A is its cost.",
        "objection  bob: The strongest objection to plan B is its cost.",
        "objection  cid: The strongest objection to plan A is its cost.",
        "verdict    ann: I choose plan A.",
    ]


async def test_the_custom_strategy_example_asks_a_third_model_only_where_two_disagree(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await load("custom_strategy").main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["The answer is 42. (2 models were asked)", "--- initial: ann, bob"]
    assert sorted(lines[2:4]) == ["ann: 9.11", "bob: 9.9"]
    assert lines[4:] == [
        "--- decision: cid",
        "cid: I read both. The answer is 9.9.",
        (
            "I read both. The answer is 9.9. "
            "(the first models disagree: another one read their answers and decided)"
        ),
    ]


async def test_the_service_example_outlives_an_ill_model_and_takes_a_newcomer_in(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await load("long_lived_service").main()

    printed = capsys.readouterr().out
    assert printed.splitlines()[:3] == [
        "success: primary merges the answers to: Question: Is all well?",
        "degraded, without primary: spare answers: And now that the primary is ill?",
        "degraded, without primary: newcomer merges the answers to: Question: Who answers after the change?",
    ]
    assert "coordinator running, 3 handled" in printed


async def test_the_streaming_example_prints_the_words_of_each_model_as_they_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], autojump_clock: MockClock
) -> None:
    def connect(_: str) -> Any:
        raise MissingExtra("the embedded model", "local")

    streaming = load("streaming")
    monkeypatch.setattr(streaming, "connect", connect)

    await streaming.main("Why?")

    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "--- initial, asks all of careful, concise, creative"
    assert sorted(lines[2:5]) == [f"{name:>9} | 'You '" for name in ("careful", "concise", "creative")]
    assert lines[-2:] == ["=== together (success)", "I read the answers to: Why? "]


async def test_the_extraction_example_merges_three_answers_field_by_field(
    capsys: pytest.CaptureFixture[str],
) -> None:
    await load("extraction").main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Invoice(number='A-17', currency='EUR', paid=True, items=[Item(name='pens',")
    assert "0.67  $.number" in lines
    assert "1.00  $.items[0].quantity" in lines
    assert lines[-1] == "hasty was asked 2 times"
