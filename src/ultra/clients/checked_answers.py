"""What makes an answer of what a client gave: its checks, and the error for one that is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from msgspec.structs import replace

from ultra.clients.cleaning import cleaned, joined_parts, shows_nothing
from ultra.clients.dialects.usage import with_parts
from ultra.clients.plain_values import plain_completion, plain_text
from ultra.errors import ModelError
from ultra.messages.chat import ChatMessage
from ultra.messages.results import Completion, Refusal, Usage
from ultra.messages.tokens import estimate_message, estimate_request

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest

__all__ = ["EmptyAnswer", "checked", "plain", "refusal_of", "settled", "wrong_type"]

# Finish reasons of empty answers that a retry would get again: the model refuses, all of `max_tokens` went
# into reasoning, or it waits for a tool.
_LASTING: Final = frozenset({"content_filter", "refusal", "length", "tool_calls"})
_LONGEST_REFUSAL: Final = 2_000  # characters of it in an error
_REFUSED: Final = frozenset({"content_filter", "refusal"})
_LONGEST_QUOTED: Final = 200  # characters


class EmptyAnswer(ModelError):
    """The model gave no answer: it wrote no text, or refused, perhaps in the middle of one.

    Attributes:
        usage: the tokens of the call; None where the client reported none.
        refusal: how the model refused; None if it only wrote nothing.
    """

    def __init__(self, completion: Completion) -> None:
        said = f": {completion.refusal[:_LONGEST_REFUSAL]}" if completion.refusal else ""
        what = "the answer is empty"
        if not shows_nothing(completion.content):
            what = f"the model broke off its answer, which began {completion.content[:_LONGEST_QUOTED]!r}"
        super().__init__(
            f"{what} (finish reason: {completion.finish_reason or 'not reported'}){said}",
            kind="content",
            retryable=completion.finish_reason not in _LASTING,
            request_id=completion.request_id,
            usage=completion.usage,
        )
        self.refusal = _refusal(completion)


def _refusal(completion: Completion) -> Refusal | None:
    filtered = completion.finish_reason == "content_filter"
    if not (filtered or completion.finish_reason == "refusal" or completion.refusal):
        return None
    begun = "" if shows_nothing(completion.content) else completion.content
    reason: Literal["refusal", "content_filter"] = "content_filter" if filtered else "refusal"
    return Refusal(reason=reason, words=completion.refusal or None, begun=begun)


def refusal_of(error: Exception) -> Refusal | None:
    """Return the refusal that an error of a client is: by the model, or by a filter of its provider."""
    if isinstance(error, EmptyAnswer):
        return error.refusal
    if isinstance(error, ModelError) and error.kind == "content" and error.provider:
        return Refusal(reason="content_filter")
    return None


def checked(answer: object, request: ModelRequest) -> Completion:
    """Return what a client gave as a whole answer with plain values, reasoning apart, and counts.

    Raises:
        EmptyAnswer: it is empty, or a refusal.
        ModelError: it is no text (kind ``protocol``, permanent).
    """
    if isinstance(answer, str):
        completion = Completion(content=plain_text(answer))
    elif isinstance(answer, Completion):
        completion = plain(answer)
    elif isinstance(answer, list) and (parts := joined_parts(answer)) is not None:
        completion = plain(parts)
    else:
        raise wrong_type(answer, "str or Completion")
    completion = cleaned(completion, request)
    empty = shows_nothing(completion.content) and not completion.tool_calls
    if empty or completion.finish_reason in _REFUSED or completion.refusal:
        raise EmptyAnswer(completion)
    usage = completion.usage
    if usage is not None and (usage.input is not None or usage.output is not None):
        return completion
    return replace(completion, usage=_estimate(completion, request))


def settled(completion: Completion, request: ModelRequest) -> Completion:
    """Return `completion` with counts that can be true: no text of nothing, no part above its whole."""
    usage = completion.usage
    if usage is None:
        return completion
    if usage.input and usage.output:
        whole = with_parts(usage)
        return completion if whole is usage else replace(completion, usage=whole)
    estimate = _estimate(completion, request)
    corrected = replace(
        usage, input=usage.input or estimate.input, output=usage.output or estimate.output, estimated=True
    )
    return replace(completion, usage=with_parts(corrected))


def plain(given: Completion) -> Completion:
    """Return `given` with plain values, and a list of parts as their text. Raises `ModelError`.

    An answer that is only calls of tools may have None as its content, as in OpenAI's API.
    """
    content: object = given.content
    if content is None and given.tool_calls:
        given = replace(given, content="")
    if isinstance(content, list) and (parts := joined_parts(content)) is not None:
        given = replace(given, content=parts.content, reasoning=given.reasoning or parts.reasoning)
    try:
        return plain_completion(given)
    except TypeError as error:
        if not isinstance(given.content, str):
            raise wrong_type(given.content, "str as the content of a Completion") from error
        raise ModelError(
            f"the client gave a Completion with a part that is not allowed: {error}",
            kind="protocol",
            retryable=False,
        ) from error


def _estimate(completion: Completion, request: ModelRequest) -> Usage:
    return Usage(
        input=estimate_request(request),
        output=estimate_message(ChatMessage("assistant", completion.content, completion.tool_calls)),
        estimated=True,
    )


def wrong_type(given: object, allowed: str) -> ModelError:
    """Make the error for what is of another type than is allowed."""
    return ModelError(
        f"the client gave {type(given).__qualname__}; allowed is {allowed}",
        kind="protocol",
        retryable=False,
    )
