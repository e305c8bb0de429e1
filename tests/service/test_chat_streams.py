"""When a stream sends what: virtual time, so that forty seconds take none."""

from __future__ import annotations

import json
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.services import Answer, ask, chat, data_of, service_of
from ultra import ModelError
from ultra.config.serving import KeepAlive, ServeConfig
from ultra.service.http import Request
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

SLOW = 40.0


def silences(answer: Answer) -> list[float]:
    """The seconds between what was sent, from the request on."""
    times = [0.0, *(time for time, _ in answer.pieces)]
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize(
    ("keepalive", "alive"),
    [("chunk", b'"delta":{},"finish_reason":null'), ("comment", b": ultra 1/2\n\n")],
)
async def test_a_slow_panel_is_never_silent_for_more_than_fifteen_seconds(
    autojump_clock: MockClock, keepalive: KeepAlive, alive: bytes
) -> None:
    models = {"a": FakeModel("Paris."), "b": FakeModel("Lyon.", seconds=SLOW)}
    service = service_of(models, settings=ServeConfig(keepalive=keepalive))
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert answer.status == 200
    assert answer.pieces[0][0] == pytest.approx(2)
    assert b'"role":"assistant"' in answer.pieces[0][1]
    assert max(silences(answer)) <= 15.1
    assert sum(alive in piece for _, piece in answer.pieces) == 2
    assert answer.text == "Paris."


async def test_a_slow_synthesis_is_not_silent_either(autojump_clock: MockClock) -> None:
    slow = FakeAnswer("It ", "is ", "Paris.", piece_seconds=25)
    a = FakeModel(["Paris.", slow])
    service = service_of({"a": a, "b": FakeModel("Lyon.")})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert max(silences(answer)) <= 15.1
    assert answer.text == "It is Paris."


async def test_keep_alives_can_be_turned_off(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel("Paris.", seconds=SLOW)}, settings=ServeConfig(keepalive="off"))
    async with service.running():
        answer = await ask(service, chat("a", stream=True))

    assert [time for time, _ in answer.pieces][:2] == pytest.approx([2, SLOW], abs=0.1)


async def test_the_synthesis_is_sent_as_it_is_written(autojump_clock: MockClock) -> None:
    a = FakeModel(["Paris.", FakeAnswer("one ", "two ", "three", piece_seconds=1.0)])
    service = service_of({"a": a, "b": FakeModel("Lyon.")})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    said = {
        b"one ": next(time for time, piece in answer.pieces if b"one " in piece),
        b"two ": next(time for time, piece in answer.pieces if b"two " in piece),
        b"three": next(time for time, piece in answer.pieces if b"three" in piece),
    }
    assert list(said.values()) == pytest.approx([0, 1, 2], abs=0.1)


async def test_an_error_within_two_seconds_keeps_its_status(autojump_clock: MockClock) -> None:
    model = FakeModel(seconds=1.9).fail(ModelError("x", kind="rate_limit"))
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, chat("a", stream=True))

    assert answer.status == 429
    assert answer.error["code"] == "rate_limit_exceeded"
    assert answer.headers["x-should-retry"] == "false"


async def test_a_later_error_is_told_in_the_stream_and_ends_it(autojump_clock: MockClock) -> None:
    model = FakeModel(seconds=3).fail(ModelError("secret words", kind="server"))
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, chat("a", stream=True))

    assert answer.status == 200
    assert answer.chunks[-1]["error"]["code"] == "model_failed"
    assert data_of(answer.body)[-1] == b"[DONE]"
    assert b'finish_reason":"' not in answer.body
    assert b"secret" not in answer.body


async def test_an_error_in_the_middle_of_the_text_is_told_there(autojump_clock: MockClock) -> None:
    model = FakeModel(FakeAnswer("It ", "is ", "Paris.", piece_seconds=3)).fail(after_pieces=2)
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, chat("a", stream=True))

    assert answer.text == "It is "
    assert "error" in answer.chunks[-1]


async def test_a_writer_that_fails_in_its_text_is_never_followed_by_the_text_of_another(
    autojump_clock: MockClock,
) -> None:
    a = FakeModel(["Paris.", FakeAnswer("Wrong ", "wrong.", piece_seconds=3)]).fail(at=2, after_pieces=1)
    b = FakeModel(["Lyon.", "It is Lyon."])
    service = service_of({"a": a, "b": b})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert answer.text == "Wrong "
    assert answer.chunks[-1]["error"]["code"] == "answer_replaced"


async def test_a_writer_that_fails_before_its_text_is_replaced_unseen(autojump_clock: MockClock) -> None:
    a = FakeModel(["Paris.", "never"]).fail(at=2)
    b = FakeModel(["Lyon.", "It is Lyon."])
    service = service_of({"a": a, "b": b})
    async with service.running():
        answer = await ask(service, chat(stream=True))

    assert answer.text == "It is Lyon."
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_the_deadline_of_a_run_is_told_as_such(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel(seconds=inf), "b": FakeModel(seconds=inf)})
    async with service.running():
        whole = await ask(service, chat(ultra={"timeout": 1}))
        streamed = await ask(service, chat(ultra={"timeout": 30}, stream=True))

    assert (whole.status, whole.error["code"]) == (504, "deadline_exceeded")
    assert whole.headers["x-should-retry"] == "false"
    assert streamed.chunks[-1]["error"]["code"] == "deadline_exceeded"


async def test_no_run_takes_longer_than_the_service_allows(autojump_clock: MockClock) -> None:
    service = service_of({"a": FakeModel(seconds=inf)}, settings=ServeConfig(timeout=50))
    async with service.running():
        answer = await ask(service, chat("a"))

    assert answer.status == 504
    assert answer.pieces[0][0] == pytest.approx(50, abs=1.1)


async def test_a_reader_that_is_slow_gets_all_text_merged_and_delays_nobody(
    autojump_clock: MockClock,
) -> None:
    words = [f"word{number} " for number in range(200)]
    service = service_of({"a": FakeModel(FakeAnswer(*words, piece_seconds=0.1))})
    seen: list[bytes] = []
    body = json.dumps(chat("a", stream=True)).encode()
    async with service.running():
        request = Request(method="POST", path="/v1/chat/completions", body=body)
        async with service.answering(request) as reply:
            pieces: Any = reply.body
            async for piece in pieces:
                seen.append(piece)
                await trio.sleep(5)

    answer = Answer(200, {}, [(0.0, piece) for piece in seen])
    assert answer.text == "".join(words)
    assert len(seen) < 20
