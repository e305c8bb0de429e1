"""The actor runtime against bare trio: tell, idle actors, restarts."""

from __future__ import annotations

import gc
import time
import tracemalloc
from functools import partial

import trio
import trio.testing

from benchmarks.harness import Row, compare, row
from ultra.actors import Actor, ActorOptions, Message
from ultra.supervisor import ActorSystem, Backoff, RestartIntensity

__all__ = ["crash_to_next_message", "idle_actors", "tell"]


class Item(Message[None], frozen=True):
    """What is told."""

    number: int


class Counter(Actor):
    """Counts, and tells when it has seen them all."""

    options = ActorOptions(capacity=1_000)

    def __init__(self, total: int, done: trio.Event) -> None:
        self.left = total
        self.done = done

    async def receive(self, message: object) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def _tell(count: int) -> float:
    done = trio.Event()
    async with ActorSystem() as system:
        counter = system.spawn(Counter, count, done, name="counter")
        await trio.testing.wait_all_tasks_blocked()
        start = time.perf_counter()
        for number in range(count):
            counter.tell(Item(number))
            if number % 500 == 499:
                await trio.lowlevel.checkpoint()
                while counter.snapshot().queued > 400:
                    await trio.lowlevel.checkpoint()
        await done.wait()
        return (time.perf_counter() - start) / count


async def _channel(count: int) -> float:
    send, receive = trio.open_memory_channel[Item](1_000)

    async def consume() -> None:
        left = count
        async for _ in receive:
            left -= 1
            if not left:
                return

    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(consume)
        for number in range(count):
            send.send_nowait(Item(number))
            if number % 500 == 499:
                await trio.lowlevel.checkpoint()
                while send.statistics().current_buffer_used > 400:
                    await trio.lowlevel.checkpoint()
    return (time.perf_counter() - start) / count


def tell(*, brief: bool) -> list[Row]:
    """Messages told to one actor, until it has handled them all."""
    count = 1_000 if brief else 50_000
    return compare(
        "tell",
        partial(trio.run, _tell, count),
        {"trio memory channel and its consumer": (partial(trio.run, _channel, count), 1.0)},
        rounds=1 if brief else 9,
    )


class Idle(Actor):
    """Waits for messages that never come."""

    async def receive(self, message: object) -> None:
        pass


async def _idle_actors(count: int, memory: bool, told: bool) -> float:  # noqa: FBT001 - trio.run takes no keywords
    begin = _begin(memory=memory)
    async with ActorSystem() as system:
        for number in range(count):
            actor = system.spawn(Idle, name=str(number))
            if told:
                actor.tell("a message")
        await trio.testing.wait_all_tasks_blocked()
        return _end(begin, memory=memory) / count


async def _idle_tasks(count: int, memory: bool, told: bool) -> float:  # noqa: FBT001 - as above
    async def wait(receive: trio.MemoryReceiveChannel[str]) -> None:
        async for _ in receive:
            pass

    begin = _begin(memory=memory)
    sending = []
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            if told:
                send, receive = trio.open_memory_channel[str](1)
                send.send_nowait("a message")
                sending.append(send)
                nursery.start_soon(wait, receive)
            else:
                nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        taken = _end(begin, memory=memory)
        nursery.cancel_scope.cancel()
    return taken / count


def _begin(*, memory: bool) -> float:
    if memory:
        tracemalloc.start()
    return time.perf_counter()


def _end(begin: float, *, memory: bool) -> float:
    """Seconds since `begin`, or bytes that were allocated since then and not freed."""
    if not memory:
        return time.perf_counter() - begin
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return float(used)


def idle_actors(*, brief: bool) -> list[Row]:
    """Many actors that wait, against as many bare tasks: the time to start one, and its memory.

    An actor has no task before its first message; so they are measured after one, too, against tasks that
    have taken an item out of a memory channel each.
    """
    rows = []
    for told, count in ((False, 500 if brief else 100_000), (True, 500 if brief else 20_000)):
        after = " after a message" if told else ""
        against = f"{count:,} {'tasks with a memory channel' if told else 'bare trio tasks'}"
        for what, memory, unit in (("spawn", False, "s"), ("memory", True, "bytes")):
            pairs = []
            for _ in range(1 if brief else 3):
                gc.collect()
                ours = trio.run(_idle_actors, count, memory, told)
                gc.collect()
                pairs.append((ours, trio.run(_idle_tasks, count, memory, told)))
            rows.append(
                row(
                    f"{what}, {count:,} idle actors{after}",
                    against,
                    [ours for ours, _ in pairs],
                    [theirs for _, theirs in pairs],
                    target=None if told else 3.0,
                    unit=unit,
                )
            )
    return rows


class Fragile(Actor):
    """Crashes when told to, and answers everything else."""

    async def receive(self, message: object) -> object:
        if message == "crash":
            raise RuntimeError("as told")
        return message


async def _restart(count: int) -> float:
    options = ActorOptions(max_deliveries=1)
    async with ActorSystem(intensity=RestartIntensity(count + 1, within=1e9)) as system:
        fragile = system.spawn(Fragile, name="fragile", options=options, backoff=Backoff(initial=0))
        await fragile.ask("hello")
        start = time.perf_counter()
        for _ in range(count):
            fragile.tell("crash")
            await fragile.ask("next")
        return (time.perf_counter() - start) / count


async def _restart_loop(count: int) -> float:
    """What one writes without a library: a nursery in a loop, and a channel that outlives it."""
    send, receive = trio.open_memory_channel[str](10)
    reply_send, reply_receive = trio.open_memory_channel[str](10)

    async def fragile() -> None:
        while True:
            message = await receive.receive()
            if message == "crash":
                raise RuntimeError("as told")
            await reply_send.send(message)

    async def supervise() -> None:
        while True:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fragile)
            except* RuntimeError:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(supervise)
        start = time.perf_counter()
        for _ in range(count):
            await send.send("crash")
            await send.send("next")
            await reply_receive.receive()
        taken = (time.perf_counter() - start) / count
        nursery.cancel_scope.cancel()
    return taken


def crash_to_next_message(*, brief: bool) -> list[Row]:
    """A crash without backoff, until the restarted actor has answered the next message."""
    count = 50 if brief else 2_000
    return compare(
        "crash to the next message",
        partial(trio.run, _restart, count),
        {"a bare nursery in a loop": (partial(trio.run, _restart_loop, count), 2.0)},
        rounds=1 if brief else 7,
    )
