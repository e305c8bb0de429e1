"""The turns of a conversation, and which of them a context window holds: the oldest are left out first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart
from ultra.messages.conversation import with_system
from ultra.messages.rendering import without_media
from ultra.messages.request import ModelRequest
from ultra.messages.tokens import estimate_message, estimate_request
from ultra.messages.tools import ToolChoice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "TURN_MARKERS",
    "FittedRequest",
    "KeptHistory",
    "after_history",
    "answer_tokens",
    "count_unseen",
    "fit_history",
    "fit_request",
    "frame_of",
    "history_of",
    "media_of",
    "tokens_of",
]

TURN_MARKERS: Final = 5
"""Tokens that a chat template puts around each message."""


class KeptHistory(NamedTuple):
    """What is left of a conversation, and how much of it is not: messages, and about how many tokens."""

    messages: tuple[ChatMessage, ...]
    left_out: int = 0
    tokens: int = 0


class FittedRequest(NamedTuple):
    """A request as one model can read it.

    `images` and `files` are how many of them it is told in words, `left_out` how many of the oldest messages
    are not in it, and `tokens` about how many these have.
    """

    request: ModelRequest
    images: int = 0
    files: int = 0
    left_out: int = 0
    tokens: int = 0


def history_of(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Return what was said before the question, without system messages.

    The question is the last message of the user. Where tool calls and their results follow it, it is a part
    of the history, too: they are of no sense without it.
    """
    said = tuple(message for message in messages if message.role != "system")
    return said[:-1] if said and said[-1].role == "user" else said


def frame_of(request: ModelRequest) -> ModelRequest:
    """Return `request` without messages, as models are asked that read what others answer to it.

    They write as its options say, and call no tools. Some APIs take the tool calls of a history only beside
    the tools, so these stay where there are such calls.
    """
    if request.tools and any(message.tool_calls for message in request.messages):
        return replace(request, messages=(), output=None, sample=0, tool_choice=ToolChoice("none"))
    return ModelRequest(messages=(), options=request.options)


def media_of(request: ModelRequest) -> tuple[ImagePart | FilePart, ...]:
    """Return the images and documents of the question, unless that is a part of the history."""
    last = request.messages[-1] if request.messages else None
    if last is None or last.role != "user":
        return ()
    return tuple(part for part in last.parts if isinstance(part, ImagePart | FilePart))


def after_history(request: ModelRequest, prompt: str, system: str | None) -> ModelRequest:
    """Return the request that asks `prompt` in place of the question, after the same history.

    The images and documents of the question stand ahead of the prompt. `system` is the system prompt.
    """
    media = media_of(request)
    content = (*media, TextPart(prompt)) if media else prompt
    said = (*history_of(request.messages), ChatMessage("user", content))
    return replace(frame_of(request), messages=with_system(said, system))


def tokens_of(message: ChatMessage) -> int:
    """Return about how many tokens a message takes of a context window, with the markers of its turn."""
    return estimate_message(message) + TURN_MARKERS


def answer_tokens(context_window: int, max_tokens: int | None) -> int:
    """Return how many tokens of a window are kept for the answer.

    A quarter of the window; more, up to a half of it, if the answer may have so many.
    """
    return max(context_window // 4, min(max_tokens or 0, context_window // 2))


def count_unseen(
    messages: Iterable[ChatMessage], *, images: bool | None, files: bool | None
) -> tuple[int, int]:
    """Return how many images and documents are in `messages` that are known not to be read.

    Documents of plain text do not count: they are told word for word.
    """
    counts = [0, 0]
    for message in messages:
        for part in () if isinstance(message.content, str) else message.content:
            if isinstance(part, ImagePart):
                counts[0] += images is False
            elif isinstance(part, FilePart) and (part.data is None or part.media_type != "text/plain"):
                counts[1] += files is False
    return counts[0], counts[1]


def fit_history(history: Sequence[ChatMessage], room: int) -> KeptHistory:
    """Return as much of the newest of `history` as fits into `room` tokens.

    What goes together goes as one: a message of the user with all that follows it up to the next one. After
    the last message of the user, these are each tool call with its results, and, last, that message with the
    newest of them. It takes time linear in the history.
    """
    return _without_oldest(history, _units(history, all_may_go=True), room)


def fit_request(
    request: ModelRequest,
    *,
    images: bool | None = None,
    files: bool | None = None,
    budget: int | None = None,
    turns: Iterable[ChatMessage] | None = None,
) -> FittedRequest:
    """Return `request` as a model can read it: media that it does not read in words, old turns left out.

    System messages, the question (the last message of the user), the tools, and the newest tool call after
    the question with its results stay, even if they alone are too long: then the provider has the last word.
    It takes time linear in the request.

    Args:
        request: what is asked.
        images: whether the model reads images; None: that is not known, and they stay.
        files: whether it reads documents, likewise.
        budget: tokens that the request may have; None: no limit.
        turns: the messages that may be left out; None: all but those that always stay.
    """
    unseen = count_unseen(request.messages, images=images, files=files)
    messages = request.messages
    if images is False or files is False:
        messages = without_media(messages, images=images is not False, files=files is not False)
    kept = KeptHistory(messages)
    if budget is not None and len(messages) > 1:
        units = _units(messages, all_may_go=False)
        if turns is not None:
            may_go = set(map(id, turns))
            # By the messages of the request: telling media in words makes others of them.
            units = [unit for unit in units if all(id(request.messages[at]) in may_go for at in unit)]
        if units:
            frame = estimate_request(replace(request, messages=()))
            kept = _without_oldest(messages, units, budget - frame)
    if kept.messages == request.messages:
        return FittedRequest(request)
    return FittedRequest(replace(request, messages=kept.messages), *unseen, kept.left_out, kept.tokens)


def _without_oldest(
    messages: Sequence[ChatMessage], units: Sequence[Sequence[int]], room: int
) -> KeptHistory:
    costs = list(map(tokens_of, messages))
    total = sum(costs)
    gone: set[int] = set()
    lost = 0
    for unit in units:
        if total - lost <= room:
            break
        gone.update(unit)
        lost += sum(costs[at] for at in unit)
    if not gone:
        return KeptHistory(tuple(messages))
    kept = tuple(message for at, message in enumerate(messages) if at not in gone)
    return KeptHistory(kept, len(gone), lost)


def _units(messages: Sequence[ChatMessage], *, all_may_go: bool) -> list[list[int]]:
    """Return the indices of the messages that may go, the oldest first; each list goes as a whole."""
    said = [at for at, message in enumerate(messages) if message.role != "system"]
    users = [at for at in said if messages[at].role == "user"]
    question = users[-1] if users else -1
    after = _calls(messages, [at for at in said if at > question]) if users else []
    exchanges: list[list[int]] = []
    for at in said:
        if at == question and (after or not all_may_go):
            break
        if messages[at].role == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(at)
    if not after:
        return exchanges
    newest = [[question, *after[-1]]] if all_may_go else []
    return [*exchanges, *after[:-1], *newest]


def _calls(messages: Sequence[ChatMessage], indices: Iterable[int]) -> list[list[int]]:
    """Return `indices` in lists: each message of an assistant with the results of its calls."""
    found: list[list[int]] = []
    for at in indices:
        if messages[at].role != "tool" or not found:
            found.append([])
        found[-1].append(at)
    return found
