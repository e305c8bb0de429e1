"""The contract of shared limits, for every store of them."""

from __future__ import annotations

import gc
import socket
import sqlite3
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from helpers.event_loops import on_asyncio
from ultra.errors import BadCall, ConfigError
from ultra.stores.contracts import GRANT_SECONDS, LimitsUnavailable, Want
from ultra.stores.memory_limits import MemoryLimits
from ultra.stores.opening import open_limits
from ultra.stores.sqlite_limits import SqliteLimits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ultra.stores.contracts import SharedLimits

START = 1_800_000_000.0


class Store:
    """A store of limits, and its clock, which `later` sets forward."""

    def __init__(self, kind: str, where: str) -> None:
        self.kind = kind
        self.where = where
        self.passed = 0.0
        self.files: list[SqliteLimits] = []
        self.limits = self.again()

    def again(self) -> SharedLimits:
        """Another process's view of the same limits; of those in memory there is one only."""
        if self.kind == "memory":
            return getattr(self, "limits", None) or MemoryLimits(now=lambda: START + self.passed)
        if self.kind == "sqlite":
            self.files.append(SqliteLimits(self.where, now=lambda: START + self.passed))
            return self.files[-1]
        from ultra.stores.redis_limits import RedisLimits  # noqa: PLC0415 - it needs the extra

        return RedisLimits(self.where, ahead=self.passed)

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.passed += seconds
        if self.kind == "redis":
            limits: Any = self.limits
            limits.ahead = self.passed


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    where = str(tmp_path / "limits.db")
    if request.param == "redis":
        where = request.getfixturevalue("url")
    store = Store(request.param, where)
    yield store
    for file in store.files:
        anyio.run(file.aclose)


def rate(amount: float = 1.0, most: float = 60.0) -> Want:
    return Want(name="rpm", kind="rate", most=most, amount=amount)


def budget(amount: float, most: float = 1.0, name: str = "day:1") -> Want:
    return Want(name=name, kind="budget", most=most, amount=amount, until=START + 86400)


def lease(most: float = 2.0) -> Want:
    return Want(name="running", kind="lease", most=most)


async def test_a_bucket_gives_what_it_holds_and_is_filled_with_time(store: Store) -> None:
    first = await store.limits.take([rate(60)])
    refused = await store.limits.take([rate(30)])
    store.later(31)
    second = await store.limits.take([rate(30)])

    assert first.grant is not None
    assert first.states["rpm"].left == pytest.approx(0, abs=1)
    assert (refused.grant, refused.refused) == (None, "rpm")
    assert refused.retry_after == pytest.approx(30, abs=2)
    assert refused.states["rpm"].reset == pytest.approx(60, abs=2)
    assert second.grant is not None


async def test_more_than_a_bucket_holds_takes_all_of_it_and_the_rest_comes_back(store: Store) -> None:
    grant = (await store.limits.take([rate(1000)])).grant
    assert grant is not None
    assert (await store.limits.take([rate(30)])).grant is None
    await store.limits.settle(grant, {"rpm": 10})

    assert (await store.limits.take([rate(45)])).grant is not None


async def test_what_was_used_beyond_what_was_taken_is_owed(store: Store) -> None:
    grant = (await store.limits.take([rate(1)])).grant
    assert grant is not None
    await store.limits.settle(grant, {"rpm": 120})

    refused = await store.limits.take([rate(1)])

    assert refused.retry_after == pytest.approx(61, abs=2)


async def test_a_budget_is_passed_by_one_estimate_at_most_however_many_ask_at_once(store: Store) -> None:
    granted: list[str] = []

    async def ask() -> None:
        decision = await store.limits.take([budget(0.3)])
        if decision.grant is not None:
            granted.append(decision.grant)
        else:
            assert decision.refused == "day:1"

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(ask)

    assert len(granted) == 4  # 1.2 of 1.0: passed by less than one estimate
    for grant in granted:
        await store.limits.settle(grant, {"day:1": 0.2})
    again = await store.limits.take([budget(0.3)])
    assert again.states["day:1"].left == pytest.approx(0)  # 0.8 spent, and 0.3 reserved
    assert again.grant is not None
    assert (await store.limits.take([budget(0.3)])).grant is None
    assert (await store.limits.take([budget(0.3, name="day:2")])).grant is not None


async def test_nothing_is_taken_where_one_of_the_limits_does_not_allow_it(store: Store) -> None:
    assert (await store.limits.take([budget(2.0)])).grant is not None

    refused = await store.limits.take([rate(60), lease(), budget(0.1)])
    after = await store.limits.take([rate(60), lease(most=1)])

    assert refused.refused == "day:1"
    assert after.grant is not None


