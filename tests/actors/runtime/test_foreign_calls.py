"""An actor is called in the trio run that it lives in; calls from elsewhere are refused."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from helpers.scripted_actors import (
    ScriptedActor,
    wide,
)
from ultra.actors import ActorOptions
from ultra.actors.runtime.home_run import HomeRun
from ultra.errors import (
    UsageError,
)
from ultra.supervisor import ActorSystem

if TYPE_CHECKING:
    from ultra.actors import ActorRef


async def test_a_tell_from_a_foreign_thread_is_refused_and_breaks_nothing() -> None:
    def tell() -> None:
        with pytest.raises(UsageError, match="outside of trio; it can be called only in the trio run"):
            ref.tell("from a foreign thread")
        trio.from_thread.run_sync(ref.tell, "by trio's thread")

    async with ActorSystem() as system:
        for options in (ActorOptions(), wide(2)):
            handled: list[object] = []
            ref = system.spawn(ScriptedActor, handled, options=options)
            await wait_all_tasks_blocked()
            for _ in ("without a task so far", "with a worker that waits"):
                await trio.to_thread.run_sync(tell)
                await wait_all_tasks_blocked()
            assert handled == ["by trio's thread"] * 2


def test_a_call_outside_of_the_run_names_the_actor_and_the_root_too() -> None:
    async def settle() -> None:
        home.settle()

    home = HomeRun()
    trio.run(settle)
    for path, shown in (("/one", "'/one'"), ("", "'/'")):
        with pytest.raises(UsageError, match=f"^{shown} was called outside of trio"):
            home.check(path)


async def test_a_call_from_another_trio_run_is_refused_and_sends_nothing() -> None:
    async def call_all() -> None:
        with pytest.raises(UsageError, match="in another trio run"):
            ref.tell("from another run")
        for call in (ref.ask, ref.send):
            with pytest.raises(UsageError, match="in another trio run"):
                await call("from another run")
        with pytest.raises(UsageError, match="in another trio run"):
            await ref.stop()

    handled: list[object] = []
    async with ActorSystem() as system:
        ref = system.spawn(ScriptedActor, handled)
        await trio.to_thread.run_sync(trio.run, call_all)
        assert await ref.ask("from here") == "from here"
        assert (handled, ref.snapshot().sent) == (["from here"], 1)


def test_a_call_from_the_host_of_a_guest_run_is_refused_and_sends_nothing() -> None:
    refs: list[ActorRef] = []
    tried: list[object] = []
    there = asyncio.Event()

    async def guest() -> list[object]:
        handled: list[object] = []
        async with ActorSystem() as system:
            refs.append(system.spawn(ScriptedActor, handled))
            there.set()
            while not tried:
                await trio.lowlevel.checkpoint()
        return handled

    async def host() -> Any:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Any] = loop.create_future()
        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        await there.wait()
        with pytest.raises(UsageError, match="outside of trio"):
            refs[0].tell("from the host")
        tried.append("tell")
        return (await ended).unwrap()

    assert asyncio.run(host()) == []
