"""Keys of clients: who is let in, what each may ask for, and that they get nothing of each other."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.services import ask, chat, service_of
from ultra.config.keys import KeyConfig, hash_of, new_key
from ultra.config.serving import ServeConfig
from ultra.service.server import check_address
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from trio.testing import MockClock

    from ultra.service.core import Service

ALICE, BOB = "sk-ultra-of-alice", "sk-ultra-of-bob"


def keyed(offered: dict[str, object], *, cache: bool = False, share: bool = False, **alice: Any) -> Service:
    keys = (
        KeyConfig(name="alice", hash=hash_of(ALICE), **alice),
        KeyConfig(name="bob", hash=hash_of(BOB)),
    )
    return service_of(offered, settings=ServeConfig(keys=keys, share_cache=share), cache=cache)


def bearer(key: str = ALICE) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [bearer(), {"authorization": f"bearer  {ALICE}"}, {"x-api-key": ALICE}, {"x-api-key": BOB}],
)
async def test_a_key_is_taken_in_the_headers_of_both_protocols(headers: dict[str, str]) -> None:
    service = keyed({"a": FakeModel("Paris.")})
    async with service.running():
        answer = await ask(service, chat("a"), headers=headers, peer="203.0.113.9")

    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("sk-ultra-of-nobody"),
        bearer(""),
        bearer(ALICE + "x"),
        bearer(hash_of(ALICE)),
        {"authorization": f"Basic {ALICE}"},
        {"x-api-key": "wrong"},
        {"x-api-key": "caf\udce9"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/runs", "/v1/models/a"])
async def test_without_a_known_key_nothing_is_answered(headers: dict[str, str], path: str) -> None:
    model = FakeModel("Paris.")
    service = keyed({"a": model})
    method = "GET" if "models" in path else "POST"
    async with service.running():
        answer = await ask(service, chat("a"), path, method=method, headers=headers)
        alive = await ask(service, b"", "/healthz", method="GET")

    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.error["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert ALICE not in answer.body.decode()
    assert (alive.status, model.calls) == (200, [])


def test_with_keys_other_addresses_may_be_listened_on() -> None:
    check_address(keyed({"a": FakeModel()}).access, "0.0.0.0")


async def test_models_that_a_key_may_not_ask_for_are_neither_listed_nor_answered() -> None:
    models = {name: FakeModel("Paris.") for name in ("a", "b", "c")}
    service = keyed({**models}, models=("council", "a"))
    async with service.running():
        listed = await ask(service, b"", "/v1/models", method="GET", headers=bearer())
        all_listed = await ask(service, b"", "/v1/models", method="GET", headers=bearer(BOB))
        shown = await ask(service, b"", "/v1/models/b", method="GET", headers=bearer())
        unknown = await ask(service, chat("zzz"), headers=bearer())
        refused = [
            await ask(service, chat("b"), headers=bearer()),
            await ask(service, chat("council", ultra={"panel": ["a", "b"]}), headers=bearer()),
            await ask(service, chat("council", ultra={"judge": "c"}), headers=bearer()),
            await ask(
                service,
                chat("a", plugins=[{"id": "fusion", "analysis_models": ["b"]}]),
                headers=bearer(),
            ),
            await ask(service, {"prompt": "x", "models": ["a", "b"]}, "/v1/runs", headers=bearer()),
        ]
        assert not any(models[name].calls for name in "abc")
        allowed = await ask(service, chat("a"), headers=bearer())
        fused = await ask(service, chat("a", text="y", plugins=[{"id": "fusion"}]), headers=bearer())
        run = await ask(service, {"prompt": "x"}, "/v1/runs", headers=bearer())
        asked_so_far = len(models["b"].calls)
        council = await ask(service, chat("council"), headers=bearer())

    assert [entry["id"] for entry in listed.json["data"]] == ["council", "a"]
    assert [entry["id"] for entry in all_listed.json["data"]] == ["council", "a", "b", "c"]
    for answer in [shown, *refused]:
        assert (answer.status, answer.error["code"]) == (403, "model_not_allowed")
        assert answer.error["type"] == "permission_error"
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert [each.status for each in (allowed, fused, run, council)] == [200] * 4
    assert asked_so_far == 0  # where a request names no models, it asks those that it may
    assert models["b"].calls  # an ensemble that is allowed asks whom it likes


@pytest.mark.parametrize(("share", "calls"), [(False, 2), (True, 1)])
async def test_nobody_gets_the_answers_of_others_unless_they_are_shared(*, share: bool, calls: int) -> None:
    model = FakeModel("Paris.")
    service = keyed({"a": model}, cache=True, share=share)
    async with service.running():
        for key in (ALICE, ALICE, BOB, BOB):
            answer = await ask(service, chat("a"), headers=bearer(key))
            assert answer.json["choices"][0]["message"]["content"] == "Paris."

    assert len(model.calls) == calls


async def test_requests_under_way_and_idempotency_keys_are_of_one_client(autojump_clock: MockClock) -> None:
    model = FakeModel("Paris.", seconds=5)
    service = keyed({"a": model})
    named = {"idempotency-key": "one"}
    async with service.running():
        async with trio.open_nursery() as nursery:
            for key in (ALICE, ALICE, BOB):
                nursery.start_soon(partial(ask, service, chat("a"), headers=bearer(key)))
        assert len(model.calls) == 2
        first = await ask(service, chat("a", text="x"), headers={**bearer(), **named})
        again = await ask(service, chat("a", text="x"), headers={**bearer(), **named})
        other = await ask(service, chat("a", text="x"), headers={**bearer(BOB), **named})

    assert first.json["id"] == again.json["id"] != other.json["id"]
    assert len(model.calls) == 4


def test_a_key_that_was_made_is_known_by_its_hash_alone() -> None:
    key = new_key()

    assert KeyConfig(name="x", hash=hash_of(key)).is_key(hash_of(key))
