"""Answers out of nothing: what a simulated model says, and how much of it a request gets."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Final

from ultra.faults.provider.exchange import Answer, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.faults.provider.exchange import Question

__all__ = ["compose", "count_tokens", "fit", "split_tokens"]

_TOKEN: Final = re.compile(r"\s*(?:\w{1,6}|[^\w\s])|\s+")

_VOICE: Final = (
    "the question has more than one answer and each answer depends on what is asked of it . "
    "the first thing to say is that the facts are simple and the reasons are not . "
    "in practice most people find that a small change is enough to see the difference . "
    "what is known of it is known well and what is not known is the more interesting part . "
    "the short answer is yes and the long answer is that it depends on the details . "
    "to see why one has to look at the parts and then at the whole of it ."
)

_PROMPT_WORDS: Final = 100  # of the prompt; more make an answer no better

_WORDS: Final = (20, 60)  # of an answer


def split_tokens(text: str) -> list[str]:
    """Cut `text` into pieces about as long as tokens are; joined, they are the text again."""
    return _TOKEN.findall(text)


def count_tokens(question: Question) -> int:
    """The tokens of a prompt; each message takes three more, as at OpenAI."""
    texts = [question.system, *(message.text for message in question.messages)]
    return sum(len(split_tokens(text)) + 3 for text in texts if text)


def compose(question: Question, seed: int) -> Reply:
    """Make up an answer: a Markov chain of order one over stock phrases and the prompt's own words.

    Equal questions get equal answers, in every process; another `seed`, model or seed in the request
    gives another.
    """
    said = [(message.role, message.text) for message in question.messages]
    random = Random(repr((seed, question.model, question.seed, question.system, said)))
    known = [*_VOICE.split(), *re.findall(r"\w+", question.prompt.lower())[:_PROMPT_WORDS]]
    followers: dict[str, list[str]] = {}
    for word, follower in zip(known, [*known[1:], known[0]], strict=True):
        followers.setdefault(word, []).append(follower)
    words = [random.choice(known)]
    for _ in range(random.randint(*_WORDS)):
        words.append(random.choice(followers[words[-1]]))
    sentences = " ".join(words).strip(" .").split(" . ")
    return Reply(" ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence))


def fit(reply: Reply, question: Question, identifier: str) -> Answer:
    """Cut `reply` to the request's stop sequences and its limit of tokens, and count it."""
    reasoning = split_tokens(reply.reasoning)
    pieces = list(reply.text) if isinstance(reply.text, tuple) else split_tokens(reply.text)
    pieces, stop_sequence = _stopped(pieces, question.stop)
    finish = "stop" if stop_sequence is not None else reply.finish
    limit = question.max_tokens
    if limit is not None and len(reasoning) + len(pieces) > limit:
        reasoning = reasoning[:limit]
        pieces = pieces[: limit - len(reasoning)]
        finish, stop_sequence = "length", None
    prompt_tokens = count_tokens(question)
    return Answer(
        id=identifier,
        model=question.model,
        created=datetime.now(UTC),
        pieces=tuple(pieces),
        reasoning=tuple(reasoning),
        finish=finish,
        stop_sequence=stop_sequence,
        input=prompt_tokens,
        cached=min(reply.cached, prompt_tokens),
        include_usage=question.include_usage,
        failure=reply.failure,
        hold=reply.hold,
    )


def _stopped(pieces: list[str], stop: Sequence[str]) -> tuple[list[str], str | None]:
    """The pieces before the first stop sequence in them, and that sequence."""
    text = "".join(pieces)
    found = [(at, sequence) for sequence in stop if sequence and (at := text.find(sequence)) >= 0]
    if not found:
        return pieces, None
    left, sequence = min(found)
    kept = []
    for piece in pieces:
        if left <= 0:
            break
        kept.append(piece[:left])
        left -= len(piece)
    return kept, sequence
