"""Clients for tests: they answer at once, stream, wait for the test's word, or fail as told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ultra.messages.results import Completion

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable


class Voice:
    """Answers ``"<name>: <prompt>"``, or `answer`; raises what `failures` holds, one a call, first."""

    def __init__(
        self, name: str = "voice", *, answer: str | None = None, failures: Iterable[Exception] = ()
    ) -> None:
        self.name = name
        self.answer = answer
        self.failures: list[Exception] = list(failures)
        self.prompts: list[str] = []

    async def generate(self, prompt: str) -> str | Completion:
        self.prompts.append(prompt)
        await trio.lowlevel.checkpoint()
        if self.failures:
            raise self.failures.pop(0)
        return self.answer if self.answer is not None else f"{self.name}: {prompt}"

    @property
    def calls(self) -> int:
        return len(self.prompts)


class SlowVoice(Voice):
    """Takes `seconds` to answer."""

    def __init__(self, name: str = "slow", *, seconds: float, answer: str | None = None) -> None:
        super().__init__(name, answer=answer)
        self.seconds = seconds
        self.cancelled = 0

    async def generate(self, prompt: str) -> str | Completion:
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return await super().generate(prompt)


class GatedVoice(Voice):
    """Answers once the test opens its gate; `asked` tells that a call has come."""

    def __init__(self, name: str = "gated", *, answer: str | None = None) -> None:
        super().__init__(name, answer=answer)
        self.asked = trio.Event()
        self.gate = trio.Event()
        self.cancelled = 0

    async def generate(self, prompt: str) -> str | Completion:
        self.asked.set()
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return await super().generate(prompt)


class StreamingVoice(Voice):
    """Streams `pieces`, `seconds` apart, as its answer; fails after `break_after` pieces `breaks` times."""

    def __init__(
        self, name: str, pieces: Iterable[str], *, seconds: float = 0, breaks: int = 0, break_after: int = 1
    ) -> None:
        self.pieces = tuple(pieces)
        super().__init__(name, answer="".join(self.pieces))
        self.seconds = seconds
        self.breaks = breaks
        self.break_after = break_after
        self.streams = 0

    async def stream(self, prompt: str) -> AsyncIterator[str]:
        self.prompts.append(prompt)
        self.streams += 1
        for number, piece in enumerate(self.pieces):
            await trio.sleep(self.seconds)
            if self.breaks and number == self.break_after:
                self.breaks -= 1
                raise ConnectionError("the stream broke")
            yield piece
