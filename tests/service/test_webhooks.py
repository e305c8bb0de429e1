"""Webhooks: who is told of the end of a run, how it is signed, tried again, and kept across a restart."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import pytest
import trio
from standardwebhooks import Webhook

from helpers.service_protocols import RESPONSES
from helpers.services import ask, broken_off, get, service_of, serving, until
from ultra import ModelError
from ultra.config.serving import ServeConfig
from ultra.config.webhook import WebhookConfig
from ultra.errors import BadCall
from ultra.service.webhooks import sending
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RUNS = "/v1/runs"
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


class Notice(NamedTuple):
    """What a receiver got."""

    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Receiver:
    """Takes notices, and answers each with the next of `statuses`, or 200."""

    def __init__(self, *statuses: int) -> None:
        self.notices: list[Notice] = []
        self.statuses = list(statuses)
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = (await receive())["type"]
                await send({"type": f"{event}.complete"})
                if event == "lifespan.shutdown":
                    return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.notices.append(Notice(headers, body))
        status = self.statuses.pop(0) if self.statuses else 200
        location = [(b"location", f"{self.url}/elsewhere".encode())] if status == 302 else []
        await send({"type": "http.response.start", "status": status, "headers": location})
        await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(*statuses)
    async with serving(service_of({"a": FakeModel()}), receiver) as url:
        receiver.url = url
        yield receiver


def settings(url: str | None, **more: Any) -> ServeConfig:
    given = {"secret": SECRET, "url": url, "allow_private": True, **more}
    return ServeConfig(webhook=WebhookConfig(**given))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "_LOOK", 0.01)
    monkeypatch.setattr(sending, "_WAITS", (0.01,) * 3)


async def test_the_end_of_a_run_is_told_and_signed() -> None:
    async with receiving() as receiver:
        service = service_of({"a": FakeModel("x")}, journal="memory", settings=settings(receiver.url))
        async with service.running():
            run_id = (await ask(service, {"prompt": "x", "model": "a", "background": True}, RUNS)).json["id"]
            body = {"model": "a", "input": "x", "background": True}
            name = (await ask(service, body, RESPONSES)).json["id"]
            await until(lambda: len(receiver.notices) == 2)
            await trio.sleep(0.1)

    assert len(receiver.notices) == 2
    told = {notice.json["type"]: notice for notice in receiver.notices}
    assert told["run.completed"].json["data"] == {"id": run_id}
    assert told["response.completed"].json["data"] == {"id": name}
    for notice in receiver.notices:
        Webhook(SECRET).verify(notice.body, notice.headers)
        assert notice.json["id"] == notice.headers["webhook-id"]
        assert notice.headers["content-type"] == "application/json"
    unwrapped: Any = openai.OpenAI(api_key="any").webhooks.unwrap(
        told["response.completed"].body, told["response.completed"].headers, secret=SECRET
    )
    assert (unwrapped.type, unwrapped.data.id) == ("response.completed", name)


async def test_runs_that_fail_or_are_cancelled_and_answers_that_are_cut_are_told() -> None:
    models = {
        "bad": FakeModel().fail(ModelError("no"), times=9),
        "slow": FakeModel(gated=True),
        "cut": FakeModel(FakeAnswer("x", finish_reason="length")),
    }
    async with receiving() as receiver:
        service = service_of(models, journal="memory", settings=settings(receiver.url))
        async with service.running():
            names = {}
            for model in models:
                body = {"model": model, "input": "x", "background": True}
                names[model] = (await ask(service, body, RESPONSES)).json["id"]
            await ask(service, b"", f"{RESPONSES}/{names['slow']}/cancel")
            await until(lambda: len(receiver.notices) == 3)

    told = {notice.json["data"]["id"]: notice.json["type"] for notice in receiver.notices}
    assert told == {
        names["bad"]: "response.failed",
        names["slow"]: "response.cancelled",
        names["cut"]: "response.incomplete",
    }


@pytest.mark.parametrize("statuses", [(500, 503), (302, 404)])
async def test_a_notice_that_did_not_arrive_is_sent_again_as_the_same_event(
    statuses: tuple[int, ...],
) -> None:
    async with receiving(*statuses) as receiver:
        service = service_of({"a": FakeModel("x")}, journal="memory", settings=settings(receiver.url))
        async with service.running():
            await ask(service, {"prompt": "x", "background": True}, RUNS)
            await until(lambda: len(receiver.notices) == 3)
            await trio.sleep(0.1)

    assert len(receiver.notices) == 3  # no redirect was followed
    assert len({notice.headers["webhook-id"] for notice in receiver.notices}) == 1
    assert len({notice.body for notice in receiver.notices}) == 1


@pytest.mark.parametrize(("statuses", "times"), [((410,), 1), ((500,) * 9, 4)])
async def test_a_notice_is_given_up_when_it_is_not_wanted_or_fails_too_often(
    statuses: tuple[int, ...], times: int
) -> None:
    async with receiving(*statuses) as receiver:
        service = service_of({"a": FakeModel("x")}, journal="memory", settings=settings(receiver.url))
        async with service.running():
            await ask(service, {"prompt": "x", "background": True}, RUNS)
            await until(lambda: len(receiver.notices) == times)
            await trio.sleep(0.1)

    assert len(receiver.notices) == times


async def test_a_notice_that_was_not_delivered_outlives_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = f"sqlite:///{tmp_path}/runs.db"
    async with receiving() as receiver:
        with monkeypatch.context() as patched:
            patched.setattr(sending, "_LOOK", 1000)
            given = settings(receiver.url)
            first = service_of({"a": FakeModel("x")}, journal=journal, settings=given)
            async with broken_off(first):
                body = {"prompt": "x", "background": True}
                run_id = (await ask(first, body, RUNS)).json["id"]
                await get(first, f"{RUNS}/{run_id}/events")
        assert receiver.notices == []
        second = service_of({"a": FakeModel("x")}, journal=journal, settings=given)
        async with second.running():
            await until(lambda: len(receiver.notices) == 1)

    assert receiver.notices[0].json["data"] == {"id": run_id}


async def test_no_private_address_is_told_unless_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    async with receiving() as receiver:
        given = settings(None, per_request=True, allow_private=False)
        service = service_of({"a": FakeModel("x")}, journal="memory", settings=given)
        async with service.running():
            body = {"prompt": "x", "background": True, "webhook": receiver.url}
            accepted = await ask(service, body, RUNS)
            await until(lambda: "given up" in caplog.text)

    assert accepted.status == 200
    assert receiver.notices == []
    assert "not in the public internet" in caplog.text
    assert SECRET not in caplog.text


async def test_a_request_names_an_address_only_where_that_is_allowed() -> None:
    async with receiving() as receiver:
        service = service_of(
            {"a": FakeModel("x")}, journal="memory", settings=settings(None, per_request=True)
        )
        async with service.running():
            body = {"prompt": "x", "background": True, "webhook": f"{receiver.url}/own"}
            await ask(service, body, RUNS)
            await until(lambda: len(receiver.notices) == 1)
            wrong = await ask(service, {**body, "webhook": "ftp://x"}, RUNS)
            in_front = await ask(service, {"prompt": "x", "webhook": receiver.url}, RUNS)
        closed = service_of({"a": FakeModel("x")}, journal="memory", settings=settings(receiver.url))
        async with closed.running():
            refused = await ask(closed, body, RUNS)

    for answer in (wrong, in_front, refused):
        assert (answer.status, answer.error["param"]) == (400, "webhook")


async def test_a_run_that_an_idempotency_key_finds_again_is_told_once() -> None:
    async with receiving() as receiver:
        service = service_of({"a": FakeModel("x")}, journal="memory", settings=settings(receiver.url))
        async with service.running():
            for _ in range(3):
                await ask(
                    service, {"prompt": "x", "background": True}, RUNS, headers={"idempotency-key": "k"}
                )
            await until(lambda: len(receiver.notices) == 1)
            await trio.sleep(0.1)

    assert len(receiver.notices) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"secret": "abc", "url": "https://example.org"},
        {"secret": "whsec_c2hvcnQ=", "url": "https://example.org"},
        {"secret": "whsec_?", "url": "https://example.org"},
        {"secret": SECRET, "url": "ftp://example.org"},
        {"secret": SECRET, "url": "http://"},
        {"secret": SECRET},
    ],
)
def test_a_wrong_section_is_refused_without_the_secret(given: dict[str, Any]) -> None:
    with pytest.raises(BadCall) as caught:
        WebhookConfig(**given)

    assert SECRET not in str(caught.value)


def test_no_repr_shows_the_secret_or_a_password_in_the_address() -> None:
    webhook = WebhookConfig(secret=SECRET, url="https://user:pass@example.org/x?key=abc")

    for shown in (repr(webhook), repr(ServeConfig(webhook=webhook)), repr(webhook.__rich_repr__())):
        assert SECRET not in shown
        assert "pass" not in shown
        assert "abc" not in shown
        assert "example.org" in shown
