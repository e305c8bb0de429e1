"""A trio thread that is shared by those who use it at once."""

from __future__ import annotations

import asyncio
import threading
from contextlib import nullcontext, suppress

import trio

from helpers.event_loops import on_asyncio
from ultra.bridge.portal import SharedTrioThread


async def thread_id() -> int:
    await trio.lowlevel.checkpoint()
    return threading.get_ident()


@on_asyncio
async def test_those_who_use_a_shared_thread_at_once_use_the_same_and_the_last_one_stops_it() -> None:
    shared = SharedTrioThread("shared")

    async with shared.wrap_context_manager(nullcontext()):
        threads = {await shared.run(thread_id), await shared.run(thread_id)}
        assert len(threads) == 1
        assert [thread.name for thread in threading.enumerate()].count("shared") == 1

    assert [thread.name for thread in threading.enumerate()].count("shared") == 0


@on_asyncio
async def test_a_shared_thread_starts_again_for_the_next_one() -> None:
    shared = SharedTrioThread("shared")

    for _ in range(3):
        assert await shared.run(thread_id) != threading.get_ident()
        assert [thread.name for thread in threading.enumerate()].count("shared") == 0


def test_loops_in_several_threads_share_a_trio_thread() -> None:
    shared = SharedTrioThread("shared")
    together = threading.Barrier(3)
    threads: list[int] = []

    async def main() -> None:
        async with shared.wrap_context_manager(nullcontext()):
            together.wait()
            threads.append(await shared.run(thread_id))
            together.wait()

    programs = [threading.Thread(target=asyncio.run, args=[main()]) for _ in range(3)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()

    assert len(threads) == 3
    assert len(set(threads)) == 1
    assert [thread.name for thread in threading.enumerate()].count("shared") == 0


@on_asyncio
async def test_a_shared_thread_survives_a_storm_of_calls_and_cancellations() -> None:
    shared = SharedTrioThread("shared")
    ended: list[int] = []

    async def work(number: int) -> None:
        try:
            await trio.sleep(number % 5 * 0.0005)
        finally:
            ended.append(number)

    async def call(number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(number % 7 * 0.0005):
                await shared.run(lambda: work(number))

    await asyncio.gather(*(call(number) for number in range(300)))

    assert len(ended) == len(set(ended))
    assert [thread.name for thread in threading.enumerate()].count("shared") == 0
