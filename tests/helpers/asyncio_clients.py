"""Clients that belong to an asyncio loop, and orchestrators of them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from ultra import (
    MultiLLMOrchestrator,
    RetryPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

AT_ONCE = RetryPolicy(max_retries=2, initial=0, maximum=0)


class AsyncioClient:
    """An asyncio client. Answers ``"<name>: <prompt>"``; raises what `failures` holds first."""

    def __init__(self, name: str = "client", *, failures: Iterable[Exception] = ()) -> None:
        self.name = name
        self.failures = list(failures)
        self.prompts: list[str] = []
        self.loops: set[asyncio.AbstractEventLoop] = set()

    async def generate(self, prompt: str) -> str:
        self.prompts.append(prompt)
        self.loops.add(asyncio.get_running_loop())
        async with asyncio.timeout(60):  # needs a task of asyncio
            await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        return f"{self.name}: {prompt}"


class HangingClient:
    """An asyncio client that never answers; takes a moment to end when it is cancelled."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.story: list[str] = []

    async def generate(self, prompt: str) -> str:
        self.asked.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.story.append("cancelled")
            await asyncio.sleep(0.01)
            self.story.append("ended")
            raise
        return "?"


def three(**settings: Any) -> tuple[MultiLLMOrchestrator, AsyncioClient, AsyncioClient, AsyncioClient]:
    """An orchestrator with the guide's three models, not entered."""
    orchestrator = MultiLLMOrchestrator(retry=AT_ONCE, **settings)
    llama, chatgpt, gemini = AsyncioClient("llama"), AsyncioClient("chatgpt"), AsyncioClient("gemini")
    orchestrator.register_model("llama", llama, weight=1.0)
    orchestrator.register_model("chatgpt", chatgpt, weight=3.0)
    orchestrator.register_model("gemini", gemini, weight=2.0)
    return orchestrator, llama, chatgpt, gemini


def trio_threads() -> int:
    return [thread.name for thread in threading.enumerate()].count("ultra")
