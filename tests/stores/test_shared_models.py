"""The contract of what replicas share of their models, for every store of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from ultra.errors import BadCall
from ultra.messages.results import Completion, Usage
from ultra.stores import MemorySharedModels, SharedModels
from ultra.stores.opening import open_shared
from ultra.stores.shared_contract import CALL_SECONDS, ModelNews, ModelRates, SharedUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

# coredis does not close its queues (they are memory, no sockets) when it cannot connect.
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*<function MemoryObject(Send|Receive)Stream:pytest.PytestUnraisableExceptionWarning"
    ),
    pytest.mark.usefixtures("no_garbage_is_left"),
]

PATIENCE = 20.0
RATES = ModelRates(60.0, 6000.0)
SLOW = ModelRates(6.0, 6000.0)
"""So slow that little is refilled while a test runs: the clock of a server goes on."""
ANSWER = Completion("Paris.", usage=Usage(3, 4), finish_reason="stop")
KEY = b"k" * 16


class Store:
    """Views of one shared state, and its clock, which `later` sets forward; it goes on by itself, too."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self._url = url
        self._passed = 0.0
        self._views: list[Any] = []

    def view(self) -> SharedModels:
        if self.kind == "memory":
            view: Any = MemorySharedModels(self._views[0] if self._views else None)
            if not self._views:
                now = view._state.now
                view._state.now = lambda: now() + self._passed
        else:
            from ultra.stores.shared_redis import RedisSharedModels  # noqa: PLC0415 - it needs the extra

            view = RedisSharedModels(self._url, timeout=PATIENCE, ahead=self._passed)
        self._views.append(view)
        return view  # type: ignore[no-any-return]

    def later(self, seconds: float) -> None:
        self._passed += seconds
        for view in self._views:
            view.ahead = self._passed


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest) -> Store:
    return Store(request.param, request.getfixturevalue("url") if request.param == "redis" else "")


@asynccontextmanager
async def kept(*views: SharedModels) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        for view in views:
            await nursery.start(lambda task_status, view=view: view.keep_connected(task_status=task_status))
        yield
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is no event
            await trio.sleep(0.005)


async def test_it_is_what_the_contract_says(store: Store) -> None:
    assert isinstance(store.view(), SharedModels)


async def test_a_bucket_is_for_all_and_what_is_not_there_is_taken_in_advance(store: Store) -> None:
    one, other = store.view(), store.view()
    waits = [(await view.reserve("m", SLOW, 0, inf)).wait for view in [one, other] * 3]
    assert max(waits) == 0
    later = [await view.reserve("m", SLOW, 0, inf) for view in (one, other, one)]
    for number, reservation in enumerate(later, start=1):
        assert reservation.taken
        assert reservation.wait == pytest.approx(10 * number, abs=4)  # in the order in which they came
    assert (await one.reserve("another", SLOW, 0, inf)).wait == 0
    store.later(60)
    assert (await other.reserve("m", SLOW, 0, inf)).wait == 0


async def test_tokens_and_requests_are_taken_together_or_not_at_all(store: Store) -> None:
    view = store.view()
    assert (await view.reserve("m", SLOW, 6000, inf)).wait == 0
    refused = await view.reserve("m", SLOW, 3000, 5.0)
    assert not refused.taken
    assert refused.wait == pytest.approx(30, abs=4)
    only_requests = ModelRates(6.0, None)
    for _ in range(5):
        assert (await view.reserve("m", only_requests, 0, inf)).wait == 0
    assert (await view.reserve("m", only_requests, 0, inf)).wait == pytest.approx(10, abs=4)


async def test_more_than_a_bucket_holds_is_all_that_it_holds(store: Store) -> None:
    view = store.view()
    assert (await view.reserve("m", RATES, 1e6, inf)).wait == 0
    assert (await view.reserve("m", RATES, 1e6, inf)).wait == pytest.approx(60, abs=4)


async def test_a_rate_below_one_a_minute_still_lets_a_call_through(store: Store) -> None:
    view = store.view()
    slow = ModelRates(0.5, None)
    assert (await view.reserve("m", slow, 0, inf)).wait == 0
    assert (await view.reserve("m", slow, 0, inf)).wait == pytest.approx(120, abs=4)


async def test_what_was_used_more_is_taken_and_what_was_not_used_returns(store: Store) -> None:
    view = store.view()
    async with kept(view):
        first = await view.reserve("m", RATES, 3000, inf)
        view.settle("m", RATES, first.at, tokens=3000)
        await until_wait(view, 500, lambda wait: wait > 1)
        second = await view.reserve("n", RATES, 6000, inf)
        view.settle("n", RATES, second.at, requests=-1, tokens=-6000)
        await until_wait(view, 6000, lambda wait: wait == 0, model="n")


async def until_wait(
    view: SharedModels, tokens: float, fits: Callable[[float], bool], model: str = "m"
) -> None:
    """Ask, and take nothing, until the wait is as it should be."""
    with trio.fail_after(PATIENCE):
        while True:
            if fits((await view.reserve(model, RATES, tokens, -1.0)).wait):
                return
            await trio.sleep(0.005)


async def test_nothing_returns_to_a_bucket_that_was_full_meanwhile(store: Store) -> None:
    view = store.view()
    async with kept(view):
        first = await view.reserve("m", RATES, 3000, inf)
        store.later(60)
        await view.reserve("m", RATES, 6000, inf)
        view.settle("m", RATES, first.at, tokens=-3000)
        view.settle("other", RATES, first.at, tokens=3000)
        await until_wait(view, 6000, lambda wait: wait > 5, model="other")  # so both were made
        assert (await view.reserve("m", RATES, 3000, inf)).wait == pytest.approx(30, abs=4)


