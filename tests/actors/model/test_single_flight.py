"""One call, and all who want its answer."""

from __future__ import annotations

import math

import pytest
import trio

from helpers.registered import Transcript
from ultra.actors.model.single_flight import Deserted, Flight, Passenger
from ultra.errors import ModelError
from ultra.messages.results import Completion


def aboard(flight: Flight, deadline: float = math.inf) -> tuple[Passenger, Transcript]:
    transcript = Transcript()
    passenger = Passenger(deadline, transcript)
    flight.board(passenger)
    return passenger, transcript


async def test_a_passenger_hears_each_piece_and_once_that_a_text_begins() -> None:
    flight = Flight()
    _, transcript = aboard(flight)
    flight.begin_attempt()
    flight.hear("to")
    flight.hear("ken")
    flight.land(Completion(content="token"))
    assert transcript.pieces == ["to", "ken"]
    assert transcript.beginnings == 1


async def test_who_boards_later_hears_the_text_so_far_and_then_the_same() -> None:
    flight = Flight()
    _, first = aboard(flight)
    flight.begin_attempt()
    flight.hear("to")
    flight.hear("k")
    _, second = aboard(flight)
    assert second.pieces == ["tok"]
    flight.hear("ens")
    assert first.text == second.text == "tokens"
    assert first.beginnings == second.beginnings == 1


async def test_who_boards_after_the_landing_hears_the_whole_answer() -> None:
    flight = Flight()
    flight.begin_attempt()
    flight.land(Completion(content="whole"))
    _, late = aboard(flight)
    assert late.pieces == ["whole"]


async def test_a_new_attempt_begins_the_text_anew() -> None:
    flight = Flight()
    _, transcript = aboard(flight)
    flight.begin_attempt()
    flight.hear("half an ans")
    flight.begin_attempt()
    assert transcript.text == "half an ans"
    flight.hear("the ")
    _, late = aboard(flight)
    flight.hear("answer")
    assert transcript.text == late.text == "the answer"
    assert (transcript.beginnings, late.beginnings) == (2, 1)


async def test_landing_tells_what_was_not_heard() -> None:
    flight = Flight()
    _, transcript = aboard(flight)
    flight.begin_attempt()
    flight.hear("to")
    flight.land(Completion(content="token"))
    assert transcript.pieces == ["to", "ken"]


async def test_landing_begins_anew_where_the_answer_is_not_what_was_heard() -> None:
    flight = Flight()
    _, transcript = aboard(flight)
    flight.begin_attempt()
    flight.hear(" token")
    flight.land(Completion(content="token"))
    assert transcript.text == "token"
    assert transcript.beginnings == 2


async def test_landing_begins_anew_where_the_attempt_before_was_heard() -> None:
    flight = Flight()
    _, transcript = aboard(flight)
    flight.begin_attempt()
    flight.hear("broken")
    flight.begin_attempt()
    flight.land(Completion(content="whole"))
    assert transcript.text == "whole"
    assert transcript.beginnings == 2


