"""What a run leaves behind goes when nobody refers to it: the garbage collector has nothing to find.

A result, and the prompts in the frames of an error, would stay in memory until it runs.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra import MultiLLMOrchestrator, UltraError
from ultra._support.collector import collector_off

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def plain(orchestrator: MultiLLMOrchestrator) -> None:
    await orchestrator.process_responses("Why is the sky blue?")


async def one_model(orchestrator: MultiLLMOrchestrator) -> None:
    await orchestrator.get_model_response("llama", "Why is the sky blue?")


async def streamed(orchestrator: MultiLLMOrchestrator) -> None:
    async with orchestrator.stream_responses("Why is the sky blue?") as run:
        async for _ in run:
            pass


async def left_early(orchestrator: MultiLLMOrchestrator) -> None:
    async with orchestrator.stream_responses("Why is the sky blue?"):
        pass


async def broken_off(orchestrator: MultiLLMOrchestrator) -> None:
    async with orchestrator.stream_responses("Why is the sky blue?"):
        raise UltraError("the reader has enough")


def on_asyncio(main: Callable[[], Awaitable[object]]) -> None:
    async def run() -> None:
        await main()

    asyncio.run(run())


async def answers(_prompt: str) -> str:
    return "It scatters."


async def fails(_prompt: str) -> str:
    raise ValueError("boom")


@pytest.mark.parametrize("ask", [plain, one_model, streamed, left_early, broken_off])
@pytest.mark.parametrize("client", [answers, fails])
@pytest.mark.parametrize("run", [trio.run, on_asyncio], ids=["trio", "asyncio"])
def test_a_run_leaves_no_garbage(run: Callable[[Any], object], client: object, ask: Any) -> None:
    async def main() -> None:
        async def once() -> None:
            with suppress(UltraError):
                await ask(orchestrator)

        orchestrator = MultiLLMOrchestrator(max_retries=0, cache_enabled=False)
        orchestrator.register_model("llama", client)
        async with orchestrator:
            for _ in range(3):  # whatever they keep for good, they keep now
                await once()
            while gc.collect():  # what an earlier test has left: a loop, and then what was known of it
                pass
            with collector_off():
                await once()
                left.append(gc.collect())

    left: list[int] = []
    logging.disable(logging.CRITICAL)  # records keep tracebacks
    try:
        run(main)
    finally:
        logging.disable(logging.NOTSET)
    assert left == [0]
