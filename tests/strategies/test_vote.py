"""The vote: whose answer wins, when it stops asking, and what stands in for a majority."""

from __future__ import annotations

from typing import Any

import pytest
from trio.testing import MockClock

from helpers.runs import Recorder, by_weight, failing, run
from helpers.voices import SlowVoice, Voice
from ultra import OrchestrationResult, QuorumNotReached
from ultra.errors import ModelError
from ultra.strategies import Vote


async def vote(*voices: Voice, weights: tuple[float, ...] = (), **fields: Any) -> OrchestrationResult:
    """A vote of these, by default of equal weight."""
    pairs = zip(voices, weights or (1.0,) * len(voices), strict=True)
    return await run(by_weight(pairs), strategy=Vote(), **fields)


def saying(**answers: str) -> list[Voice]:
    return [Voice(name, answer=answer) for name, answer in answers.items()]


# --- a majority --------------------------------------------------------------------------------------


async def test_the_answer_of_the_majority_stands_word_for_word() -> None:
    result = await vote(*saying(a="The answer is 41.", b="I count them.\n\n**42**", c="The answer is 42"))
    assert result.final_synthesis == result.initial_responses["b"]
    assert (result.strategy, result.synthesis_source, result.status) == ("vote", "selected", "success")
    assert result.confidence == pytest.approx(2 / 3)
    assert [step.name for step in result.steps] == ["initial"]


async def test_of_those_who_gave_the_same_answer_the_heaviest_is_quoted() -> None:
    result = await vote(*saying(a="The answer is 42.", b="42", c="7"), weights=(1.0, 2.0, 1.0))
    assert result.final_synthesis == result.initial_responses["b"]


async def test_votes_count_by_weight(autojump_clock: MockClock) -> None:
    heavy = SlowVoice("a", seconds=1, answer="1")
    result = await vote(heavy, *saying(b="2", c="2"), weights=(3.0, 1.0, 1.0))
    assert str(result.final_synthesis) == "1"
    assert result.confidence == pytest.approx(3 / 5)


async def test_where_all_weights_are_zero_every_model_has_one_vote() -> None:
    result = await vote(*saying(a="1", b="2", c="2"), weights=(0.0, 0.0, 0.0))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_model_of_weight_zero_has_no_vote_beside_others() -> None:
    result = await vote(*saying(a="1", b="2", c="2"), weights=(1.0, 0.0, 0.0))
    assert (str(result.final_synthesis), result.confidence) == ("1", 1.0)


async def test_those_who_failed_have_no_vote() -> None:
    result = await vote(failing("a"), *saying(b="2", c="2", d="3"))
    assert (str(result.final_synthesis), result.status) == ("2", "degraded")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_text_without_a_final_answer_is_a_vote_for_nothing() -> None:
    rambling = "On the one hand this, on the other hand that.\n" * 3 + "So it depends on a great many things."
    result = await vote(*saying(a=rambling, b="2", c="2"))
    assert (str(result.final_synthesis), result.synthesis_source) == ("2", "selected")
    assert result.confidence == pytest.approx(2 / 3)


async def test_a_single_model_agrees_with_itself() -> None:
    result = await vote(Voice("a", answer="7"))
    assert (str(result.final_synthesis), result.confidence) == ("7", 1.0)


async def test_samples_of_one_model_vote_too() -> None:
    class Wavering(Voice):
        async def generate(self, prompt: str) -> Any:
            first = not self.calls
            await super().generate(prompt)
            return "8" if first else "7"

    result = await vote(Wavering("a"), samples=3)
    assert str(result.final_synthesis) == "7"
    assert result.confidence == pytest.approx(2 / 3)
    assert [response.sample for response in result.steps[0].responses] == [0, 1, 2]


# --- stopping early ----------------------------------------------------------------------------------


