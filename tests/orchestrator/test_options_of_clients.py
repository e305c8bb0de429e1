"""Options of a call reach the clients that take them; a name that none takes is refused before any call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from ultra import Completion, MultiLLMOrchestrator
from ultra.clients import connect
from ultra.errors import BadCall

if TYPE_CHECKING:
    from ultra.messages.request import ModelRequest


class Endpoint(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        self.payloads.append(json.loads(request.content))
        return httpx.Response(200, json={"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}]})


class Stylist:
    """Declares a style, and no more."""

    def __init__(self) -> None:
        self.styles: list[str | None] = []

    async def generate(self, prompt: str, *, style: str | None = None) -> str:
        self.styles.append(style)
        return prompt


class Requests:
    """Takes whole requests; `option_names` is set by the test."""

    stream_response = None

    def __init__(self) -> None:
        self.extras: list[dict[str, Any]] = []

    async def respond(self, request: ModelRequest) -> Completion:
        self.extras.append(request.options.extra)
        return Completion(content="4")


async def test_an_option_of_one_client_does_not_fail_another() -> None:
    endpoint, stylist = Endpoint(), Stylist()
    orchestrator = MultiLLMOrchestrator(max_retries=0)
    orchestrator.register_model("http", connect("vllm:m", transport=endpoint))
    orchestrator.register_model("stylist", stylist)
    options = {"style": "formal", "temperature": 0.3, "extra_body": {"top_k": 5}}
    result = await orchestrator.process_responses("2+2?", options=options)
    assert result.status == "success"
    assert set(stylist.styles) == {"formal"}
    assert all((sent["temperature"], sent["top_k"]) == (0.3, 5) for sent in endpoint.payloads)
    assert not any("style" in sent for sent in endpoint.payloads)


async def test_a_name_that_no_client_takes_is_refused_before_any_call() -> None:
    endpoint, stylist = Endpoint(), Stylist()
    orchestrator = MultiLLMOrchestrator()
    client = connect("vllm:m", transport=endpoint)
    orchestrator.register_model("http", client)
    orchestrator.register_model("stylist", stylist)
    message = r"'temprature', which no model of this call takes; they take: .*style, .*temperature"
    with pytest.raises(BadCall, match=message):
        await orchestrator.process_responses("2+2?", options={"temprature": 0.2})
    with pytest.raises(BadCall, match=message):
        async with orchestrator.stream_responses("2+2?", options={"temprature": 0.2}) as run:
            await run.result()
    with pytest.raises(BadCall, match="'style', which no model"):
        await orchestrator.process_responses("2+2?", models=["http"], options={"style": "formal"})
    for model in ("http", client, connect("vllm:other", transport=endpoint)):
        with pytest.raises(BadCall, match="'temprature', which no model"):
            await orchestrator.get_model_response(model, "2+2?", options={"temprature": 0.2})
    with pytest.raises(BadCall, match="'system', which no model of this call takes; give it as system="):
        await orchestrator.process_responses("2+2?", options={"system": "Be kind."})
    assert (endpoint.payloads, stylist.styles) == ([], [])


async def test_a_client_that_takes_any_option_gets_them_all() -> None:
    async def anything(prompt: str, **options: object) -> str:
        return f"{prompt} {sorted(options)}"

    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("any", anything)
    response = await orchestrator.get_model_response("any", "Hi", options={"top_k": 5, "mirostat": 2})
    assert response.content == "Hi ['mirostat', 'top_k']"


async def test_a_name_that_is_nearly_one_of_ultra_s_own_is_refused_by_the_right_one() -> None:
    async def anything(prompt: str, **options: object) -> str:
        return f"{prompt} {sorted(options)}"

    async def misspelt(prompt: str, *, temprature: float | None = None) -> str:
        return f"{prompt} {temprature}"

    orchestrator = MultiLLMOrchestrator(stages=["initial"])
    orchestrator.register_model("any", anything)
    for options, meant in (({"temprature": 0.2}, "temperature"), ({"max_token": 5}, "max_tokens")):
        with pytest.raises(BadCall, match=f"did you mean '{meant}'"):
            await orchestrator.process_responses("Hi", options=options)
        with pytest.raises(BadCall, match=f"did you mean '{meant}'"):
            await orchestrator.get_model_response(anything, "Hi", options=options)
    response = await orchestrator.get_model_response(misspelt, "Hi", options={"temprature": 0.2})
    assert response.content == "Hi 0.2"
    with pytest.raises(BadCall, match=r"unknown setting 'timout'.* did you mean 'timeout'"):
        await orchestrator.process_responses("Hi", timout=3)  # type: ignore[call-arg]


async def test_a_client_of_whole_requests_may_name_the_options_that_it_takes() -> None:
    plain, naming = Requests(), Requests()
    naming.option_names = frozenset({"style"})  # type: ignore[attr-defined]
    orchestrator = MultiLLMOrchestrator()
    orchestrator.register_model("plain", plain)
    orchestrator.register_model("naming", naming)
    given = {"style": "formal", "other": 1}
    await orchestrator.process_responses("2+2?", stages=["initial"], options=given)
    assert plain.extras == [given]
    assert naming.extras == [{"style": "formal"}]


def test_names_of_options_are_a_set_of_texts() -> None:
    client = Requests()
    client.option_names = "style"  # type: ignore[attr-defined]
    with pytest.raises(BadCall, match="`option_names` of an object of type Requests must be a set"):
        MultiLLMOrchestrator().register_model("m", client)
