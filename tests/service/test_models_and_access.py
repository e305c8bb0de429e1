"""What can be asked for, who may ask, and whether the service is ready."""

from __future__ import annotations

import pytest

from helpers.services import ask, chat, service_of
from ultra import ModelError
from ultra.clients.catalog import ModelInfo
from ultra.clients.pricing import Price
from ultra.errors import BadCall
from ultra.service.access import LocalOnly, is_loopback
from ultra.service.server import check_address
from ultra.testing import FakeModel

MODELS = "/v1/models"


def with_info(info: ModelInfo) -> FakeModel:
    model = FakeModel("Paris.")
    model.info = info
    return model


async def test_models_are_listed_in_the_shape_of_openai() -> None:
    window = ModelInfo(context_window=1000, images=True, tools=True, price=Price(input=1.0, output=2.0))
    service = service_of(
        {"a": with_info(window), "b": with_info(ModelInfo(context_window=500, images=False))}
    )
    async with service.running():
        answer = await ask(service, b"", MODELS, method="GET")

    council, a, _ = answer.json["data"]
    assert answer.json["object"] == "list"
    assert {key: council[key] for key in ("id", "object", "owned_by", "context_length")} == {
        "id": "council",
        "object": "model",
        "owned_by": "ultra",
        "context_length": 500,
    }
    assert council["architecture"]["input_modalities"] == ["text", "image"]
    assert council["ultra"]["panel"] == ["a", "b"]
    assert council["ultra"]["strategy"] == "synthesize"
    assert a["ultra"]["tools"] is True
    assert float(a["pricing"]["completion"]) == pytest.approx(2e-6)


async def test_models_are_listed_in_the_shape_of_anthropic_where_it_is_asked_for() -> None:
    service = service_of({"local/a": FakeModel()})
    headers = {"anthropic-version": "2023-06-01"}
    async with service.running():
        listed = await ask(service, b"", MODELS, method="GET", headers=headers)
        one = await ask(service, b"", f"{MODELS}/local/a", method="GET", headers=headers)

    assert [entry["id"] for entry in listed.json["data"]] == ["council", "local/a"]
    assert listed.json["has_more"] is False
    assert (listed.json["first_id"], listed.json["last_id"]) == ("council", "local/a")
    assert one.json["type"] == "model"
    assert one.json["created_at"].endswith("Z")


async def test_a_model_that_is_not_there_is_told() -> None:
    service = service_of({"alpha": FakeModel()})
    async with service.running():
        answer = await ask(service, b"", f"{MODELS}/alpah", method="GET")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")
    assert "did you mean 'alpha'" in answer.error["message"]


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {"host": "localhost:8080"}, 200),
        ("::ffff:127.0.0.1", {"host": "[::1]:8080"}, 200),
        (None, {"host": "127.0.0.1"}, 200),
        ("127.0.0.1", {"origin": "http://localhost:3000"}, 200),
        ("192.168.1.7", {}, 403),
        ("127.0.0.1", {"host": "rebound.example"}, 403),
        ("127.0.0.1", {"origin": "https://evil.example"}, 403),
        ("127.0.0.1", {"origin": "null"}, 403),
        ("127.0.0.1", {"host": "[::1"}, 403),
    ],
)
async def test_without_keys_only_this_machine_may_ask(
    peer: str | None, headers: dict[str, str], status: int
) -> None:
    model = FakeModel("Paris.")
    service = service_of({"a": model})
    async with service.running():
        answer = await ask(service, chat("a"), headers=headers, peer=peer)
        alive = await ask(service, b"", "/healthz", method="GET", peer="10.0.0.1")

    assert answer.status == status
    assert len(model.calls) == (status == 200)
    assert alive.status == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_without_keys_no_other_address_is_listened_on(host: str) -> None:
    with pytest.raises(BadCall, match="there are no keys"):
        check_address(LocalOnly(), host)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST."])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


async def test_it_is_ready_while_every_ensemble_can_reach_its_quorum() -> None:
    dying = FakeModel().fail(ModelError("secret words", kind="auth"), times=9)
    service = service_of({"a": FakeModel("Paris."), "b": dying}, ensemble={"quorum": 2})
    async with service.running():
        before = await ask(service, b"", "/readyz", method="GET")
        await ask(service, chat())
        after = await ask(service, b"", "/readyz", method="GET")
    ended = await ask(service, b"", "/readyz", method="GET")

    assert (before.status, before.json["ensembles"]) == (200, {"council": True})
    assert (after.status, after.json["models"]) == (503, {"a": "up", "b": "down"})
    assert "secret" not in after.body.decode()
    assert ended.status == 503
