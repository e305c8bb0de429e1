"""Strategies that ask everybody, made of a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ultra.strategies import Answer, RunContext


class By:
    """A strategy that is a function of the test."""

    def __init__(self, function: Callable[[RunContext], Awaitable[Any]]) -> None:
        self._function = function

    async def run(self, context: RunContext) -> Answer:
        answer: Answer = await self._function(context)
        return answer


async def ask_everybody(context: RunContext, **how: Any) -> Answer:
    with context.step("initial"):
        responses = await context.ask_all(context.request, **how)
    return Answer(responses[0] if responses else None)


ALL = By(ask_everybody)
