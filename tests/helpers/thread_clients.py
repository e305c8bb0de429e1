"""Clients that a test places in a process, which is a thread of it, and what it sees of them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, ClassVar

import trio

from ultra.errors import ModelError
from ultra.messages.request import ModelRequest
from ultra.messages.results import Completion, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.cluster.ray import PlacedModel
    from ultra.errors import ClientCrashed

__all__ = ["Asyncio", "Events", "OnTrio", "Running", "pieces_of", "start_and_end", "synchronous"]


class Events:
    """What the clients of one test do, by name: set there, waited for here."""

    known: ClassVar[dict[str, threading.Event]] = {}

    @classmethod
    def of(cls, name: str) -> threading.Event:
        return cls.known.setdefault(name, threading.Event())

    @classmethod
    async def happened(cls, name: str) -> bool:
        return await trio.to_thread.run_sync(cls.of(name).wait, 5)


class Asyncio:
    """On asyncio: answers at once, in two pieces, or never."""

    context_window = 4096

    def __init__(self, city: str = "Paris") -> None:
        self.city = city

    async def generate(self, prompt: str, *, system: str | None = None) -> Completion:
        await self._do(prompt)
        return Completion(f"{self.city}.", usage=Usage(3, 4), finish_reason="stop")

    async def stream(self, prompt: str) -> AsyncIterator[str | Completion]:
        yield f"{self.city[:2]}"
        await self._do(prompt)
        yield ""
        yield f"{self.city[2:]}."

    async def _do(self, prompt: str) -> None:
        Events.of("begun").set()
        try:
            if prompt == "never":
                await asyncio.sleep(1e6)
            if prompt == "fail":
                raise ZeroDivisionError("a bug")
            if prompt == "later":
                await asyncio.to_thread(Events.of("go on").wait)
        except asyncio.CancelledError:
            Events.of("cancelled").set()
            raise


class OnTrio:
    """The same on trio, for whole requests."""

    async_library = "trio"

    async def respond(self, request: ModelRequest) -> Completion:
        Events.of("begun").set()
        try:
            if request.prompt == "never":
                await trio.sleep_forever()
        except trio.Cancelled:
            Events.of("cancelled").set()
            raise
        if request.prompt == "fail":
            raise ModelError("busy", kind="overloaded", retry_after=7.0)
        return Completion("Paris.")

    stream_response = None


def synchronous(prompt: str) -> str:
    if prompt == "fail":
        raise ZeroDivisionError("a bug")
    return "Paris."


class Running:
    """A placed model that runs, without an orchestrator."""

    def __init__(self, placed: PlacedModel) -> None:
        self.placed = placed
        self.crashes: list[ClientCrashed] = []

    async def __aenter__(self) -> PlacedModel:
        self._end = await self.placed.start_with_actor(self.crashes.append)
        await self.placed.until_ready()
        return self.placed

    async def __aexit__(self, *_: object) -> None:
        await self._end()


async def start_and_end(placed: PlacedModel) -> None:
    end = await placed.start_with_actor(lambda _: None)
    await end()


async def pieces_of(placed: PlacedModel, prompt: str) -> list[str | Completion]:
    assert placed.stream_response is not None
    call = placed.stream_response(ModelRequest.of(prompt))
    try:
        return [piece async for piece in call]
    finally:
        await call.aclose()
