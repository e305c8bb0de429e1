from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from ultra._support.secrecy import HiddenText, hiding_frames
from ultra.clients import AnthropicClient, OpenAIClient, connect
from ultra.clients.local.embedded import Endpoint
from ultra.config.loading import load_configuration
from ultra.errors import BadCall
from ultra.stores.sqlite_file import FileContents

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY = "sk-victim-0123456789abcdef"
FILE = """
[cache]
store = "redis://:${K}@127.0.0.1:1/0"
[models.a]
model = [{model = "openai:m", api_key = "${K}"}]
[models.b]
model = "openai:m"
api_key = "${K}"
"""


@pytest.fixture
def shown_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setenv("K", KEY)
    path = tmp_path / "ultra.toml"
    path.write_text(FILE)
    configuration = load_configuration(path)
    client = connect("openai:m", api_key=KEY, extra_headers={"x-key": KEY}, extra_body={"key": KEY})
    return {
        "configuration": configuration,
        "settings": configuration.settings(),
        "cache": configuration.cache,
        "models": configuration.models,
        "deployments": configuration.models["a"].deployments,
        "endpoint": Endpoint("http://x", KEY),
        "contents": FileContents(KEY.encode(), {}),
        "client": client,
        "inside the client": vars(client),
        "text": HiddenText(KEY),
    }


def test_no_repr_shows_a_key(shown_objects: dict[str, object]) -> None:
    for name, shown in shown_objects.items():
        assert KEY not in repr(shown), name
        assert KEY not in pretty_repr(shown, expand_all=True), name


def test_hidden_text_is_the_text_all_the_same() -> None:
    assert HiddenText("a") == "a"
    assert f"{HiddenText('a')}b" == "ab"


def with_variables(error: BaseException) -> str:
    out = io.StringIO()
    traceback = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=10_000
    )
    Console(file=out, width=400).print(traceback)
    return out.getvalue()


FAILURES: dict[str, Callable[[str], Any]] = {
    "option": lambda key: connect("openai:m", api_key=key, bogus=1),
    "address": lambda key: connect("openai:m", api_key=key, base_url="nonsense"),
    "key": lambda key: connect("openai:m", api_key=f"{key}\nx"),
    "client": lambda key: OpenAIClient("m", provider="p", base_url="nonsense", api_key=key),
    "key of a client": lambda key: AnthropicClient(
        "m", provider="p", base_url="https://x.example", api_key=f"{key} x"
    ),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_frame_of_a_failed_connect_shows_the_key(failure: str) -> None:
    with pytest.raises(BadCall) as caught:
        FAILURES[failure](KEY)
    frames = []
    step = caught.value.__traceback__
    while step is not None:
        if "/src/ultra/" in step.tb_frame.f_code.co_filename:
            frames.append(step.tb_frame)
        step = step.tb_next
    assert frames
    assert not any(KEY in repr(value) for frame in frames for value in frame.f_locals.values())
    assert KEY not in str(caught.value)


async def test_no_frame_of_a_transport_that_raises_shows_the_key() -> None:
    def broken(_: httpx.Request) -> httpx.Response:
        raise RuntimeError("a bug of the transport")

    client = connect("openai:m", api_key=KEY, transport=httpx.MockTransport(broken))
    with pytest.raises(RuntimeError) as caught:
        await client.generate("Q")
    assert KEY not in with_variables(caught.value)


def test_what_is_no_error_of_ultra_s_keeps_its_frames() -> None:
    @hiding_frames
    def fails() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError) as caught:
        fails()
    assert caught.traceback[-1].name == "fails"


def test_what_led_to_the_error_has_no_frames_either() -> None:
    @hiding_frames
    def fails(key: str) -> None:
        try:
            int("no number")
        except ValueError as error:
            raise BadCall("bad") from error

    with pytest.raises(BadCall) as caught:
        fails(KEY)
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__traceback__ is None
