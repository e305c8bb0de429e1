from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.errors import BadCall
from ultra.faults.provider import Failure, Message, Question, Reply
from ultra.faults.provider.generation import compose, count_tokens, fit, split_tokens


def question(prompt: str = "What is the capital of France?", **settings: Any) -> Question:
    return Question(model=settings.pop("model", "m"), messages=(Message("user", prompt),), **settings)


@given(st.text())
def test_tokens_joined_are_the_text(text: str) -> None:
    assert "".join(split_tokens(text)) == text


def test_a_prompt_counts_all_its_messages_and_the_system_prompt() -> None:
    alone = count_tokens(question("one two three"))

    assert alone == 3 + 3
    assert count_tokens(question("one two three", system="be brief")) == alone + 2 + 3


def test_equal_questions_get_equal_answers_in_other_processes_too() -> None:
    code = (
        "from ultra.faults.provider import Message, Question;"
        "from ultra.faults.provider.generation import compose;"
        "print(compose(Question(model='m', messages=(Message('user', 'Why is it so?'),)), 5).text)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == compose(question("Why is it so?"), 5).text


@pytest.mark.parametrize(
    "other", [{"model": "n"}, {"seed": 1}, {"system": "be brief"}, {"prompt": "And of Spain?"}]
)
def test_another_question_gets_another_answer(other: dict[str, Any]) -> None:
    assert compose(question(**other), 0) != compose(question(), 0)


def test_another_seed_of_the_provider_gives_another_answer() -> None:
    assert compose(question(), 1) != compose(question(), 0)


@given(st.text(), st.integers())
def test_there_is_an_answer_to_everything(prompt: str, seed: int) -> None:
    reply = compose(question(prompt), seed)

    assert isinstance(reply.text, str)
    assert len(reply.text) > 10
    assert reply.text.endswith(".")


@given(
    st.text(alphabet="ab .", max_size=60),
    st.text(alphabet="ab .", max_size=20),
    st.none() | st.integers(1, 20),
    st.lists(st.text(alphabet="ab .", max_size=3), max_size=3),
)
def test_an_answer_keeps_to_the_limits_of_its_request(
    text: str, reasoning: str, limit: int | None, stop: list[str]
) -> None:
    answer = fit(Reply(text, reasoning=reasoning), question(max_tokens=limit, stop=tuple(stop)), "id")

    assert text.startswith(answer.text)
    assert reasoning.startswith(answer.thought)
    assert limit is None or answer.output <= limit
    assert not any(sequence in answer.text for sequence in stop if sequence)
    if answer.finish == "length":
        assert answer.output == limit
        assert answer.stop_sequence is None
    elif answer.stop_sequence is not None:
        assert text.startswith(answer.text + answer.stop_sequence)
    else:
        assert (answer.text, answer.thought) == (text, reasoning)


def test_text_in_pieces_is_streamed_in_these_pieces() -> None:
    answer = fit(Reply(("The capi", "tal is Paris", ".")), question(), "id")

    assert answer.pieces == ("The capi", "tal is Paris", ".")


def test_no_more_of_a_prompt_is_cached_than_there_is() -> None:
    answer = fit(Reply("Yes.", cached=1000), question(), "id")

    assert answer.cached == answer.input


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"status": 200}, "status=200 is no failure; give an HTTP status from 400 to 599"),
        ({"kind": "bad"}, "kind='bad' is unknown; it must be one of bad_request, auth, .*"),
        ({"retry_after": -1}, "retry_after=-1 is not allowed; give seconds, 0 or more"),
    ],
)
def test_a_failure_that_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(BadCall, match=f"^{message}$"):
        Failure(**given)


def test_a_finish_that_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(BadCall, match="finish='tool_calls' cannot be simulated; it must be one of stop, "):
        Reply("", finish="tool_calls")


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (None, "server"),
        (500, "server"),
        (599, "server"),
        (529, "overloaded"),
        (429, "rate_limit"),
        (400, "bad_request"),
        (418, "bad_request"),
        (401, "auth"),
        (404, "not_found"),
        (408, "timeout"),
    ],
)
def test_a_status_alone_means_what_it_means_in_http(status: int | None, meaning: str) -> None:
    assert Failure(status=status).meaning == meaning
