"""Answers that must satisfy a schema: those that do not are asked for once more, with what is wrong."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from ultra.actors.model.spending import NOTHING_SPENT, Spent
from ultra.clients.plain_values import plain_usage
from ultra.errors import AllAttemptsFailed, ModelError
from ultra.messages.chat import ChatMessage
from ultra.messages.schema import InvalidOutputError

if TYPE_CHECKING:
    from ultra.messages.output_types import OutputType
    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse

__all__ = ["OutputCheck"]

_ONCE_MORE: Final = (
    "Your answer does not satisfy the JSON schema that it must satisfy:\n{problems}\n"
    "Give the whole answer again, corrected, as one JSON value and nothing else."
)
_LONGEST_QUOTED: Final = 16_000
"""Characters of a wrong answer that its model gets back."""


class OutputCheck:
    """The answers of one model to one request; a new one for each request of a run.

    Where the request wants no output, or `output` is None, it lets every answer pass. An answer that calls
    tools passes, too: it is none yet.

    Attributes:
        request: what to ask now: the request, then the conversation with the wrong answer.
        use_cache: whether an answer from the cache will do: it will not where one was wrong twice.
        spent: what the answers that did not satisfy the schema have used.
        wrong: what is wrong with the latest of these.
    """

    def __init__(self, output: OutputType | None, request: ModelRequest, *, use_cache: bool = True) -> None:
        self.request = request
        self.use_cache = use_cache
        self.spent = NOTHING_SPENT
        self._output = None if request.output is None else output
        self.wrong: ModelError | None = None
        self._failed: AllAttemptsFailed | None = None
        self._attempts = 0
        self._seconds = 0.0
        self._is_repair = False

    def restart(self, request: ModelRequest) -> None:
        """Begin again with another request, such as one with a shorter prompt."""
        self.request = request
        self._is_repair = False

    def read(self, response: ModelResponse) -> ModelResponse | None:
        """Return the answer with its `output`; None: ask `request`, which has changed, again.

        Raises:
            AllAttemptsFailed: it does not satisfy the schema either; the cause has kind ``content``.
        """
        if self._output is None or response.tool_calls:
            return self._with_earlier(response)
        try:
            found = self._output.read(response.content)
        except InvalidOutputError as error:
            self._ask_again(response, str(error))
            return None
        return self._with_earlier(replace(response, content=found.text, output=found.value))

    def with_earlier(self, error: Exception) -> Exception:
        """Return the error of the latest call with what the wrong answers before it have used."""
        if not (self._is_repair and isinstance(error, AllAttemptsFailed)) or error is self._failed:
            return error
        whole = copy.copy(error)
        told = plain_usage(error.usage)
        spent = self.spent.plus(Spent(told, error.cost))
        whole.usage, whole.cost = spent.usage, spent.cost
        whole.attempts += self._attempts
        return whole

    def _ask_again(self, response: ModelResponse, problems: str) -> None:
        self.spent = self.spent.plus(_spent(response))
        self._attempts += response.attempts
        self._seconds += response.response_time
        # One that was cut off would be cut off again.
        if not response.is_whole or (self._is_repair and not response.cached):
            self._failed = self._failure(response, problems)
            raise self._failed
        self.wrong = _wrong(response, f"and is asked for once more: {problems}")
        if self._is_repair:  # the cache may be asked as often as one likes: it answers the same
            self.use_cache = False
            return
        said = ChatMessage("assistant", response.content[:_LONGEST_QUOTED])
        asked = ChatMessage("user", _ONCE_MORE.format(problems=problems))
        self.request = replace(self.request, messages=(*self.request.messages, said, asked))
        self._is_repair = True

    def _failure(self, response: ModelResponse, problems: str) -> AllAttemptsFailed:
        twice = "twice" if self._is_repair else f"and it {response.not_whole_because}"
        return AllAttemptsFailed(
            response.model_name,
            self._attempts,
            _wrong(response, f"{twice}: {problems}"),
            usage=self.spent.usage,
            cost=self.spent.cost,
        )

    def _with_earlier(self, response: ModelResponse) -> ModelResponse:
        """Return the answer with what the wrong ones before it have used."""
        if not self._is_repair:
            return response
        spent = self.spent.plus(Spent(response.lost_usage, response.cost))
        return replace(
            response,
            lost_usage=spent.usage,
            cost=spent.cost,
            attempts=response.attempts + self._attempts,
            response_time=response.response_time + self._seconds,
        )


def _spent(response: ModelResponse) -> Spent:
    if response.cached:
        return NOTHING_SPENT
    return Spent(response.usage.plus(response.lost_usage), response.cost)


def _wrong(response: ModelResponse, why: str) -> ModelError:
    message = f"the answer does not satisfy the schema, {why}"
    return ModelError(message, kind="content", retryable=False, request_id=response.request_id)
