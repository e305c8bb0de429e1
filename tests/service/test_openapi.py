"""The description of the service is true: of what it says is right and wrong, and of what comes back."""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from helpers.services import ask, chat, service_of, serving
from ultra.service.openapi import OPERATIONS, Operation, document
from ultra.service.reply_types import ChatChunk, ChatCompletion, ErrorReply, ModelList, Ready
from ultra.service.routes import _ROUTES
from ultra.testing import FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]

EXAMPLES = [6, pytest.param(40, marks=pytest.mark.long)]
"""Requests of each kind to each address; each takes some twenty milliseconds."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service of instant models on a socket, in a trio thread of its own."""
    found: list[str] = []
    ready = threading.Event()
    ending: list[trio.CancelScope] = []
    tokens: list[trio.lowlevel.TrioToken] = []

    async def run() -> None:
        with trio.CancelScope() as scope:
            ending.append(scope)
            tokens.append(trio.lowlevel.current_trio_token())
            models: dict[str, object] = {"a": FakeModel("Paris."), "b": FakeModel("Paris.")}
            async with serving(service_of(models, journal="memory")) as address:
                found.append(address)
                ready.set()
                await trio.sleep_forever()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(30)
    yield found[0]
    trio.from_thread.run_sync(ending[0].cancel, trio_token=tokens[0])
    thread.join(30)


def cases() -> list[Any]:
    """Right requests to each address, and wrong ones where anything can be wrong."""
    found = []
    for each in OPERATIONS:
        if each.path in {"/openapi.json", "/metrics", "/v1/runs/batch"}:  # that one takes lines of JSON
            continue
        name = f"{each.method} {each.path}"
        found.append(pytest.param(each, GenerationMode.POSITIVE, id=f"right {name}"))
        if each.body is not None or each.query is not None:
            found.append(pytest.param(each, GenerationMode.NEGATIVE, id=f"wrong {name}"))
    return found


@cache
def described_service() -> Any:
    """The description, as schemathesis reads it."""
    return schemathesis.openapi.from_dict(document())


@pytest.mark.parametrize("examples", EXAMPLES)
@pytest.mark.parametrize(("described", "mode"), cases())
def test_the_service_does_as_it_is_described(
    url: str, described: Operation, mode: GenerationMode, examples: int
) -> None:
    operation = described_service()[described.path][described.method]

    @seed(20261129)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Any) -> None:
        case.call_and_validate(base_url=url, checks=CHECKS, timeout=20)

    check()


def test_every_address_is_described() -> None:
    described = {(each.path.replace("{model}", "{id}"), each.method.upper()) for each in OPERATIONS}
    routes = ((path, route) for path, routes in _ROUTES.items() for route in routes)
    assert described == {(path, route.methods[0]) for path, route in routes}


async def test_replies_have_the_types_of_the_description() -> None:
    service = service_of({"a": FakeModel("Paris."), "b": FakeModel("Paris.")})
    async with service.running():
        whole = await ask(service, chat(ultra={"expose": ["panel"]}))
        streamed = await ask(service, chat(stream=True, stream_options={"include_usage": True}))
        models = await ask(service, b"", "/v1/models", method="GET")
        ready = await ask(service, b"", "/readyz", method="GET")
        wrong = await ask(service, {"model": "nobody", "messages": []})
        described = await ask(service, b"", "/openapi.json", method="GET")
    msgspec.json.decode(whole.body, type=ChatCompletion)
    assert len([msgspec.convert(chunk, ChatChunk) for chunk in streamed.chunks]) > 1
    msgspec.json.decode(models.body, type=ModelList)
    msgspec.json.decode(ready.body, type=Ready)
    msgspec.json.decode(wrong.body, type=ErrorReply)
    assert described.body == msgspec.json.encode(document())
    assert described.json["openapi"] == "3.1.0"


def test_every_reference_leads_to_a_schema() -> None:
    text = msgspec.json.encode(document()).decode()
    schemas = document()["components"]["schemas"]
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named
    assert named <= schemas.keys()
