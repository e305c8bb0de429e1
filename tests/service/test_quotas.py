"""Rates, places and budgets of keys: refused in the shape of the protocol, settled by what runs cost."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
import trio.testing

from helpers.services import ask, chat, service_of
from ultra import ModelError, MultiLLMOrchestrator, RetryPolicy, Usage
from ultra.clients import AnthropicClient
from ultra.clients.pricing import Price
from ultra.config.keys import KeyConfig, hash_of
from ultra.config.serving import ServeConfig
from ultra.service.core import Service
from ultra.service.http import Request
from ultra.service.quotas import _duration
from ultra.stores.contracts import LimitsUnavailable
from ultra.stores.memory_limits import MemoryLimits
from ultra.stores.sqlite_limits import SqliteLimits
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from helpers.services import Answer
    from ultra.stores.contracts import SharedLimits

KEY = "sk-ultra-of-alice"
HEADERS = {"authorization": f"Bearer {KEY}"}
DOLLAR = Price(input=1000.0, output=1000.0)
"""A dollar for a thousand tokens, so that a call of 100 and 100 tokens costs 20 cents."""


def metered(
    model: object,
    *,
    price: Price | None = DOLLAR,
    limits: SharedLimits | None = None,
    settings: dict[str, Any] | None = None,
    **key: Any,
) -> Service:
    keys = (KeyConfig(name="alice", hash=hash_of(KEY), **key),)
    orchestrator = MultiLLMOrchestrator(cache_enabled=False, retry=RetryPolicy(max_retries=0))
    orchestrator.register_model("a", model, price=price)
    given = {"linger": 0.0, **(settings or {})}
    return Service(orchestrator, ServeConfig(keys=keys, **given), limits=limits)


def cheap(**more: Any) -> FakeModel:
    return FakeModel("Paris.", usage=Usage(input=100, output=100), **more)


async def asked(service: Service, text: str = "x", **more: Any) -> Answer:
    return await ask(service, chat("a", text=text, **{"max_tokens": 200, **more}), headers=HEADERS)


async def left_of(service: Service) -> float:
    """The dollars of the day that are left."""
    (key,) = service.settings.keys
    (want,) = service.quotas._budgets("alice", key.dollars_per_day, None, 0.0)
    decision = await service.quotas._limits.take([want])
    return decision.states[want.name].left


async def test_more_requests_than_a_minute_allows_are_refused_and_may_come_later() -> None:
    service = metered(cheap(), requests_per_minute=2)
    async with service.running():
        answers = [await asked(service, str(n)) for n in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].error["type"] == "rate_limit_error"
    assert answers[2].error["code"] == "rate_limit_exceeded"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 30
    assert "x-should-retry" not in answers[2].headers
    assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["1", "0", "0"]
    assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
    assert answers[0].headers["x-ratelimit-reset-requests"].endswith("s")


async def test_tokens_are_counted_as_they_were_used_and_not_as_they_were_reserved() -> None:
    service = metered(cheap(), tokens_per_minute=1000)
    async with service.running():
        answers = [await asked(service, str(n), max_tokens=500) for n in range(4)]

    # 500 and the prompt are reserved each time, and 200 are used.
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert answers[3].error["code"] == "rate_limit_exceeded"
    assert answers[0].headers["x-ratelimit-limit-tokens"] == "1000"
    assert answers[1].headers["x-ratelimit-remaining-tokens"] in {"800", "801"}


async def test_more_at_once_than_allowed_are_refused_and_their_place_comes_back() -> None:
    model = cheap(gated=True)
    service = metered(model, concurrency=1)
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await asked(service))

    async with service.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await model.asked.wait()
            refused = await asked(service, "y")
            model.gate.set()
        after = await asked(service, "z")

    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "1"
    assert [answers[0].status, after.status] == [200, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_budget_that_is_used_up_is_told_and_not_tried_again(*, stream: bool) -> None:
    service = metered(cheap(), dollars_per_day=0.3)
    async with service.running():
        answers = [await asked(service, str(n), stream=stream) for n in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].error["type"] == answers[2].error["code"] == "insufficient_quota"
    assert answers[2].headers["x-should-retry"] == "false"
    assert "retry-after" not in answers[2].headers


async def test_a_hundred_at_once_pass_a_budget_by_one_estimate_at_most() -> None:
    model = cheap(gated=True)
    service = metered(model, dollars_per_month=1.0)
    statuses: list[int] = []

    async def one(number: int) -> None:
        statuses.append((await asked(service, str(number))).status)
        if len(statuses) == 95:  # all others wait for the model
            model.gate.set()

    async with service.running(), trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(one, number)

    # Each reserves 200 tokens and the prompt, a little more than 20 cents.
    assert statuses.count(200) == 5
    assert statuses.count(429) == 95
    assert len(model.calls) == 5


async def test_what_a_failed_run_has_cost_is_settled() -> None:
    model = FakeModel().fail(ModelError("x", kind="server", usage=Usage(input=100, output=50)), times=9)
    service = metered(model, dollars_per_day=1.0)
    async with service.running():
        failed = await asked(service)
        left = await left_of(service)

    assert failed.status == 502
    assert left == pytest.approx(1.0 - 0.15)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("a", max_tokens=900, stream=True)),
        ("/v1/messages", {**chat("a", stream=True), "max_tokens": 900}),
        ("/v1/runs", {"prompt": "Which city?", "models": ["a"], "stream": True}),
    ],
)
async def test_a_client_that_hangs_up_pays_for_what_was_under_way(
    path: str, body: dict[str, Any], autojump_clock: MockClock
) -> None:
    model = FakeModel(FakeAnswer("a" * 400, "b", "c", "d", piece_seconds=20))
    service = metered(model, dollars_per_day=5.0)
    async with service.running():
        with trio.move_on_after(50):
            await ask(service, body, path, headers=HEADERS)
        await trio.sleep(1)
        left = await left_of(service)

    assert model.cancelled == 1
    spent = 5.0 - left
    assert 0.1 < spent < 0.2  # the prompt, and what had come of the text; the reservation is not kept


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", chat("a", max_tokens=900)),
        ("/v1/messages", {**chat("a"), "max_tokens": 900}),
        ("/v1/runs", {"prompt": "Which city?", "models": ["a"], "options": {"max_tokens": 900}}),
    ],
)
async def test_who_asked_for_a_whole_answer_and_hangs_up_pays_for_all_that_it_might_have_been(
    path: str, body: dict[str, Any], autojump_clock: MockClock
) -> None:
    model = cheap(seconds=60)
    service = metered(model, dollars_per_day=5.0)
    async with service.running():
        with trio.move_on_after(50):
            await ask(service, body, path, headers=HEADERS)
        await trio.sleep(1)
        left = await left_of(service)

    assert (model.cancelled, model.calls[0].streamed) == (1, False)
    assert 0.9 < 5.0 - left < 1.0  # the prompt, and an answer as long as it may be


async def test_a_call_that_is_cut_off_is_paid_for_as_far_as_it_came(autojump_clock: MockClock) -> None:
    service = metered(FakeModel(FakeAnswer("a" * 400, "b", piece_seconds=31)), dollars_per_day=5.0)
    async with service.running():
        failed = await asked(service, stream=True)
        left = await left_of(service)

    assert failed.chunks[-1]["error"]["code"] == "deadline_exceeded"
    assert 0.1 < 5.0 - left < 0.2


@pytest.mark.parametrize("ensemble", [False, True])
async def test_a_whole_answer_that_does_not_come_in_time_is_paid_for_as_long_as_it_might_have_been(
    autojump_clock: MockClock, *, ensemble: bool
) -> None:
    service = metered(cheap(seconds=130), dollars_per_day=5.0)
    service.orchestrator.register_model("b", cheap(), 2.0, price=DOLLAR)
    service.orchestrator.add_ensemble("both", stages=["initial", "synthesis"], grace=5.0)
    async with service.running():
        body = chat("both" if ensemble else "a", max_tokens=900)
        answer = await ask(service, body, headers=HEADERS)
        left = await left_of(service)

    assert answer.status == (200 if ensemble else 504)
    spent = 5.0 - left
    # `max_tokens` is for the answer; what an ensemble merges it of is taken to have 2,048 tokens.
    assert (2.248 < spent < 2.3) if ensemble else (0.9 < spent < 1.0)


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 4096),
        ({"show_reasoning": True}, 16_384),
        ({"show_reasoning": True, "max_tokens": 900}, 900),
        ({"show_reasoning": True, "reasoning_effort": "none"}, 4096),
        ({"show_reasoning": True, "temperature": 0.5}, 4096),
    ],
)
async def test_of_a_claude_model_as_much_is_reserved_as_it_may_write(
    options: dict[str, Any], most: int, autojump_clock: MockClock
) -> None:
    sent: list[dict[str, Any]] = []

    async def hang(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        await trio.sleep_forever()
        raise AssertionError

    claude = AnthropicClient(
        "claude-opus-4-6",
        provider="anthropic",
        base_url="https://api.anthropic.com",
        api_key="k",
        transport=httpx.MockTransport(hang),
    )
    service = metered(claude, dollars_per_day=100.0)
    body = {"prompt": "x", "model": "a", "stream": True, "options": options}
    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask(service, body, "/v1/runs", headers=HEADERS))
        await trio.sleep(1)
        reserved = 100.0 - await left_of(service)
        nursery.cancel_scope.cancel()

    assert sent[0]["max_tokens"] == most
    assert reserved == pytest.approx(most / 1000, abs=0.1)


async def test_who_reads_nothing_and_hangs_up_pays_what_was_reserved(autojump_clock: MockClock) -> None:
    service = metered(cheap(), dollars_per_day=50.0)
    body = json.dumps({"prompt": "Which city?", "models": ["a"], "stream": True}).encode()
    request = Request(method="POST", path="/v1/runs", headers=HEADERS, body=body)
    async with service.running():
        async with service.answering(request) as reply:
            assert reply.status == 200
            await trio.sleep(5)  # it has ended meanwhile, and nobody has read that
        left = await left_of(service)

    assert 50.0 - left >= 0.2


async def test_an_equal_request_that_joins_a_run_costs_nothing_more() -> None:
    model = cheap(gated=True)
    service = metered(model, dollars_per_day=0.3)
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await asked(service))

    async with service.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            nursery.start_soon(one)
            await model.asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            model.gate.set()
        left = await left_of(service)

    assert [answer.status for answer in answers] == [200, 200]
    assert left == pytest.approx(0.1)


@pytest.mark.parametrize(("assumed", "spent"), [(10.0, 0.002), (0.0, 0.0)])
async def test_a_model_without_a_price_counts_as_the_setting_says(assumed: float, spent: float) -> None:
    service = metered(cheap(), price=None, settings={"assumed_price": assumed}, dollars_per_day=1.0)
    async with service.running():
        await asked(service)
        left = await left_of(service)

    assert 1.0 - left == pytest.approx(spent)


async def test_budgets_outlive_the_process(tmp_path: Path) -> None:
    statuses: list[int] = []
    for _ in range(3):
        limits = SqliteLimits(tmp_path / "limits.db")
        service = metered(cheap(), dollars_per_day=0.3, limits=limits)
        async with service.running():
            statuses.append((await asked(service)).status)

    assert statuses == [200, 200, 429]


async def test_limits_that_cannot_be_read_let_nobody_in_and_what_was_used_is_told_later(
    autojump_clock: MockClock,
) -> None:
    class Failing(MemoryLimits):
        broken = False

        async def take(self, wants: Any) -> Any:
            if self.broken:
                raise LimitsUnavailable("the words of the disk")
            return await super().take(wants)

        async def settle(self, grant: str, used: Any) -> None:
            if self.broken:
                raise LimitsUnavailable("the words of the disk")
            await super().settle(grant, used)

    limits = Failing()
    model = cheap(gated=True)
    service = metered(model, dollars_per_day=1.0, limits=limits)
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await asked(service))

    async with service.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one)
            await model.asked.wait()
            limits.broken = True
            model.gate.set()
        refused = await asked(service, "y")
        limits.broken = False
        await trio.sleep(30)  # it is settled again
        left = await left_of(service)

    assert answers[0].status == 200
    assert (refused.status, refused.error["code"]) == (503, "limits_unavailable")
    assert "disk" not in refused.body.decode()
    assert left == pytest.approx(0.8)


async def test_what_is_held_for_long_is_renewed(autojump_clock: MockClock) -> None:
    limits = MemoryLimits(now=trio.current_time)
    service = metered(cheap(seconds=110), concurrency=1, limits=limits)
    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(asked, service)
        await trio.sleep(90)
        refused = await asked(service, "y")

    assert refused.status == 429


async def test_an_ensemble_reserves_for_all_its_calls() -> None:
    models = {name: cheap(gated=True) for name in "abc"}
    keys = (KeyConfig(name="alice", hash=hash_of(KEY), dollars_per_day=100.0),)
    service = service_of(models, settings=ServeConfig(keys=keys, assumed_price=1000.0))
    async with service.running(), trio.open_nursery() as nursery:
        body = chat("council", max_tokens=100)
        nursery.start_soon(partial(ask, service, body, headers=HEADERS))
        await models["a"].asked.wait()
        reserved = 100.0 - await left_of(service)
        for model in models.values():
            model.gate.set()

    # Three answers, each as long as is assumed, and the synthesis, which reads them all and what it is to do.
    assert 3 * 2.048 + 3 * 2.048 + 0.1 < reserved < 3 * 2.048 + 3 * 2.048 + 0.6


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0204, "21ms"), (1, "1s"), (1.5, "1.5s"), (60, "1m0s"), (61.25, "1m1.25s")],
)
def test_times_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