async def test_it_stops_asking_when_the_outcome_cannot_change(autojump_clock: MockClock) -> None:
    slow = [SlowVoice("d", seconds=1000, answer="9"), SlowVoice("e", seconds=1000, answer="9")]
    sink = Recorder()
    result = await vote(*(SlowVoice(name, seconds=1, answer="1") for name in "abc"), *slow, sink=sink)
    assert (str(result.final_synthesis), result.confidence) == ("1", 1.0)
    assert (result.status, result.failures) == ("success", [])
    assert result.response_time == pytest.approx(1)
    assert sink.of("ModelFailed") == []
    assert [event.failed for event in sink.of("StageCompleted")] == [()]
    assert [voice.cancelled for voice in slow] == [1, 1]
    assert [result.metrics[name].failures for name in "de"] == [0, 0]


async def test_as_long_as_the_outcome_can_change_it_waits(autojump_clock: MockClock) -> None:
    slow = SlowVoice("d", seconds=10, answer="2")
    result = await vote(*saying(a="1", b="1", c="2"), slow)
    assert result.response_time == pytest.approx(10)
    assert slow.cancelled == 0


async def test_one_model_decides_nothing_before_another_has_answered(autojump_clock: MockClock) -> None:
    result = await vote(Voice("a", answer="1"), SlowVoice("b", seconds=3, answer="2"), weights=(5.0, 1.0))
    assert result.response_time == pytest.approx(3)
    assert str(result.final_synthesis) == "1"
    assert result.confidence == pytest.approx(5 / 6)


async def test_it_waits_for_the_quorum_although_the_outcome_is_clear(autojump_clock: MockClock) -> None:
    slow = [SlowVoice("d", seconds=5, answer="9"), SlowVoice("e", seconds=9, answer="9")]
    result = await vote(*saying(a="1", b="1", c="1"), *slow, quorum=4)
    assert result.response_time == pytest.approx(5)
    assert [voice.cancelled for voice in slow] == [0, 1]


# --- no majority -------------------------------------------------------------------------------------


class Deciding(Voice):
    """Decides by a text of its own when it reads what others wrote."""

    async def generate(self, prompt: str) -> Any:
        answer = await super().generate(prompt)
        return f"{self.name} decides" if "Candidate" in prompt else answer


async def test_without_a_majority_the_heaviest_model_reads_all_answers_and_decides() -> None:
    voices = [Deciding("a", answer="1"), Deciding("b", answer="2"), Deciding("c", answer="3")]
    result = await vote(*voices, weights=(1.0, 1.5, 1.0))
    assert str(result.final_synthesis) == "b decides"
    assert (result.synthesis_source, result.confidence) == ("primary", None)
    assert result.notices == ["the vote has no majority: a model read the whole answers and decided"]
    assert result.status == "success"
    (_, prompt) = voices[1].prompts
    assert all(f">{answer}</" in prompt for answer in "123")
    assert [step.name for step in result.steps] == ["initial", "synthesis"]


async def test_half_of_the_weight_is_no_majority() -> None:
    result = await vote(*saying(a="1", b="2"))
    assert result.synthesis_source == "primary"


async def test_if_the_heaviest_cannot_decide_the_next_one_does() -> None:
    class Mute(Voice):
        async def generate(self, prompt: str) -> Any:
            if "Candidate" in prompt:
                raise ModelError("no more", kind="bad_request")
            return await super().generate(prompt)

    result = await vote(Mute("a", answer="1"), Deciding("b", answer="2"), weights=(2.0, 2.0))
    assert (str(result.final_synthesis), result.synthesis_source) == ("b decides", "fallback")
    assert result.status == "degraded"
    mute = await vote(Mute("a", answer="1"), Mute("b", answer="2"), weights=(1.0, 1.0))
    assert mute.final_synthesis == mute.initial_responses["a"]
    assert (mute.synthesis_source, mute.status) == ("best_candidate", "degraded")
    assert mute.notices[-1] == "no model could decide; the best candidate stands in its place"


async def test_answers_of_models_without_a_vote_alone_are_decided_by_a_model() -> None:
    result = await vote(failing("a"), *saying(b="2", c="2"), weights=(1.0, 0.0, 0.0))
    assert result.synthesis_source == "primary"


async def test_if_all_fail_the_run_fails() -> None:
    with pytest.raises(QuorumNotReached, match=r"'initial' got 0 of the 1.*a is down.*b is down"):
        await vote(failing("a"), failing("b"))