async def test_what_is_owed_is_taken_first_and_in_any_case(store: Store) -> None:
    view = store.view()
    assert (await view.reserve("m", SLOW, 0, -1.0)).left == (6.0, 6000.0)
    found = await view.reserve("m", SLOW, 0, -1.0, owed=(6.0, 1000.0))
    assert not found.taken
    assert found.left == pytest.approx((0, 5000), abs=0.4)
    assert (await view.reserve("m", SLOW, 0, inf)).wait == pytest.approx(10, abs=4)
    assert (await view.reserve("m", ModelRates(None, 6000.0), 0, inf)).left[0] == inf


async def test_a_debt_is_at_most_one_filling(store: Store) -> None:
    view = store.view()
    async with kept(view):
        found = await view.reserve("m", RATES, 10, inf)
        view.settle("m", RATES, found.at, tokens=1e9)
        await until_wait(view, 10, lambda wait: wait > 1)
        assert (await view.reserve("m", RATES, 10, 0.0)).wait <= 60.2


async def test_a_reservation_says_how_many_replicas_there_are(store: Store) -> None:
    one, other = store.view(), store.view()
    assert (await one.reserve("m", RATES, 0, inf)).replicas == 1
    assert (await other.reserve("m", RATES, 0, inf)).replicas == 2
    store.later(61)
    assert (await other.reserve("m", RATES, 0, inf)).replicas == 1


async def test_what_one_tells_all_others_hear_and_later_ones_as_long_as_it_holds(store: Store) -> None:
    one, other, late = store.view(), store.view(), store.view()
    heard: dict[str, list[ModelNews]] = {"one": [], "other": [], "late": []}
    for name, view in (("one", one), ("other", other), ("late", late)):
        view.listen("m", heard[name].append)
    ends = other.listen("n", heard["other"].append)
    async with kept(one, other):
        one.tell(ModelNews(model="m", kind="paused", seconds=30))
        one.tell(ModelNews(model="m", kind="opened", seconds=1e-9))
        one.tell(ModelNews(model="n", kind="closed"))
        await until(lambda: any(news.model == "n" for news in heard["other"]))
        ends()
        one.tell(ModelNews(model="n", kind="closed"))
        async with kept(late):
            await until(lambda: heard["late"])
        one.tell(ModelNews(model="m", kind="closed"))
        await until(lambda: heard["other"][-1].kind == "closed" and heard["other"][-1].model == "m")
    assert heard["one"] == []
    assert [(news.model, news.kind) for news in heard["other"] if news.kind != "opened"] == [
        ("m", "paused"),
        ("n", "closed"),
        ("m", "closed"),
    ]
    [paused] = heard["late"]
    assert paused.kind == "paused"
    assert 25 < paused.seconds <= 30


async def test_a_call_is_leased_to_one_and_the_others_get_its_answer(store: Store) -> None:
    one, other = store.view(), store.view()
    got: list[Completion | None] = []

    async def wait() -> None:
        got.append(await other.wait(KEY))

    async with kept(one, other):
        assert await one.begin(KEY)
        assert not await other.begin(KEY)
        assert await other.begin(b"another call" + KEY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(0.03)
            assert got == []
            one.finish(KEY, ANSWER)
    assert got == [ANSWER]


async def test_who_waits_for_a_call_without_an_answer_may_make_it(store: Store) -> None:
    one, other = store.view(), store.view()
    async with kept(one, other):
        assert await one.begin(KEY)
        other.finish(KEY, ANSWER)  # it is not its call
        one.finish(KEY, None)
        with trio.fail_after(PATIENCE):
            assert await other.wait(KEY) is None
        assert await other.begin(KEY)


async def test_the_call_of_one_that_has_died_is_for_others_after_its_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.kind == "redis":
        monkeypatch.setattr("ultra.stores.shared_redis.CALL_SECONDS", 0.2)
    one, other = store.view(), store.view()
    async with kept(other):
        async with kept(one):
            assert await one.begin(KEY)
            if store.kind == "redis":
                await trio.sleep(0.5)  # its lease is renewed
            assert not await other.begin(KEY)
        store.later(CALL_SECONDS)
        with trio.fail_after(PATIENCE):
            assert await other.wait(KEY) is None
        assert await other.begin(KEY)


async def test_without_connections_a_call_is_not_leased(store: Store) -> None:
    one, other = store.view(), store.view()
    assert await one.begin(KEY)
    assert await other.begin(KEY)


async def test_a_server_that_is_not_there_is_told_without_its_password() -> None:
    pytest.importorskip("coredis", reason="the extra 'redis' is not installed")
    shared = open_shared("redis://me:hunter2@127.0.0.1:1")
    assert shared is not None
    with pytest.raises(SharedUnavailable, match=r"redis://127\.0\.0\.1:1") as caught:
        await shared.reserve("m", RATES, 0, inf)
    assert "hunter2" not in str(caught.value) + repr(shared)
    async with kept(shared):
        shared.tell(ModelNews(model="m", kind="closed"))
        await trio.sleep(0.05)


@pytest.mark.parametrize("bad", ["memory", "sqlite:///me:hunter2", "redis://", 3])
def test_what_is_no_store_is_refused(bad: Any) -> None:
    with pytest.raises(BadCall, match="redis://") as caught:
        open_shared(bad)
    assert "hunter2" not in str(caught.value)
    assert open_shared(None) is None
