"""Whole runs: initial, meta and synthesis over models that cost nothing, so that what is left is ours."""

from __future__ import annotations

import asyncio
import gc
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from benchmarks.harness import Row, Timer, compare, p99, row
from ultra import MultiLLMOrchestrator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["cached_run", "full_run", "runs_at_once"]

NAMES = ("one", "two", "three")
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


async def instant(prompt: str) -> str:
    """A model that answers at once."""
    return ANSWER


async def _ours(count: int, *, cached: bool) -> float:
    async with MultiLLMOrchestrator(cache_enabled=cached) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, instant)
        await orchestrator.process_responses(QUESTION)
        start = time.perf_counter()
        for _ in range(count):
            result = await orchestrator.process_responses(QUESTION)
        taken = (time.perf_counter() - start) / count
    if result.status != "success":
        raise RuntimeError(f"the run ended as {result.status}")
    return taken


async def _langchain(count: int) -> float:
    """The same seven calls: two parallel steps with retries, and one call after them."""
    from langchain_core.runnables import RunnableLambda, RunnableParallel  # noqa: PLC0415

    def step() -> Any:  # noqa: ANN401 - the peers' types are theirs
        return RunnableParallel({name: RunnableLambda(_instant_of).with_retry() for name in NAMES})

    chain = step() | RunnableLambda(_joined) | step() | RunnableLambda(_joined)
    chain = chain | RunnableLambda(_instant_of).with_retry()
    await chain.ainvoke(QUESTION)
    start = time.perf_counter()
    for _ in range(count):
        await chain.ainvoke(QUESTION)
    return (time.perf_counter() - start) / count


async def _instant_of(prompt: str) -> str:
    return ANSWER


async def _joined(answers: dict[str, str]) -> str:
    return QUESTION + "\n".join(answers.values())


async def _litellm(count: int) -> float:
    """The same seven calls through a Router with mock responses."""
    from litellm import Router  # noqa: PLC0415

    router = Router(
        model_list=[
            {
                "model_name": name,
                "litellm_params": {"model": f"openai/{name}", "api_key": "none", "mock_response": ANSWER},
            }
            for name in NAMES
        ],
        num_retries=3,
    )

    async def ask(name: str, prompt: str) -> str:
        answer: Any = await router.acompletion(model=name, messages=[{"role": "user", "content": prompt}])
        return str(answer.choices[0].message.content)

    async def run() -> None:
        prompt = QUESTION
        for _ in range(2):
            prompt = QUESTION + "\n".join(await asyncio.gather(*(ask(name, prompt) for name in NAMES)))
        await ask(NAMES[0], prompt)

    await run()
    start = time.perf_counter()
    for _ in range(count):
        await run()
    return (time.perf_counter() - start) / count


def full_run(*, brief: bool) -> list[Row]:
    """Three instant models, all stages, retries and metrics on, cache off."""
    count = 5 if brief else 200
    return compare(
        "a full run, 7 calls",
        _trio(_ours, count, cached=False),
        {
            "langchain-core, RunnableParallel with retry": (_asyncio(_langchain, count), 1 / 4),
            "litellm, Router with mock responses": (_asyncio(_litellm, max(2, count // 10)), 1 / 30),
        },
        rounds=1 if brief else 7,
    )


def cached_run(*, brief: bool) -> list[Row]:
    """The same run with every answer in the cache, against the run without a cache."""
    count = 5 if brief else 200
    return compare(
        "a cached run",
        _trio(_ours, count, cached=True),
        {"the same without cache": (_trio(_ours, count, cached=False), None)},
        rounds=1 if brief else 7,
    )


async def _at_once(runs: int, seconds: float) -> list[float]:
    """How long each of `runs` runs takes that start together, with models that take `seconds`."""

    async def model(prompt: str) -> str:
        await trio.sleep(seconds)
        return ANSWER

    taken: list[float] = []
    async with MultiLLMOrchestrator(cache_enabled=False, limits=None) as orchestrator:
        for name in NAMES:
            orchestrator.register_model(name, model, limits=_unlimited())
        await orchestrator.process_responses(QUESTION)

        async def run(number: int) -> None:
            start = time.perf_counter()
            await orchestrator.process_responses(f"{QUESTION} {number}")
            taken.append(time.perf_counter() - start)

        async with trio.open_nursery() as nursery:
            for number in range(runs):
                nursery.start_soon(run, number)
    return taken


async def _bare_at_once(runs: int, seconds: float) -> list[float]:
    """What trio itself takes for three nurseries of as many sleeps, one after the other."""
    taken: list[float] = []

    async def run() -> None:
        start = time.perf_counter()
        for models in (len(NAMES), len(NAMES), 1):
            async with trio.open_nursery() as nursery:
                for _ in range(models):
                    nursery.start_soon(trio.sleep, seconds)
        taken.append(time.perf_counter() - start)

    async with trio.open_nursery() as nursery:
        for _ in range(runs):
            nursery.start_soon(run)
    return taken


def _unlimited() -> Any:  # noqa: ANN401 - imported where it is used
    from ultra import Limits  # noqa: PLC0415

    return Limits(concurrency=None)


def runs_at_once(*, brief: bool) -> list[Row]:
    """Many runs at once of models of 100 ms: the 99th percentile against three times that."""
    runs, seconds = (10, 0.01) if brief else (200, 0.1)
    ours: list[float] = []
    bare: list[float] = []
    for number in range(1 if brief else 8):
        for taken, at_once in ((ours, _at_once), (bare, _bare_at_once)):
            gc.collect()
            waits = trio.run(at_once, runs, seconds)
            if number or brief:  # the first round warms up
                taken.append(p99(waits))
    name = f"{runs} runs at once, p99"
    ideal = f"the ideal of {3 * seconds * 1e3:.0f} ms"
    return [
        row(name, ideal, ours, [3 * seconds] * len(ours), target=1.3),
        row(name, "the same waits in bare trio nurseries", ours, bare, target=None),
        row(
            f"{runs} times the same waits in bare trio nurseries, p99",
            ideal,
            bare,
            [3 * seconds] * len(bare),
            target=None,
        ),
    ]


def _trio(function: Callable[..., Awaitable[float]], *args: object, **options: Any) -> Timer:  # noqa: ANN401
    return lambda: trio.run(partial(function, *args, **options))


def _asyncio(function: Callable[..., Awaitable[float]], *args: object) -> Timer:
    async def run() -> float:
        return await function(*args)

    return lambda: asyncio.run(run())
