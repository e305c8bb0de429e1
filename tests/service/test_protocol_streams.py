"""What the streams of all protocols have in common: virtual time, so that forty seconds take none."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.service_protocols import MESSAGES, PATHS, RESPONSES, events_of, question, said, told_error
from helpers.services import CHAT, Answer, ask, service_of
from ultra import ModelError
from ultra.config.serving import KeepAlive, ServeConfig
from ultra.service.core import Service
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

SLOW = 40.0
SECRET = "sk-secret in the provider's words"

ALIVE = {
    CHAT: b'"delta":{},"finish_reason":null',
    RESPONSES: b": ultra 1/2\n\n",
    MESSAGES: b'event: ping\ndata: {"type":"ping"}\n\n',
}
FIRST = {CHAT: b'"role":"assistant"', RESPONSES: b"response.in_progress", MESSAGES: b"message_start"}


def silences(answer: Answer) -> list[float]:
    """The seconds between what was sent, from the request on."""
    times = [0.0, *(time for time, _ in answer.pieces)]
    return [later - earlier for earlier, later in pairwise(times)]


async def streamed(path: str, service: Service, model: str = "council", **more: Any) -> Answer:
    async with service.running():
        return await ask(service, question(path, model, stream=True, **more), path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("keepalive", ["chunk", "comment"])
async def test_a_slow_panel_is_never_silent_for_more_than_fifteen_seconds(
    autojump_clock: MockClock, keepalive: KeepAlive, path: str
) -> None:
    models = {"a": FakeModel("It is Paris."), "b": FakeModel("Lyon.", seconds=SLOW)}
    answer = await streamed(path, service_of(models, settings=ServeConfig(keepalive=keepalive)))

    assert answer.status == 200
    assert answer.pieces[0][0] == pytest.approx(2)
    assert FIRST[path] in answer.pieces[0][1]
    assert max(silences(answer)) <= 15.1
    alive = b": ultra 1/2\n\n" if path == CHAT and keepalive == "comment" else ALIVE[path]
    assert sum(alive in piece for _, piece in answer.pieces) == 2
    assert said(path, answer) == "It is Paris."
    assert b"\nid:" not in answer.body
    assert b"\nretry:" not in answer.body


@pytest.mark.parametrize("path", PATHS)
async def test_a_slow_synthesis_is_not_silent_and_is_sent_as_it_is_written(
    autojump_clock: MockClock, path: str
) -> None:
    a = FakeModel(["Paris.", FakeAnswer("one ", "two ", "three", piece_seconds=25)])
    answer = await streamed(path, service_of({"a": a, "b": FakeModel("Lyon.")}))

    times = [next(time for time, piece in answer.pieces if word in piece) for word in (b"one ", b"two ")]
    assert times == pytest.approx([0, 25], abs=2.1)
    assert max(silences(answer)) <= 15.1
    assert said(path, answer) == "one two three"


@pytest.mark.parametrize("path", PATHS)
async def test_signs_of_life_can_be_turned_off(autojump_clock: MockClock, path: str) -> None:
    settings = ServeConfig(keepalive="off")
    answer = await streamed(
        path, service_of({"a": FakeModel("Paris.", seconds=SLOW)}, settings=settings), "a"
    )

    assert [time for time, _ in answer.pieces][:2] == pytest.approx([2, SLOW], abs=0.1)
    assert b"ping" not in answer.body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_within_two_seconds_keeps_its_status(
    autojump_clock: MockClock, path: str, *, stream: bool
) -> None:
    service = service_of({"a": FakeModel(seconds=1.9).fail(ModelError(SECRET, kind="rate_limit"))})
    async with service.running():
        answer = await ask(service, question(path, "a", stream=stream), path)

    assert answer.status == 429
    assert answer.error["type"] == "rate_limit_error"
    assert answer.headers["x-should-retry"] == "false"
    assert SECRET not in answer.body.decode()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pieces", [0, 2])
async def test_a_later_error_is_told_in_the_stream_and_ends_it(
    autojump_clock: MockClock, pieces: int, path: str
) -> None:
    model = FakeModel(FakeAnswer("It ", "is ", "Paris.", piece_seconds=3), seconds=3)
    model.fail(ModelError(SECRET, kind="server"), after_pieces=pieces)
    answer = await streamed(path, service_of({"a": model}), "a")

    assert answer.status == 200
    assert said(path, answer) == ("It is " if pieces else "")
    error = told_error(path, answer)
    assert error["message"].startswith("the provider failed")
    assert error["type"] == ("api_error" if path == MESSAGES else "server_error")
    assert SECRET not in answer.body.decode()


@pytest.mark.parametrize("path", PATHS)
async def test_a_writer_that_fails_in_its_text_is_never_followed_by_the_text_of_another(
    autojump_clock: MockClock, path: str
) -> None:
    a = FakeModel(["Paris.", FakeAnswer("Wrong ", "wrong.", piece_seconds=3)]).fail(at=2, after_pieces=1)
    answer = await streamed(path, service_of({"a": a, "b": FakeModel(["Lyon.", "It is Lyon."])}))

    assert said(path, answer) == "Wrong "
    assert "another one was written" in told_error(path, answer)["message"]


async def test_a_failed_response_has_what_had_been_said(autojump_clock: MockClock) -> None:
    model = FakeModel(FakeAnswer("It ", "is ", "Paris.", piece_seconds=3)).fail(after_pieces=2)
    answer = await streamed(RESPONSES, service_of({"a": model}), "a")

    (item,) = events_of(answer)[-1]["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "It is ")
    numbers = [event["sequence_number"] for event in events_of(answer)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("path", PATHS)
async def test_equal_requests_share_a_run_and_others_do_not(autojump_clock: MockClock, path: str) -> None:
    a = FakeModel("Paris.", seconds=5)
    service = service_of({"a": a})
    answers: list[Answer] = []

    async def one(*, stream: bool) -> None:
        answers.append(await ask(service, question(path, "a", stream=stream), path))

    async with service.running(), trio.open_nursery() as nursery:
        for stream in (True, True, False, False):
            nursery.start_soon(partial(one, stream=stream))

    assert [said(path, answer) for answer in answers] == ["Paris."] * 4
    assert len(a.calls) <= 2


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
async def test_who_hangs_up_cancels_the_run(autojump_clock: MockClock, path: str, *, stream: bool) -> None:
    models = {"a": FakeModel(seconds=inf), "b": FakeModel(seconds=inf)}
    service = service_of(models)
    async with service.running():
        with trio.move_on_after(10):
            await ask(service, question(path, stream=stream), path)
        await trio.sleep(2)
        assert [model.cancelled for model in models.values()] == [1, 1]
