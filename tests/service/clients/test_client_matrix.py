"""Clients of all kinds against a service on a socket: by protocol, plain and streamed, and what is asked.

The frameworks are large: to import one takes seconds. So their tests are long ones, and those of the official
clients, which frameworks build on, are not.
"""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.garbage import collect_garbage
from helpers.service_clients import CLAUDE, CLIENTS, LEAVERS, Asked, Said
from helpers.services import service_of, serving, until
from ultra import ModelError, Usage
from ultra.config.serving import ServeConfig
from ultra.testing import FakeAnswer, FakeModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ultra.messages.request import ModelRequest

# Of the packages themselves, and of connections that they leave to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield
    collect_garbage()  # what clients leave open is closed here, and not in the middle of something else


os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # litellm would ask the network for one

_FRAMEWORKS = {"langchain": "langchain_openai", "pydantic": "pydantic_ai", "litellm": "litellm"}

NAMES = [
    pytest.param(name, marks=[pytest.mark.long] if name.partition("_")[0] in _FRAMEWORKS else [])
    for name in CLIENTS
]


def answers(request: ModelRequest) -> FakeAnswer:
    """What a model says that understands everything."""
    if request.messages[-1].role == "tool":
        return FakeAnswer(f"So: {request.messages[-1].text}")
    if request.tools:
        return FakeAnswer.calling("weather", city="Paris")
    if request.output is not None:
        return FakeAnswer('{"city":"Paris"}')
    return FakeAnswer("A ", "pixel." if request.has_images else "city.")


async def said_by(name: str, model: FakeModel, what: str, *, stream: bool) -> Said:
    package = _FRAMEWORKS.get(name.partition("_")[0])
    if package is not None and find_spec(package) is None:
        pytest.skip(f"{package} is not installed (the group clients)")
    async with serving(service_of({"a": model, CLAUDE: model})) as url:
        return await trio.to_thread.run_sync(partial(CLIENTS[name], Asked(url, what, stream)))


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("what", ["text", "tools", "json", "image"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_client_gets_what_it_asks_for(name: str, what: str, *, stream: bool) -> None:
    model = FakeModel(answers, usage=Usage(input=7, output=3))
    said = await said_by(name, model, what, stream=stream)

    assert (
        said.text.replace(" ", "")
        == {
            "text": "Acity.",
            "image": "Apixel.",
            "json": '{"city":"Paris"}',
            "tools": "So:Rain." if name.startswith("pydantic") else "",
        }[what]
    )
    assert said.call == (("weather", {"city": "Paris"}) if what == "tools" else None)
    # Models are asked as the client asks. litellm asks for whole responses, and cuts them into pieces itself;
    # pydantic-ai always streams messages, since the SDK asks for that where an answer may be long.
    asked = {"litellm_responses": False, "pydantic_messages": True}.get(name, stream)
    assert {call.streamed for call in model.calls} == {asked}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_client_raises_an_error_before_the_answer_and_asks_once(name: str, *, stream: bool) -> None:
    model = FakeModel().fail(ModelError("secret", kind="rate_limit"), times=99)
    with pytest.RaisesGroup(Exception, allow_unwrapped=True, flatten_subgroups=True) as caught:
        await said_by(name, model, "text", stream=stream)

    told = str(_only(caught.value))
    assert "rate limit" in told
    assert "secret" not in told
    assert len(model.calls) == 1


@pytest.mark.parametrize("name", NAMES)
async def test_a_client_raises_an_error_in_the_middle_of_the_answer(name: str) -> None:
    answer = FakeAnswer("A ", "city.", piece_seconds=0.5)
    model = FakeModel(answer).fail(ModelError("secret", kind="server"), after_pieces=1)
    with pytest.RaisesGroup(Exception, allow_unwrapped=True, flatten_subgroups=True) as caught:
        await said_by(name, model, "text", stream=True)

    told = str(_only(caught.value))
    assert "the provider failed" in told
    assert "secret" not in told
    assert len(model.calls) == 1


def _only(error: Any) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    found: BaseException = error
    return found


@pytest.mark.parametrize("name", ["openai_responses", "anthropic_messages"])
async def test_a_client_that_leaves_a_stream_cancels_its_run(name: str) -> None:
    model = FakeModel(FakeAnswer("A ", "city.", piece_seconds=inf))
    service = service_of({"a": model}, settings=ServeConfig(linger=0))
    async with serving(service) as url:
        await trio.to_thread.run_sync(partial(LEAVERS[name], url))
        await until(lambda: not model.running)

    assert model.cancelled == 1
