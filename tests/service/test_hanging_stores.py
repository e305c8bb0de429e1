"""A journal or a store of limits that does not answer: the end of the service waits for it a bounded time."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.services import ask, service_of
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.service.core import Service
from ultra.service.quotas import Quotas
from ultra.service.uninterrupted import PATIENCE
from ultra.stores.journal_memory import MemoryJournal
from ultra.stores.memory_limits import MemoryLimits
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

RUNS = "/v1/runs"
BODY = {"prompt": "x", "model": "a", "store": True}
KEY = "sk-ultra-of-alice"


class Hanging(MemoryJournal):
    """A journal whose methods of these names never end, from when `hangs` is set."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.hangs = True
        for name in names:
            setattr(self, name, self._hang_or(getattr(self, name)))

    def _hang_or(self, method: Any) -> Any:
        async def call(*args: Any, **more: Any) -> Any:
            if self.hangs:
                await trio.sleep_forever()
            return await method(*args, **more)

        return call


async def seconds_to_end(service: Service, body: dict[str, Any]) -> float:
    """Ask, end service and request while that is under way, and return how long the end takes."""
    begun = inf
    headers = {"authorization": f"Bearer {KEY}"}
    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask(service, body, RUNS, headers=headers))
        await trio.sleep(2)
        begun = trio.current_time()
        nursery.cancel_scope.cancel()
    return trio.current_time() - begun


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("name", "what"), [("add", "submitting"), ("cancel", "cancelling")])
async def test_a_journal_that_hangs_holds_up_the_end_of_the_service_for_seconds_only(
    name: str, what: str, *, stream: bool, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    service = service_of({"a": FakeModel(seconds=inf)}, journal=Hanging(name))

    with trio.fail_after(100):
        took = await seconds_to_end(service, {**BODY, "stream": stream})

    assert took <= 2 * PATIENCE
    assert "no answer in time" in caplog.text
    assert f"{what} " in caplog.text


async def test_a_run_whose_submission_hangs_is_refused(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel()}, journal=Hanging("add"))
    async with service.running():
        begun = trio.current_time()
        answer = await ask(service, BODY, RUNS)
        took = trio.current_time() - begun

    assert (answer.status, answer.error["code"]) == (503, "journal_unavailable")
    assert took == pytest.approx(PATIENCE)


async def test_a_run_in_the_background_whose_submission_hangs_is_refused(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel()}, journal=Hanging("add"))
    async with service.running():
        answer = await ask(service, {**BODY, "background": True}, RUNS)

    assert (answer.status, answer.error["code"]) == (503, "journal_unavailable")


@pytest.mark.parametrize("name", ["take", "settle"])
async def test_limits_that_hang_hold_up_the_end_of_the_service_for_seconds_only(
    name: str, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    class HangingLimits(MemoryLimits):
        pass

    async def hang(*_: Any) -> None:
        await trio.sleep_forever()

    setattr(HangingLimits, name, hang)
    service = service_of({"a": FakeModel(seconds=inf)})
    keys = (KeyConfig(name="alice", hash=hash_of(KEY), tokens_per_minute=10_000),)
    service = Service(service.orchestrator, ServeConfig(keys=keys, linger=0.0), limits=HangingLimits())

    with trio.fail_after(100):
        took = await seconds_to_end(service, {"prompt": "x", "model": "a"})

    assert took <= 2 * PATIENCE
    assert "no answer in time" in caplog.text


async def test_what_limits_that_hung_were_not_told_is_told_later(autojump_clock: MockClock) -> None:
    told: list[str] = []

    class Slow(MemoryLimits):
        hangs = True

        async def settle(self, grant: str, used: Any) -> None:
            if self.hangs:
                await trio.sleep_forever()
            told.append(grant)

    limits = Slow()
    quotas = Quotas(limits)
    await quotas._settle("a grant", {})
    limits.hangs = False
    with trio.move_on_after(100):
        await quotas.keep()

    assert told == ["a grant"]
