"""Reasoning in answers, marks of fences, and answers that show nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra import Completion
from ultra.clients.adapter import ClientAdapter, EmptyAnswer
from ultra.clients.cleaning import AnswerText, shows_nothing, split_reasoning
from ultra.errors import ModelError
from ultra.messages.reasoning import ReasoningDelta
from ultra.messages.request import ModelRequest
from ultra.prompts.composing import Candidate, compose

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ASKED = ModelRequest.of("2+2? Give your <analysis>, and then the <summary>.")
HARMONY = (
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>It is 4.<|return|>"
)


async def answer(given: Any, request: ModelRequest | None = None) -> Completion:
    return await ClientAdapter(lambda _prompt: given).call(request or ModelRequest.of("2+2?"))


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nHm.\n</think>\n\nIt is 4.",
        "<thinking>Hm.</thinking>It is 4.",
        "<Reasoning>Hm.</reasoning>\nIt is 4.",
        "\n <thought>Hm.</thought> It is 4.",
        "[THINK]Hm.[/THINK]It is 4.",
        "◁think▷Hm.◁/think▷It is 4.",
        "<|START_THINKING|>Hm.<|END_THINKING|>It is 4.",
        "<|channel>thought\nHm.<channel|>It is 4.",
        "Hm.</think>\n\nIt is 4.",
        "It is 4.\n<think>Hm.</think>",
        "\ufeff<think>Hm.</think>It is 4.",
        "\u200b\n<think>Hm.</think>It is 4.",
        HARMONY,
        "analysisHm.assistantfinalIt is 4.",
        [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "It is 4."}],
        [{"type": "reasoning", "summary": [{"text": "Hm."}]}, {"type": "text", "text": "It is 4."}],
        Completion(content="<think>Hm.</think>It is 4."),
    ],
)
async def test_reasoning_is_no_part_of_the_answer(text: Any) -> None:
    completion = await answer(text)
    assert (completion.content, completion.reasoning) == ("It is 4.", "Hm.")


async def test_who_thinks_in_tags_may_do_so_again_within_a_line() -> None:
    completion = await answer("<think>One.</think>It is <think>Two.</think>4, not `<think>`.")
    assert (completion.content, completion.reasoning) == ("It is 4, not `<think>`.", "One.\n\nTwo.")


async def test_tags_in_code_stay_after_reasoning_in_tags_too() -> None:
    completion = await answer("<think>Hm.</think>Write `<think>x</think>` for that.")
    assert (completion.content, completion.reasoning) == ("Write `<think>x</think>` for that.", "Hm.")


@pytest.mark.parametrize(
    "text",
    [
        "Models write `<think>` before they answer, and `</think>` after that.",
        "The <think> tag opens it.",
        "```\n<think>\nnot mine\n</think>\n```\nThat is how it looks.",
        "a < b and c > d",
        "analysis is a branch of mathematics",
    ],
)
async def test_text_about_tags_stays_as_it_is(text: str) -> None:
    completion = await answer(text)
    assert (completion.content, completion.reasoning) == (text, None)


@pytest.mark.parametrize(
    "text",
    [
        "<think>\nLet me",
        "<think></think>",
        "<|channel|>analysis<|message|>Let me",
        "\u200b\u2060\ufeff",
        "\u00ad \n",
    ],
)
async def test_reasoning_without_an_answer_and_invisible_text_are_empty_answers(text: str) -> None:
    with pytest.raises(EmptyAnswer, match="the answer is empty"):
        await answer(text)


@pytest.mark.parametrize("reason", ["refusal", "content_filter"])
async def test_an_answer_that_was_refused_in_its_middle_is_none(reason: Any) -> None:
    with pytest.raises(ModelError, match="broke off its answer, which began 'To make the'") as caught:
        await answer(Completion(content="To make the", finish_reason=reason))
    assert (caught.value.kind, caught.value.retryable) == ("content", False)


async def test_the_marks_of_the_fences_of_its_prompt_are_removed() -> None:
    prompt = compose(
        "synthesis",
        question="Q?",
        candidates=[Candidate("a", "4"), Candidate("b", "5")],
        asked_model="r",
        secret=b"s" * 32,
    )
    nonce = prompt.user.partition("<")[2].partition(">")[0]
    request = ModelRequest.of(prompt.user, prompt.system)
    completion = await answer(f"Final: <{nonce}>4</{nonce}>, in <organization>", request)
    assert completion.content == "Final: 4, in <organization>"


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize(
    ("text", "heard"),
    [
        ("<think>\nHm.\n</think>\n\nIt is 4.", "It is 4."),
        ("<thinking>Hm.</thinking><think>Hm.</think>It is 4.", "It is 4."),
        ("It is < 4.", "It is < 4."),
        ("<thin ice>", "<thin ice>"),
        ("<th", "<th"),
        (HARMONY, "It is 4.<|return|>"),
        ("<think>Let me", ""),
    ],
)
def test_a_stream_is_heard_without_the_reasoning_at_its_beginning(text: str, heard: str, size: int) -> None:
    pieces: list[str] = []
    stream = AnswerText(pieces.append)
    for start in range(0, len(text), size):
        stream(text[start : start + size])
    stream.end()
    assert "".join(pieces) == heard


@given(st.text(st.sampled_from("<think>/`\n a[]"), max_size=120))
def test_any_text_is_split(text: str) -> None:
    content, reasoning = split_reasoning(text)
    assert len(content) + len(reasoning) <= len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "</think>",
        "\n<think>",
        "```",
        "\n<think></think>",
        "```\n<think>",
        "\n<analysis>",
        "\n<analysis></analysis>",
        "<|channel|>",
        "[think]",
        " ",
    ],
)
def test_the_time_is_linear_whatever_the_text(piece: str) -> None:
    text = piece * (400_000 // len(piece))
    begun = time.process_time()
    split_reasoning(text)
    split_reasoning(text, frozenset({"<analysis>"}))
    shows_nothing("\u200b" * 400_000)
    stream = AnswerText(lambda _: None)
    for start in range(0, 40_000, 4):
        stream(text[start : start + 4])
    assert time.process_time() - begun < 0.5


# --- reasoning in tags and channels, while it is written ----------------------------------------------


ANALYSIS = "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant<|channel|>"


def streamed(text: str, size: int) -> tuple[str, str]:
    """The text and the reasoning that the pieces of a stream tell; no reasoning may follow text."""
    pieces: list[str] = []
    stream = AnswerText(pieces.append)
    for start in range(0, len(text), size):
        stream(text[start : start + size])
    stream.end()
    told = [piece for piece in pieces if piece or isinstance(piece, ReasoningDelta)]
    kinds = ["text" if piece else "reasoning" for piece in told]
    assert kinds == sorted(kinds)
    return "".join(told), "".join(each.part.text for each in told if isinstance(each, ReasoningDelta))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
@pytest.mark.parametrize(
    ("text", "reasoning"),
    [
        ("<think>\nOne and\n\none.  \n</think>\n\nIt is 2.", "One and\n\none."),
        ("<thinking>One.</thinking>\n<think>Two.</think>It is 2.", "One.\n\nTwo."),
        ("[THINK]a < b, </b> and </th[/THINK]It is 2.", "a < b, </b> and </th"),
        ("◁think▷Hm.◁/think▷It is 2.", "Hm."),
        ("<think></think>It is 2.", ""),
        ("<think>  \n </think>It is 2.", ""),
        ("<think>It never en</thi", "It never en</thi"),
        ("It is 2, not <think>3</think>.", ""),
        (
            f"{ANALYSIS}One and one.{NEXT}commentary<|message|>Is 2.{NEXT}final<|message|>It is 2.",
            "One and one.\n\nIs 2.",
        ),
        (
            f"<|start|>assistant{ANALYSIS}a <| b{NEXT}final<|message|>It is 2.",
            "a <| b",
        ),
    ],
)
def test_reasoning_in_a_stream_is_told_however_it_is_cut(text: str, reasoning: str, size: int) -> None:
    assert streamed(text, size)[1] == reasoning
    assert reasoning in {"", split_reasoning(text)[1]}


@given(st.text(st.sampled_from("ab \n<>/"), max_size=60), st.integers(1, 9))
def test_whatever_is_thought_in_tags_a_stream_tells_as_the_whole_answer_does(thought: str, size: int) -> None:
    text = f"<think>{thought}</think>It is 2."
    assert streamed(text, size) == ("It is 2.", split_reasoning(text)[1])


def test_reasoning_in_a_stream_is_told_before_its_end() -> None:
    pieces: list[str] = []
    stream = AnswerText(pieces.append)
    stream("<think>One ")
    stream("and one")
    assert [piece.part.text for piece in pieces if isinstance(piece, ReasoningDelta)] == ["One", " and one"]


@pytest.mark.parametrize(
    ("text", "content", "reasoning"),
    [
        ("<analysis>It is 4.</analysis>", "<analysis>It is 4.</analysis>", None),
        (
            "<Analysis>Hm.</Analysis>\n<summary>4</summary>",
            "<Analysis>Hm.</Analysis>\n<summary>4</summary>",
            None,
        ),
        ("<think>Hm.</think>\n<analysis>4</analysis>", "<analysis>4</analysis>", "Hm."),
        ("<scratchpad>Hm.</scratchpad>\n4", "4", "Hm."),
    ],
)
async def test_tags_that_were_asked_for_are_the_answer_and_no_reasoning(
    text: str, content: str, reasoning: str | None
) -> None:
    found = await answer(text, ASKED)
    assert (found.content, found.reasoning) == (content, reasoning)

    class Streaming:
        async def generate(self, _prompt: str) -> str:
            return text

        async def stream(self, _prompt: str) -> AsyncIterator[str]:
            for sign in text:
                yield sign

    pieces: list[str] = []
    streamed_answer = await ClientAdapter(Streaming()).call(ASKED, on_text=pieces.append)
    assert (streamed_answer.content, "".join(pieces)) == (content, content)


async def test_reasoning_in_the_same_tags_is_no_answer_where_nobody_asked_for_them() -> None:
    with pytest.raises(EmptyAnswer):
        await answer("<analysis>It is 4.</analysis>")
