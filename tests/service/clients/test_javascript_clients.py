"""Clients in JavaScript against a service on a socket: the official ones, and the Vercel AI SDK."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.javascript import CLIENTS, ClientFailed, JavaScript, javascript_process
from helpers.service_clients import CLAUDE
from helpers.services import service_of, serving, until
from ultra import ModelError, Usage
from ultra.config.serving import ServeConfig
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractAsyncContextManager

    from ultra.config.serving import KeepAlive
    from ultra.messages.request import ModelRequest


@pytest.fixture(scope="module")
def javascript() -> Iterator[JavaScript]:
    with javascript_process() as process:
        yield process


def served(models: dict[str, FakeModel], **more: Any) -> AbstractAsyncContextManager[str]:
    """A service of these models on a socket. It does not wait for connections that clients keep open."""
    return serving(service_of(models, **more), grace=0)


STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
EACH = pytest.mark.parametrize("client", CLIENTS)


def answers(request: ModelRequest) -> FakeAnswer:
    """What a model says that understands everything."""
    if request.messages[-1].role == "tool":
        return FakeAnswer("So: ", request.messages[-1].text)
    if request.tools:  # the AI SDK asks for JSON by a tool, too, where it does not know the model
        return FakeAnswer.calling(request.tools[0].name, city="Paris")
    if request.output is not None:
        return FakeAnswer('{"city":"Paris"}')
    return FakeAnswer("A ", "pixel." if request.has_images else "city.")


@STREAMED
@pytest.mark.parametrize("what", ["text", "tools", "json", "image"])
@EACH
async def test_a_client_gets_what_it_asks_for(
    javascript: JavaScript, client: str, what: str, *, stream: bool
) -> None:
    model = FakeModel(answers, usage=Usage(input=7, output=3))
    async with served({"a": model}) as url:
        said = await javascript.ask(client, url, what=what, stream=stream)

    expected = {"text": "A city.", "image": "A pixel.", "json": '{"city":"Paris"}', "tools": "So: Rain."}
    assert said.text == expected[what]
    assert said.call == (("weather", {"city": "Paris"}) if what == "tools" else None)
    assert said.output == ({"city": "Paris"} if what == "json" and client.startswith("vercel") else None)
    assert said.finish in {"stop", "end_turn", "completed"}
    assert said.tokens in {10, 20}  # the AI SDK adds up the turns of tools
    assert len(model.calls) == (2 if what == "tools" else 1)


@STREAMED
async def test_a_schema_goes_to_models_whose_name_says_that_they_take_one(
    javascript: JavaScript, *, stream: bool
) -> None:
    model = FakeModel(answers)
    async with served({CLAUDE: model}) as url:
        said = await javascript.ask(
            "vercel_anthropic_messages", url, what="json", stream=stream, model=CLAUDE
        )

    assert said.output == {"city": "Paris"}
    assert model.calls[0].request.output is not None
    assert not model.calls[0].request.tools


@STREAMED
@EACH
async def test_a_client_tells_an_error_before_the_answer_and_one_call_is_made(
    javascript: JavaScript, client: str, *, stream: bool
) -> None:
    model = FakeModel().fail(ModelError("secret", kind="server"), times=99)
    async with served({"a": model}) as url:
        with pytest.raises(ClientFailed) as caught:
            await javascript.ask(client, url, stream=stream)

    assert caught.value.status == 502
    assert "the provider failed" in caught.value.message
    assert "secret" not in caught.value.all
    assert len(model.calls) == 1


@pytest.mark.long
@STREAMED
async def test_the_ai_sdk_asks_again_after_2_and_4_seconds_and_pays_once(
    javascript: JavaScript, *, stream: bool
) -> None:
    """It does not know `x-should-retry`; the failure must be remembered for longer than that."""
    model = FakeModel().fail(ModelError("busy", kind="overloaded"), times=99)
    async with served({"a": model}) as url:
        with pytest.raises(ClientFailed) as caught:
            await javascript.ask("vercel_openai_chat", url, stream=stream, retries=2)

    assert caught.value.status == 503
    assert len(model.calls) == 1


@EACH
async def test_a_client_tells_a_model_that_is_not_there(javascript: JavaScript, client: str) -> None:
    async with served({"a": FakeModel()}) as url:
        with pytest.raises(ClientFailed) as caught:
            await javascript.ask(client, url, model="nobody")

    assert caught.value.status == 404
    assert "'nobody' does not exist" in caught.value.message


@EACH
async def test_a_client_tells_an_error_in_the_middle_of_the_answer(
    javascript: JavaScript, client: str
) -> None:
    answer = FakeAnswer("A ", "city.", piece_seconds=0.2)
    model = FakeModel(answer).fail(ModelError("secret", kind="server"), after_pieces=1)
    async with served({"a": model}) as url:
        with pytest.raises(ClientFailed) as caught:
            await javascript.ask(client, url, stream=True)

    assert "the provider failed" in caught.value.message
    assert "secret" not in caught.value.all
    assert len(model.calls) == 1


@STREAMED
@EACH
async def test_a_client_tells_a_refusal_as_that_of_its_provider(
    javascript: JavaScript, client: str, *, stream: bool
) -> None:
    words = "I cannot help with that."
    async with served({"a": FakeModel(FakeAnswer(refusal=words))}) as url:
        said = await javascript.ask(client, url, stream=stream)

    # The AI SDK takes the words of OpenAI's protocols for text, and leaves out those of Anthropic's.
    expected = {
        "openai_chat": ("", words, "content_filter"),
        "openai_responses": ("", words, "completed"),
        "anthropic_messages": ("", words, "refusal"),
        "vercel_compatible_chat": (words, None, "content-filter"),
        "vercel_openai_chat": (words, None, "content-filter"),
        "vercel_openai_responses": (words, None, "content-filter"),
        "vercel_anthropic_messages": ("", None, "content-filter"),
    }
    assert (said.text, said.refusal, said.finish) == expected[client]


@pytest.mark.parametrize("keepalive", ["chunk", "comment"])
@EACH
async def test_a_client_waits_for_a_slow_panel(
    javascript: JavaScript, client: str, keepalive: KeepAlive
) -> None:
    settings = ServeConfig(commit_after=0.01, keepalive_interval=0.01, keepalive=keepalive)
    models = {"a": FakeModel("A city."), "b": FakeModel("A city.", seconds=0.5)}
    async with served(models, settings=settings) as url:
        said = await javascript.ask(client, url, model="council", stream=True)

    assert said.text == "A city."


@STREAMED
@EACH
async def test_a_client_that_hangs_up_cancels_the_calls_of_its_run(
    javascript: JavaScript, client: str, *, stream: bool
) -> None:
    # The model is asked as the client asks: in a stream it stops behind the first piece.
    model = FakeModel(FakeAnswer("A ", "city.", seconds=0 if stream else inf, piece_seconds=inf))
    async with (
        served({"a": model}, settings=ServeConfig(linger=0)) as url,
        trio.open_nursery() as nursery,
    ):

        async def leave() -> None:
            await model.asked.wait()
            if stream:
                await javascript.piece_came.wait()
            javascript.hang_up()

        nursery.start_soon(leave)
        with pytest.raises(ClientFailed, match="abort"):
            await javascript.ask(client, url, stream=stream)
        await until(lambda: not model.running)

    assert model.cancelled == 1
