"""What only the official clients have: parsing into types, counting tokens, a whole turn of tools."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
from pydantic import BaseModel

from helpers.official_clients import in_thread
from helpers.services import service_of
from ultra import ModelError
from ultra.config.serving import ServeConfig
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from pathlib import Path


class City(BaseModel):
    city: str


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def test_responses_are_parsed_into_a_type() -> None:
    def work(client: openai.OpenAI) -> Any:
        return client.responses.parse(model="council", input="Q", text_format=City)

    models = {"a": FakeModel('{"city": "Paris"}'), "b": FakeModel('{"city": "Paris"}')}
    response = await in_thread(service_of(models), work, "openai")

    assert response.output_parsed == City(city="Paris")


async def test_messages_are_parsed_into_a_type() -> None:
    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "Q"}]
        return client.messages.parse(model="a", max_tokens=9, messages=messages, output_format=City)

    message = await in_thread(service_of({"a": FakeModel('{"city": "Paris"}')}), work, "anthropic")

    assert message.parsed_output == City(city="Paris")


async def test_tokens_are_counted_and_models_are_listed() -> None:
    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "Which city? " * 50}]
        counted = client.messages.count_tokens(model="a", messages=messages, system="Be brief.")
        return counted.input_tokens, [model.id for model in client.models.list()]

    tokens, names = await in_thread(service_of({"a": FakeModel()}), work, "anthropic")

    assert 100 < tokens < 400
    assert names == ["council", "a"]


def weather() -> FakeModel:
    """A model that calls a tool, and then says what the tool has found."""
    call = FakeAnswer.calling("weather", city="Paris")
    return FakeModel(lambda r: f"So: {r.messages[-1].text}" if r.messages[-1].role == "tool" else call)


PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}


async def test_a_turn_of_tools_by_responses_gives_the_output_back_as_input() -> None:
    def work(client: openai.OpenAI) -> Any:
        tools: Any = [{"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}]
        items: Any = [{"role": "user", "content": "Weather?"}]
        first = client.responses.create(model="a", input=items, tools=tools)
        call: Any = first.output[0]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}
        items += [*first.output, result]
        return client.responses.create(model="a", input=items, tools=tools)

    response = await in_thread(service_of({"a": weather()}), work, "openai")

    assert response.output_text == "So: Rain."


async def test_a_turn_of_tools_by_messages_gives_the_content_back() -> None:
    def work(client: anthropic.Anthropic) -> Any:
        tools: Any = [{"name": "weather", "input_schema": PARAMETERS}]
        messages: Any = [{"role": "user", "content": "Weather?"}]
        first = client.messages.create(model="a", max_tokens=9, messages=messages, tools=tools)
        call: Any = first.content[0]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "Rain."}
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        return client.messages.create(model="a", max_tokens=9, messages=messages, tools=tools)

    message = await in_thread(service_of({"a": weather()}), work, "anthropic")

    assert message.content[0].text == "So: Rain."


async def test_pings_ahead_of_the_text_are_read_past() -> None:
    settings = ServeConfig(commit_after=0.05, keepalive_interval=0.05)
    model = FakeModel("Paris.", gated=True)

    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "Q"}]
        with client.messages.stream(model="a", max_tokens=9, messages=messages) as stream:
            model.gate.set()
            return stream.get_final_text()

    assert await in_thread(service_of({"a": model}, settings=settings), work, "anthropic") == "Paris."


async def test_an_error_in_the_middle_has_its_type() -> None:
    answer = FakeAnswer("It ", "is.", piece_seconds=0.3)
    model = FakeModel(answer).fail(ModelError("secret", kind="server"), after_pieces=1)

    def work(client: anthropic.Anthropic) -> Any:
        messages: Any = [{"role": "user", "content": "Q"}]
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(client.messages.create(model="a", max_tokens=9, messages=messages, stream=True))
        return caught.value

    error = await in_thread(service_of({"a": model}), work, "anthropic")

    assert error.body["error"]["type"] == "api_error"
    assert len(model.calls) == 1


async def test_a_response_in_the_background_is_polled_resumed_cancelled_and_deleted(tmp_path: Path) -> None:
    def work(client: openai.OpenAI) -> Any:
        create = client.responses.create
        polled = create(model="council", input="Q1", background=True)
        while polled.status in {"queued", "in_progress"}:
            polled = client.responses.retrieve(polled.id)

        events = list(create(model="council", input="Q2", background=True, stream=True))
        first: Any = events[0]
        rest = list(client.responses.retrieve(first.response.id, stream=True, starting_after=3))
        with client.responses.stream(response_id=first.response.id, starting_after=3) as stream:
            helped = list(stream)
            final = stream.get_final_response()

        further = create(model="council", input="Q3", previous_response_id=polled.id)
        items = list(client.responses.input_items.list(further.id, order="asc"))

        slow = create(model="slow", input="Q4", background=True)
        cancelled = [client.responses.cancel(slow.id).status for _ in range(2)]
        client.responses.delete(slow.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(slow.id)
        return polled, events, rest, (helped, final), (further, items), cancelled

    models: dict[str, object] = {
        "a": FakeModel(FakeAnswer("It ", "is ", "Paris.")),
        "b": FakeModel("Lyon."),
        "slow": FakeModel(seconds=inf),
    }
    service = service_of(models, journal=f"sqlite:///{tmp_path}/runs.db", ensemble={"models": ("a", "b")})
    polled, events, rest, (helped, final), (further, items), cancelled = await in_thread(
        service, work, "openai"
    )

    assert (polled.status, polled.output_text, polled.background) == ("completed", "It is Paris.", True)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == "It is Paris."
    assert rest == events[4:]
    assert [event.sequence_number for event in helped] == [event.sequence_number for event in rest]
    assert final.output_text == "It is Paris."
    assert (further.status, further.previous_response_id) == ("completed", polled.id)
    assert [item.content[0].text for item in items] == ["Q1", "It is Paris.", "Q3"]
    assert cancelled == ["cancelled", "cancelled"]