async def test_the_time_of_the_first_text_is_that_of_the_attempt_that_counts(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flight = Flight()
    assert flight.first_text_at is None
    flight.begin_attempt()
    flight.hear("a")
    first = flight.first_text_at
    await trio.sleep(1)
    flight.hear("b")
    assert flight.first_text_at == first
    flight.begin_attempt()
    await trio.sleep(1)
    flight.hear("c")
    assert flight.first_text_at == trio.current_time()


async def test_all_hear_of_a_retry_and_who_boards_during_the_wait_hears_what_is_left_of_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flight = Flight()
    error = ModelError("busy", kind="rate_limit")
    heard: list[tuple[str, int, float]] = []

    def passenger(name: str) -> Passenger:
        def on_retry(attempt: int, failure: ModelError, wait: float) -> None:
            assert failure is error
            heard.append((name, attempt, wait))

        return Passenger(math.inf, None, on_retry)

    flight.board(passenger("early"))
    flight.begin_attempt()
    flight.retrying(1, error, 4.0)
    await trio.sleep(3)
    flight.board(passenger("late"))
    flight.begin_attempt()
    flight.board(passenger("too late"))
    assert heard == [("early", 1, 4.0), ("late", 1, pytest.approx(1.0))]


async def test_who_has_left_or_raises_hears_of_no_retry_any_more() -> None:
    flight = Flight()
    heard: list[int] = []

    def break_down(attempt: int, _error: ModelError, _wait: float) -> None:
        heard.append(attempt)
        raise ZeroDivisionError

    passenger = Passenger(math.inf, None, break_down)
    flight.board(passenger)
    flight.retrying(1, ModelError("busy"), 0.0)
    flight.retrying(2, ModelError("busy"), 0.0)
    assert heard == [1]
    passenger.on_retry = break_down
    passenger.leave()
    passenger.hear_of_retry(3, ModelError("busy"), 0.0)
    assert heard == [1]


async def test_the_deadline_is_the_latest_of_those_who_are_aboard() -> None:
    flight = Flight()
    aboard(flight, 5.0)
    late, _ = aboard(flight, 9.0)
    assert flight.deadline == 9.0
    late.leave()
    assert flight.deadline == 5.0


async def test_who_has_left_hears_nothing_more() -> None:
    flight = Flight()
    gone, transcript = aboard(flight)
    _, other = aboard(flight)
    flight.begin_attempt()
    flight.hear("a")
    gone.leave()
    gone.leave()
    flight.hear("b")
    assert transcript.text == "a"
    assert other.text == "ab"
    assert flight.is_heard


async def test_a_listener_that_leaves_another_passenger_does_no_harm() -> None:
    flight = Flight()
    others: list[Passenger] = []

    def listener(_text: str, _begins: bool) -> None:  # noqa: FBT001 - as it is called
        for other in others:
            other.leave()

    flight.board(Passenger(math.inf, listener))
    other, transcript = aboard(flight)
    others.append(other)
    flight.begin_attempt()
    flight.hear("a")
    assert other.has_left
    assert not flight.deserted
    assert transcript.text == ""


async def test_the_last_to_leave_cancels_the_call() -> None:
    flight = Flight()
    first, _ = aboard(flight)
    second, _ = aboard(flight)
    with flight.scope() as scope:
        first.leave()
        assert not scope.cancel_called
        second.leave()
        assert scope.cancel_called
    assert flight.deserted
    with pytest.raises(Deserted):
        flight.check()


async def test_a_deserted_flight_lets_nothing_more_begin() -> None:
    flight = Flight()
    passenger, _ = aboard(flight)
    passenger.leave()
    with pytest.raises(Deserted):
        await flight.sleep(1000)
    assert flight.scope().cancel_called


async def test_leaving_ends_the_wait_before_another_attempt(autojump_clock: trio.testing.MockClock) -> None:
    flight = Flight()
    passenger, _ = aboard(flight)
    begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect_desertion, flight)
        await trio.sleep(1)
        passenger.leave()
    assert trio.current_time() == begun + 1


async def _expect_desertion(flight: Flight) -> None:
    with pytest.raises(Deserted):
        await flight.sleep(1000)


async def test_leaving_after_the_landing_cancels_nothing() -> None:
    flight = Flight()
    passenger, _ = aboard(flight)
    with flight.scope() as scope:
        flight.land(Completion(content="answer"))
        passenger.leave()
    assert not scope.cancel_called
    assert not flight.deserted


async def test_waiting_ends_with_the_flight_or_with_leaving() -> None:
    flight = Flight()
    stays, _ = aboard(flight)
    goes, _ = aboard(flight)
    ended: list[Passenger] = []

    async def wait(passenger: Passenger) -> None:
        await flight.wait(passenger)
        ended.append(passenger)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, stays)
        nursery.start_soon(wait, goes)
        await trio.testing.wait_all_tasks_blocked()
        assert ended == []
        goes.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [goes]
        flight.end()
    assert ended == [goes, stays]
    await wait(stays)  # at once, now that it has ended


async def test_the_text_so_far_takes_the_room_of_the_text_and_not_of_its_pieces() -> None:
    flight = Flight()
    flight.begin_attempt()
    for _ in range(100_000):
        flight.hear("x")
    _, late = aboard(flight)
    assert late.pieces == ["x" * 100_000]


async def test_a_listener_that_raises_is_heard_no_more_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_text: str, _begins: bool) -> None:  # noqa: FBT001 - as it is called
        raise ZeroDivisionError("mine")

    flight = Flight()
    passenger = Passenger(math.inf, broken)
    flight.board(passenger)
    _, other = aboard(flight)
    flight.begin_attempt()
    flight.hear("a")
    flight.hear("b")
    assert other.text == "ab"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    passenger.leave()
    assert not flight.deserted
