"""One ask: from the caller over the actor's inbox to its handler, and the reply back."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pykka
import trio
import xoscar
from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler
from trio.lowlevel import Abort, current_task, reschedule, wait_task_rescheduled

from benchmarks.harness import Row, Timer, compare
from ultra.actors import Actor, Message
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["many_callers", "one_caller"]


class Ping(Message[int], frozen=True):
    """What is asked."""

    number: int


class Echo(Actor):
    """Answers at once."""

    async def receive(self, message: object) -> object:
        return message.number if isinstance(message, Ping) else None


async def _ask(count: int, callers: int) -> float:
    async with ActorSystem() as system:
        echo = system.spawn(Echo, name="echo")
        await echo.ask(Ping(0))

        async def caller() -> None:
            for number in range(count // callers):
                await echo.ask(Ping(number))

        return await _timed_trio(caller, callers) / count


async def _timed_trio(caller: Callable[[], Awaitable[None]], callers: int) -> float:
    start = time.perf_counter()
    if callers == 1:
        await caller()
    else:
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(caller)
    return time.perf_counter() - start


async def _floor(count: int) -> float:
    """Two tasks that reschedule each other: the least that a question and its answer can cost on trio."""
    tasks: dict[str, trio.lowlevel.Task] = {}

    def never(_raise_cancel: object) -> Abort:
        return Abort.FAILED

    async def answerer(task_status: trio.TaskStatus[None]) -> None:
        tasks["answerer"] = current_task()
        task_status.started()
        for _ in range(count):
            await wait_task_rescheduled(never)
            reschedule(tasks["asker"])

    async with trio.open_nursery() as nursery:
        tasks["asker"] = current_task()
        await nursery.start(answerer)
        await trio.lowlevel.cancel_shielded_checkpoint()
        start = time.perf_counter()
        for _ in range(count):
            reschedule(tasks["answerer"])
            await wait_task_rescheduled(never)
        return (time.perf_counter() - start) / count


async def _floor_of_many(count: int, callers: int) -> float:
    """Many tasks and one that answers them by `reschedule`, all that wait in one go: the least, again."""
    asked: list[trio.lowlevel.Task] = []
    answerers: list[trio.lowlevel.Task] = []
    idle = False

    def never(_raise_cancel: object) -> Abort:
        return Abort.FAILED

    async def answerer(task_status: trio.TaskStatus[None]) -> None:
        nonlocal idle
        answerers.append(current_task())
        task_status.started()
        for _ in range(count):
            if not asked:
                idle = True
                await wait_task_rescheduled(never)
            reschedule(asked.pop())

    async def caller() -> None:
        nonlocal idle
        for _ in range(count // callers):
            asked.append(current_task())
            if idle:
                idle = False
                reschedule(answerers[0])
            await wait_task_rescheduled(never)

    async with trio.open_nursery() as nursery:
        await nursery.start(answerer)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return await _timed_trio(caller, callers) / count


FLOOR = "two trio tasks that reschedule each other"
FLOOR_OF_MANY = "as many trio tasks, rescheduled by one"


class PykkaEcho(pykka.ThreadingActor):
    """The same in pykka."""

    def on_receive(self, message: object) -> object:
        return message


def _pykka(count: int, callers: int) -> float:
    ref = PykkaEcho.start()

    def caller() -> None:
        for number in range(count // callers):
            ref.ask(number)

    async def run() -> float:
        limiter = trio.CapacityLimiter(callers)
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(partial(trio.to_thread.run_sync, caller, limiter=limiter))
        return time.perf_counter() - start

    try:
        if callers > 1:
            return trio.run(run) / count
        start = time.perf_counter()
        caller()
        return (time.perf_counter() - start) / count
    finally:
        ref.stop()


async def _asyncio_callers(caller: Callable[[], Awaitable[None]], callers: int) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - start


async def _queue(count: int, callers: int) -> float:
    """An asyncio task with a queue, answering by futures."""
    queue: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()

    async def answerer() -> None:
        while True:
            number, future = await queue.get()
            future.set_result(number)

    async def caller() -> None:
        loop = asyncio.get_running_loop()
        for number in range(count // callers):
            future: asyncio.Future[int] = loop.create_future()
            queue.put_nowait((number, future))
            await future

    task = asyncio.create_task(answerer())
    taken = await _asyncio_callers(caller, callers)
    task.cancel()
    return taken / count


@dataclass
class AutogenPing:
    """What autogen's agent is asked."""

    number: int


class AutogenEcho(RoutedAgent):
    """The same in autogen-core."""

    @message_handler
    async def on_ping(self, message: AutogenPing, ctx: MessageContext) -> AutogenPing:
        return message


async def _autogen(count: int, callers: int) -> float:
    runtime = SingleThreadedAgentRuntime()
    await AutogenEcho.register(runtime, "echo", lambda: AutogenEcho("echo"))
    runtime.start()
    agent = AgentId("echo", "default")

    async def caller() -> None:
        for number in range(count // callers):
            await runtime.send_message(AutogenPing(number), agent)

    taken = await _asyncio_callers(caller, callers)
    await runtime.stop()
    return taken / count


class XoscarEcho(xoscar.Actor):
    """The same in xoscar."""

    async def echo(self, number: int) -> int:
        return number


async def _xoscar(count: int, callers: int) -> float:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=0)
    async with pool:
        ref = await xoscar.create_actor(XoscarEcho, address=pool.external_address)

        async def caller() -> None:
            for number in range(count // callers):
                await ref.echo(number)

        return await _asyncio_callers(caller, callers) / count


def one_caller(*, brief: bool) -> list[Row]:
    """One caller asks one actor, one message after the other."""
    count = 500 if brief else 20_000
    slow = max(100, count // 20)
    return compare(
        "ask, one caller",
        partial(trio.run, _ask, count, 1),
        {
            FLOOR: (partial(trio.run, _floor, count), 1.6),
            "pykka": (partial(_pykka, slow, 1), None),
            "autogen-core": (_on_asyncio(_autogen, slow, 1), None),
            "xoscar": (_on_asyncio(_xoscar, slow, 1), None),
            "asyncio queue and future": (_on_asyncio(_queue, count, 1), None),
        },
        rounds=1 if brief else 9,
        limit=FLOOR,
    )


def many_callers(*, brief: bool) -> list[Row]:
    """A hundred callers ask one actor at once."""
    count = 1_000 if brief else 20_000
    slow = max(200, count // 10)
    return compare(
        "ask, 100 callers",
        partial(trio.run, _ask, count, 100),
        {
            FLOOR_OF_MANY: (partial(trio.run, _floor_of_many, count, 100), None),
            "pykka": (partial(_pykka, slow, 100), None),
            "autogen-core": (_on_asyncio(_autogen, slow, 100), None),
            "xoscar": (_on_asyncio(_xoscar, slow, 100), None),
            "asyncio queue and future": (_on_asyncio(_queue, count, 100), None),
        },
        rounds=1 if brief else 7,
        limit=FLOOR_OF_MANY,
    )


def _on_asyncio(function: Callable[..., Awaitable[float]], *args: object) -> Timer:
    async def run() -> float:
        return await function(*args)

    return lambda: asyncio.run(run())
