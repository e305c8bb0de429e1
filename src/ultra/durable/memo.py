"""The answers that a run has paid for, by what was asked: after a crash they are used, not asked for."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ultra.stores.journal_contract import LeaseLost
from ultra.stores.keys import cache_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from ultra.messages.request import ModelRequest
    from ultra.messages.results import ModelResponse
    from ultra.stores.journal_contract import AnswerKey

__all__ = ["PaidAnswers", "answer_key"]


def answer_key(model_name: str, request: ModelRequest, number: int) -> AnswerKey:
    """Return the key of the answer of a model to a request; `number` counts from 0 how often it was asked."""
    return cache_key(request, model_name, number)


class PaidAnswers:
    """The answers of one run; an `AnswerMemo`. It holds their keys, and reads an answer when it is asked for.

    Args:
        keys: of the answers of earlier executions.
        find: returns the answer under a key; None: it cannot be read any more.
        keep: writes one, and returns when no crash can lose it.
    """

    def __init__(
        self,
        keys: Iterable[AnswerKey],
        find: Callable[[AnswerKey], Awaitable[ModelResponse | None]],
        keep: Callable[[AnswerKey, ModelResponse], Awaitable[None]],
    ) -> None:
        self._keys = set(keys)
        self._find = find
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

    async def find(self, key: AnswerKey) -> ModelResponse | None:
        """Return the answer under this key; None: there is none."""
        return await self._find(key) if key in self._keys else None

    async def keep(self, key: AnswerKey, response: ModelResponse) -> None:
        """Keep an answer."""
        self._keys.add(key)  # first: it is kept even where this is cancelled
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

    async def kept(self) -> ModelResponse | None:
        return await self._paid.find(self._key)

    async def keep(self, response: ModelResponse) -> None:
        await self._paid.keep(self._key, response)
