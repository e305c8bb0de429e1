"""The answers that a run has paid for, by what was asked: after a crash they are used, not asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ultra.stores.journal_contract import LeaseLost
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey

__all__ = ["PaidAnswers", "answer_key"]


def answer_key(model_name: str, request: ModelRequest, number: int) -> AnswerKey:
    """Return the key of the answer of a model to a request; `number` counts from 0 how often it was asked."""
    return cache_key(request, model_name, number)


class PaidAnswers:
    """The answers of one run; an `AnswerMemo`.

    Args:
        known: those of earlier executions.
        keep: writes one to the journal, and returns when no crash can lose it.
    """

    def __init__(
        self,
        known: Mapping[AnswerKey, ModelResponse],
        keep: Callable[[AnswerKey, ModelResponse], Awaitable[None]],
    ) -> None:
        self.answers = dict(known)
        self._keep = keep

    def begin(self) -> Callable[[str, ModelRequest], _Slot]:
        """Return what gives the slots of an execution that begins now."""
        asked: Counter[AnswerKey] = Counter()

        def slot(model_name: str, request: ModelRequest) -> _Slot:
            first = answer_key(model_name, request, 0)
            number = asked[first]
            asked[first] += 1
            return _Slot(self, answer_key(model_name, request, number) if number else first)

        return slot

    async def keep(self, key: AnswerKey, response: ModelResponse) -> None:
        """Keep an answer."""
        self.answers[key] = response
        try:
            await self._keep(key, response)
        except LeaseLost:
            return  # the run is about to be broken off


class _Slot:
    """The place of one answer; an `AnswerSlot`."""

    __slots__ = ("_key", "_paid")

    def __init__(self, paid: PaidAnswers, key: AnswerKey) -> None:
        self._paid = paid
        self._key = key

    def kept(self) -> ModelResponse | None:
        return self._paid.answers.get(self._key)

    async def keep(self, response: ModelResponse) -> None:
        await self._paid.keep(self._key, response)
