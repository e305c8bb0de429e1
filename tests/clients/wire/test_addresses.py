"""Passwords in addresses and headers: they reach the server, and nothing else."""

from __future__ import annotations

import logging
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from helpers.byte_server import fixed, serve
from ultra.clients import OllamaClient, OpenAIClient, connect, provider_statuses
from ultra.clients.wire.addresses import checked_url, shown_url
from ultra.errors import BadCall, ModelError

if TYPE_CHECKING:
    import trio

BASIC = f"Basic {b64encode(b'me:p@ssword').decode()}"


@pytest.mark.parametrize(
    ("given", "bare", "header"),
    [
        ("https://host/v1/", "https://host/v1", None),
        ("http://[::1]:80", "http://[::1]:80", None),
        ("https://me:p%40ssword@host:8/v1", "https://host:8/v1", BASIC),
        ("https://me:p@ssword@host:8/v1", "https://host:8/v1", BASIC),
    ],
)
def test_a_password_in_an_address_becomes_a_header(given: str, bare: str, header: str | None) -> None:
    assert checked_url(given) == (bare, {"authorization": header} if header else {})


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host/v1",
        "me:p@ssword@host/v1",
        "http//me:p@ssword@host",
        "ftp://me:p@ssword@host",
        "http://me:p@ssword@[::1",
        "http://me:p@ssword@host:port",
        "https://host/v1?key=p@ssword",
        "https://host/v1#p@ssword",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BadCall, match="base_url must") as caught:
        connect("openai:m", api_key="k", base_url=url or " ")
    assert "ssword" not in str(caught.value)


def test_ollamas_host_may_have_a_password_and_no_scheme() -> None:
    client = OllamaClient("m", provider="ollama", base_url="me:p@ssword@host")
    assert client.dialect.base_url == "http://host:11434"
    assert client._headers.value["authorization"] == BASIC


def test_what_is_shown_of_an_address_is_no_secret() -> None:
    assert shown_url("https://me:p@ssword@host:8/v1?key=p@ssword") == "https://host:8/v1"
    assert shown_url("me:p@ssword@host") == "host"


def test_the_list_of_providers_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "https://me:p@ssword@ollama.example")
    (ollama,) = [status for status in provider_statuses() if status.name == "ollama"]
    assert ollama.detail == "the server at https://ollama.example, not tried"


async def test_a_key_goes_before_a_password_and_neither_is_repeated(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = b'{"error": {"message": "no: p@ssword, sk-secret-key, gateway-token"}}'
    server = await serve(nursery, fixed(401, [], echo))
    url = server.url.replace("//", "//me:p@ssword@")
    headers = {"X-Gateway": "gateway-token", "X-Title": "my service"}
    client = connect("vllm:m", base_url=url, api_key="sk-secret-key", extra_headers=headers)
    with pytest.raises(ModelError) as caught:
        await client.generate("Hello")
    await client.aclose()
    assert caught.value.message == "no: p@ssword, ***, ***"
    assert "gateway-token" not in f"{caught.value!r} {client!r} {client.options!r}"
    assert server.requests[0].headers["authorization"] == "Bearer sk-secret-key"
    assert not [text for text in ("me:p@", "sk-secret", "gateway-token") if text in caplog.text]


async def test_a_password_that_was_sent_is_not_repeated(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(401, [], b'{"error": "no: p@ssword"}'))
    client = OpenAIClient("m", provider="p", base_url=server.url.replace("//", "//me:p@ssword@"))
    with pytest.raises(ModelError) as caught:
        await client.generate("Hello")
    await client.aclose()
    assert caught.value.message == "no: ***"
    assert server.requests[0].headers["authorization"] == BASIC


async def test_a_redirect_is_told_without_the_secrets_in_it(nursery: trio.Nursery) -> None:
    location = [("location", "https://me:p@ssword@other/v1?key=p@ssword")]
    server = await serve(nursery, fixed(307, location, b""))
    client = OpenAIClient("m", provider="p", base_url=server.url, api_key="k")
    with pytest.raises(ModelError, match="redirects to 'https://other/v1'"):
        await client.generate("Hello")
    await client.aclose()


def test_a_key_in_the_body_is_not_in_the_options_repr() -> None:
    client = OpenAIClient("m", provider="p", base_url="http://x")
    options = client.options.override(extra_body={"token": "p@ssword"}, extra_headers={"X-Key": "p@ssword"})
    assert repr(options) == "CallOptions(extra_body=['token'], extra_headers=['X-Key'])"
