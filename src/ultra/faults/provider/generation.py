"""Generate the answers of simulated models, and cut them to the limits of a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Final

from ultra.faults.provider.neutral import Answer, Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.faults.provider.neutral import Question

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
    """Split `text` into pieces about as long as tokens. Joined, they are the text again."""
    return _TOKEN.findall(text)


def count_tokens(question: Question) -> int:
    """Count the tokens of a prompt. Each message takes three more, as at OpenAI."""
    texts = [question.system, *(message.text for message in question.messages)]
    return sum(len(split_tokens(text)) + 3 for text in texts if text)


def compose(question: Question, seed: int) -> Reply:
    """Generate an answer: a Markov chain of order one over fixed phrases and the words of the prompt.

    Equal questions get equal answers, in every process. Another `seed`, another model, or another seed
    in the request gives another answer.
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
    """Cut `reply` to the stop sequences and the token limit of the request, and count its tokens."""
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
    """Return the pieces before the first stop sequence in them, and that sequence."""
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
