"""Clients of every shape, as an adapter finds them."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra.clients.adapter import ClientAdapter
from ultra.errors import ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

USAGE = Usage(input=3, output=5)


QUESTION = ModelRequest.of("Q")


class Client:
    """A client with whatever answer it is given."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def generate(self, prompt: str) -> Any:
        return self.answer


class Streaming:
    """A client that yields `pieces` and notes whether its stream was closed."""

    def __init__(self, *pieces: object) -> None:
        self.pieces = pieces
        self.closed = False

    async def generate(self, prompt: str) -> str:
        return f"whole answer to {prompt}"

    async def stream(self, prompt: str) -> AsyncIterator[Any]:
        try:
            for piece in self.pieces:
                await trio.lowlevel.checkpoint()
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.closed = True


async def failure_of(client: object, **arguments: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        await ClientAdapter(client).call(QUESTION, **arguments)
    return caught.value


async def generate(prompt: str) -> str:
    return f"answer to {prompt}"


@wraps(generate)
def decorated(prompt: str) -> Awaitable[str]:
    return generate(prompt)


class CallableObject:
    async def __call__(self, prompt: str) -> str:
        return await generate(prompt)


class Synchronous:
    def generate(self, prompt: str) -> str:
        return f"answer to {prompt}"
