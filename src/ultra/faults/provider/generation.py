"""Generate the answers of simulated models, and cut them to the limits of a request."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from random import Random
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from ultra.faults.provider.neutral import Answer, Call, Reply, WrittenCall, call_tokens
from ultra.faults.provider.schema_values import value_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.faults.provider.neutral import Question

__all__ = ["IMAGE_TOKENS", "compose", "count_tokens", "fit", "split_tokens"]

IMAGE_TOKENS: Final = 258
"""Tokens that an image counts as, and a document: as a small image and a page do at Gemini."""

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
    """Count the tokens of a prompt. Each message takes three more, as at OpenAI.

    Calls and results of tools count, and the tools and the schema of the answer as the JSON that they are.
    """
    texts = [question.system]
    for message in question.messages:
        texts += [message.text, *(f"{call.name}{call.text}" for call in message.calls)]
        texts += [result.text for result in message.results]
    texts += [f"{tool.name}{tool.description}{_json(tool.parameters)}" for tool in question.tools]
    texts.append("" if question.schema is None else _json(question.schema))
    return sum(len(split_tokens(text)) + 3 for text in texts if text) + sum(_media_tokens(question))


def compose(question: Question, seed: int) -> Reply:
    """Generate an answer: a Markov chain of order one over fixed phrases and the words of the prompt.

    Equal questions get equal answers, in every process. Another `seed`, another model, or another seed
    in the request gives another answer.

    With tools, it calls those that it must call (`tool_choice`), and those that the question names; where
    the question speaks of tools and names none, the first one. Arguments, and an answer in JSON, are
    generated from their schemas. After results of tools, the answer begins with these.
    """
    random = Random(repr((seed, question.model, question.seed, question.system, _said(question))))
    if calls := _calls(question, random):
        return Reply(calls=calls)
    if question.schema is not None:
        return Reply(_json(value_for(question.schema, random)))
    told = [f"{result.name or 'The tool'} says {result.text}." for result in question.results if result.text]
    known = [*_VOICE.split(), *re.findall(r"\w+", question.prompt.lower())[:_PROMPT_WORDS]]
    followers: dict[str, list[str]] = {}
    for word, follower in zip(known, [*known[1:], known[0]], strict=True):
        followers.setdefault(word, []).append(follower)
    words = [random.choice(known)]
    for _ in range(random.randint(*_WORDS)):
        words.append(random.choice(followers[words[-1]]))
    sentences = " ".join(words).strip(" .").split(" . ")
    written = [f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences if sentence]
    return Reply(" ".join(told + written))


def _said(question: Question) -> list[tuple[object, ...]]:
    """What decides an answer beside the settings; a turn of text alone is its role and its text."""
    said: list[tuple[object, ...]] = []
    for message in question.messages:
        more = (message.media, message.calls, message.results)
        said.append(
            (message.role, message.text, *map(repr, more)) if any(more) else (message.role, message.text)
        )
    return said


def _calls(question: Question, random: Random) -> tuple[Call, ...]:
    """Return the calls that an answer makes unscripted."""
    tools, choice = question.tools, question.choice
    words = {word.strip(".:-") for word in re.findall(r"[\w.:-]+", question.prompt.lower())}
    chosen = [tool for tool in tools if tool.name.lower() in words]
    if choice.mode == "none" or (choice.mode == "auto" and question.results):
        chosen = []
    elif choice.mode == "named":
        chosen = [tool for tool in tools if tool.name == choice.name]
    elif not chosen and (choice.mode == "required" or words & {"tool", "tools"}):
        chosen = list(tools[:1])
    if choice.parallel is False:
        chosen = chosen[:1]
    return tuple(Call(tool.name, value_for(tool.parameters, random)) for tool in chosen)


def fit(reply: Reply, question: Question, identifier: str) -> Answer:
    """Cut `reply` to the stop sequences and the token limit of the request, and count its tokens."""
    reasoning = split_tokens(reply.reasoning)
    pieces = list(reply.text) if isinstance(reply.text, tuple) else split_tokens(reply.text)
    pieces, stop_sequence = _stopped(pieces, question.stop)
    finish = "stop" if stop_sequence is not None else reply.finish
    calls = tuple(
        WrittenCall(call.id, f"{identifier}{number:02}", call.name, tuple(split_tokens(call.text)))
        for number, call in enumerate(() if stop_sequence is not None else reply.calls)
    )
    if calls and finish == "stop":
        finish = "tool_calls"
    limit = question.max_tokens
    if limit is not None and len(reasoning) + len(pieces) + sum(map(call_tokens, calls)) > limit:
        reasoning = reasoning[:limit]
        pieces = pieces[: limit - len(reasoning)]
        calls = _cut(calls, limit - len(reasoning) - len(pieces))
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
        calls=calls,
        input=prompt_tokens,
        media_tokens=_media_tokens(question),
        cached=min(reply.cached, prompt_tokens),
        question=question,
        failure=reply.failure,
        hold=reply.hold,
    )


def _cut(calls: Sequence[WrittenCall], left: int) -> tuple[WrittenCall, ...]:
    """Return as much of `calls` as so many tokens are; the last may be cut in its arguments."""
    kept = []
    for call in calls:
        if left <= 0:
            break
        pieces = call.pieces[: left - 1]
        kept.append(replace(call, pieces=pieces, whole=len(pieces) == len(call.pieces)))
        left -= call_tokens(call)
    return tuple(kept)


def _media_tokens(question: Question) -> tuple[int, int]:
    return IMAGE_TOKENS * len(question.images), IMAGE_TOKENS * len(question.documents)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


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