async def test_so_many_are_held_at_once_and_each_comes_back(store: Store) -> None:
    grants = [(await store.limits.take([lease()])).grant for _ in range(3)]
    assert grants[2] is None
    assert grants[0] is not None
    await store.limits.settle(grants[0], {})
    await store.limits.settle(grants[0], {})  # once only

    assert [(await store.limits.take([lease()])).grant is not None for _ in range(2)] == [True, False]


async def test_the_grant_of_a_process_that_died_is_over_and_its_reservation_spent(store: Store) -> None:
    lost = await store.limits.take([lease(most=1), budget(0.6)])
    assert lost.grant is not None
    store.later(GRANT_SECONDS + 1)

    after = await store.limits.take([lease(most=1), budget(0.3)])
    await store.limits.settle(lost.grant, {"day:1": 0.0})  # too late: it counts already

    assert after.grant is not None
    assert after.states["day:1"].left == pytest.approx(0.1)


async def test_a_grant_that_is_renewed_goes_on(store: Store) -> None:
    grant = (await store.limits.take([lease(most=1)])).grant
    assert grant is not None
    for _ in range(3):
        store.later(GRANT_SECONDS - 10)
        await store.limits.renew([grant, "unknown"])

    assert (await store.limits.take([lease(most=1)])).grant is None


async def test_a_budget_is_forgotten_after_its_period_and_not_before(store: Store) -> None:
    grant = (await store.limits.take([budget(0.9)])).grant
    assert grant is not None
    await store.limits.settle(grant, {})
    if store.kind == "redis":
        return  # it removes keys by its own clock
    store.later(3600)
    before = await store.limits.take([budget(0.0)])
    assert before.grant is not None
    await store.limits.settle(before.grant, {})
    store.later(2 * 86400)
    after = await store.limits.take([budget(0.0)])

    assert before.states["day:1"].left == pytest.approx(0.1)
    assert after.states["day:1"].left == pytest.approx(1.0)


@on_asyncio
async def test_limits_work_on_asyncio(store: Store) -> None:
    grant = (await store.limits.take([rate(), lease(), budget(0.5)])).grant
    assert grant is not None
    await store.limits.settle(grant, {"day:1": 0.1})
    assert (await store.limits.take([lease(most=1)])).grant is not None


async def test_budgets_outlive_the_process_that_spent_them(store: Store) -> None:
    if store.kind == "memory":
        pytest.skip("what is in memory ends with the process")
    grant = (await store.limits.take([budget(0.9)])).grant
    assert grant is not None
    await store.limits.settle(grant, {"day:1": 0.9})
    await store.limits.aclose()

    seen = await store.again().take([budget(0.05)])

    assert seen.states["day:1"].left == pytest.approx(0.05)


async def test_a_file_that_is_none_of_limits_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE t (x)")
    connection.commit()
    connection.close()
    text = tmp_path / "text.db"
    text.write_text("not a database, but long enough to be looked at" * 30)

    for path in (other, text, tmp_path / "no" / "such" / "directory.db"):
        with pytest.raises(ConfigError):
            SqliteLimits(path)


async def test_a_file_that_cannot_be_used_any_more_is_told(tmp_path: Path) -> None:
    path = tmp_path / "limits.db"
    limits = SqliteLimits(path, busy_timeout=0.01)
    with sqlite3.connect(path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LimitsUnavailable, match="locked"):
            await limits.take([rate()])
    other.close()

    assert (await limits.take([rate()])).grant is not None
    assert path.stat().st_mode & 0o077 == 0
    await limits.aclose()


# coredis leaves streams unclosed when it cannot connect.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_server_that_does_not_answer_is_told_without_its_password() -> None:
    pytest.importorskip("coredis", reason="the extra 'redis' is not installed")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    limits = open_limits(f"redis://user:passphrase@127.0.0.1:{port}")

    with pytest.raises(LimitsUnavailable) as caught:
        await limits.take([rate()])

    assert "passphrase" not in str(caught.value)
    del caught
    gc.collect()  # while the filter holds


@pytest.mark.parametrize("spec", ["", "postgres://user:passphrase@host", "sqlite:///", "redis://"])
def test_a_store_that_does_not_exist_is_refused(spec: str) -> None:
    with pytest.raises(BadCall) as caught:
        open_limits(spec)

    assert "passphrase" not in str(caught.value)
