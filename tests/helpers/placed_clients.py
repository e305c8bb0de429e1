"""Clients for processes of a Ray cluster. What they do, they write into files of a folder."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ultra.errors import ModelError
from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ultra.messages.request import ModelRequest


class NoSuchCity(Exception):
    """An error of the client's own."""


class Guide:
    """On asyncio. Each prompt says what it does; its answers end with the id of its process."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.tell("made", str(os.getpid()))

    def tell(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    async def until(self, name: str) -> None:
        while not (self.folder / name).exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.005)

    async def generate(self, prompt: str) -> str:
        return "".join([piece async for piece in self.stream(prompt)])

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        yield "Paris, "
        self.tell("begun")
        try:
            match prompt:
                case "in two parts":
                    await self.until("go on")
                case "never":
                    await asyncio.sleep(1e6)
                case "fail":
                    raise NoSuchCity("Atlantis")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "die once":
                    if not (self.folder / "died").exists():
                        self.tell("died")
                        os.kill(os.getpid(), signal.SIGKILL)
        except asyncio.CancelledError:
            self.tell("cancelled")
            raise
        yield f"by {os.getpid()}"


class TrioGuide:
    """On trio, for whole requests."""

    async_library = "trio"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    async def respond(self, request: ModelRequest) -> Completion:
        (self.folder / "begun").touch()
        try:
            if request.prompt == "never":
                await trio.sleep_forever()
        except trio.Cancelled:
            (self.folder / "cancelled").touch()
            raise
        if request.prompt == "fail":
            raise ModelError("busy", kind="overloaded", retry_after=7.0)
        return Completion(f"Paris, by {os.getpid()}")

    stream_response = None


class Unmakeable(Guide):
    def __init__(self, folder: str) -> None:
        raise FileNotFoundError(f"no weights in {Path(folder).name}")
