"""Equal requests share a run, retries cost nothing, and who leaves last cancels."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.services import Answer, ask, chat, service_of
from ultra import ModelError
from ultra.config.serving import ServeConfig
from ultra.service.access import Caller
from ultra.service.problems import Problem
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra.service.http import Request

AT_ONCE = ServeConfig(linger=0)


async def test_an_equal_request_joins_the_run_under_way(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=5)
    service = service_of({"a": model})
    answers: list[Answer] = []

    async def one(delay: float) -> None:
        await trio.sleep(delay)
        answers.append(await ask(service, chat("a")))

    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(one, 0)
        nursery.start_soon(one, 3)

    assert len(model.calls) == 1
    second, first = sorted(answers, key=lambda answer: answer.pieces[0][0])
    assert first.body == second.body
    assert second.pieces[0][0] == pytest.approx(2, abs=0.1)


async def test_a_stream_that_joins_late_gets_the_whole_text(autojump_clock: MockClock) -> None:
    model = FakeModel(FakeAnswer("one ", "two ", "three", piece_seconds=4))
    service = service_of({"a": model})
    answers: list[Answer] = []

    async def one(delay: float) -> None:
        await trio.sleep(delay)
        answers.append(await ask(service, chat("a", stream=True)))

    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(one, 0)
        nursery.start_soon(one, 6)

    assert [answer.text for answer in answers] == ["one two three"] * 2
    assert len(model.calls) == 1


async def test_other_requests_and_other_people_are_not_joined(autojump_clock: MockClock) -> None:
    class ByHeader:
        needs_loopback = False

        async def authenticate(self, request: Request) -> Caller:
            return Caller(request.headers["who"])

    model = FakeModel("Paris.", seconds=5)
    service = service_of({"a": model}, access=ByHeader(), cache=True)

    async def one(who: str, text: str) -> None:
        await ask(service, chat("a", text=text), headers={"who": who})

    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(one, "me", "x")
        nursery.start_soon(one, "me", "y")
        nursery.start_soon(one, "you", "x")

    assert len(model.calls) == 3


async def test_joining_can_be_turned_off(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=5)
    service = service_of({"a": model}, settings=ServeConfig(join=False))
    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(ask, service, chat("a"))
        nursery.start_soon(ask, service, chat("a"))

    assert len(model.calls) == 2


async def test_a_failure_that_cost_money_is_given_again_for_some_seconds(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.").fail(ModelError("x", kind="server"))
    service = service_of({"a": model})
    async with service.running():
        first = await ask(service, chat("a"))
        second = await ask(service, chat("a"))
        await trio.sleep(11)
        third = await ask(service, chat("a"))

    assert [first.status, second.status, third.status] == [502, 502, 200]
    assert len(model.calls) == 2


async def test_an_idempotency_key_gives_the_same_result_again(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.")
    service = service_of({"a": model})
    headers = {"idempotency-key": "k1"}
    async with service.running():
        first = await ask(service, chat("a"), headers=headers)
        await trio.sleep(60)
        second = await ask(service, chat("a"), headers=headers)
        other = await ask(service, chat("a", text="another"), headers=headers)
        without = await ask(service, chat("a"))
        await trio.sleep(600)
        later = await ask(service, chat("a"), headers=headers)

    assert first.body == second.body
    assert (other.status, other.error["code"]) == (422, "idempotency_key_reused")
    assert without.status == later.status == 200
    assert len(model.calls) == 3


async def left_after(seconds: float, service: Any, body: Any) -> None:
    with trio.move_on_after(seconds):
        await ask(service, body)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_given_up_cancels_its_run(autojump_clock: MockClock, *, stream: bool) -> None:
    models = {"a": FakeModel(seconds=inf), "b": FakeModel(seconds=inf)}
    service = service_of(models)
    async with service.running():
        await left_after(5, service, chat(stream=stream))
        await trio.sleep(1.5)

        assert [model.cancelled for model in models.values()] == [1, 1]


async def test_a_run_goes_on_while_somebody_else_follows_it(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=10)
    service = service_of({"a": model}, settings=AT_ONCE)
    answers: list[Answer] = []

    async def stays() -> None:
        answers.append(await ask(service, chat("a")))

    async with service.running(), trio.open_nursery() as nursery:
        nursery.start_soon(stays)
        await trio.sleep(1)
        await left_after(2, service, chat("a"))

    assert answers[0].status == 200
    assert len(model.calls) == 1


async def test_a_client_that_timed_out_can_ask_again_and_joins(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=10)
    service = service_of({"a": model})
    async with service.running():
        await left_after(8, service, chat("a"))
        await trio.sleep(0.5)
        answer = await ask(service, chat("a"))

    assert answer.status == 200
    assert len(model.calls) == 1


async def test_nobody_joins_a_run_that_is_being_cancelled(autojump_clock: MockClock) -> None:
    model = FakeModel([FakeAnswer("never", seconds=inf), "Paris."])
    service = service_of({"a": model}, settings=AT_ONCE)
    async with service.running():
        await left_after(1, service, chat("a"))
        answer = await ask(service, chat("a"))

    assert answer.status == 200
    assert len(model.calls) == 2


async def test_nothing_is_kept_of_runs_that_have_ended(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel("Paris.").fail()})
    async with service.running():
        for number in range(5):
            await ask(service, chat("a", text=str(number)))
        await trio.sleep(10)
        await ask(service, chat("a"))

        assert service.runs._known == {}
        assert service.runs._under_way == {}
        assert service.runs._forgotten_at == []


async def test_the_end_of_the_service_cancels_what_is_under_way(autojump_clock: MockClock) -> None:
    model = FakeModel(seconds=inf)
    service = service_of({"a": model})
    answers: list[Answer] = []

    async def one() -> None:
        answers.append(await ask(service, chat("a")))

    async with trio.open_nursery() as nursery, service.running():
        nursery.start_soon(one)
        await model.asked.wait()

    assert model.cancelled == 1
    assert answers[0].status == 503


def test_a_problem_has_the_headers_of_its_kind() -> None:
    paid = Problem(502, "server_error", "judge_failed", "x", paid=True, retry_after=1.2)

    assert paid.headers == {"retry-after": "2", "x-should-retry": "false"}
