"""Images at an address: passed on, or fetched where that is allowed, and never from where it must not be."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
import trio

from helpers.byte_server import Received, Server, fixed, head, serve
from ultra.clients import AnthropicClient, GeminiClient, HTTPClient, OllamaClient, OpenAIClient, connect
from ultra.clients.http.fetching import MediaFetcher, is_public
from ultra.clients.quirks import Quirks
from ultra.config import load_configuration
from ultra.errors import BadCall, ModelError
from ultra.messages.chat import ChatMessage, FilePart, ImagePart, TextPart
from ultra.messages.request import ModelRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
IMAGE = "https://images.example/a.png"


class Names(trio.abc.HostnameResolver):
    """Resolves names as a test says, and each only once: a second answer might be another."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []

    async def getaddrinfo(
        self,
        host: Any,
        port: Any,
        family: int = 0,
        type: int = 0,  # noqa: A002
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        assert name not in self.asked
        self.asked.append(name)
        if name not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                0,
                "",
                (address, port),
            )
            for address in self.addresses[name]
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


def fetcher(**settings: Any) -> MediaFetcher:
    return MediaFetcher(allow_loopback=True, **settings)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1"),
        *("169.254.169.254", "168.63.129.16", "100.100.100.200", "224.0.0.1", "239.1.1.1", "255.255.255.255"),
        *(
            "240.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
        ),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "::7f00:1"),
        *("192.0.0.192", "192.0.0.170", "192.88.99.1", "fec0::1", "feff::1", "3fff::1", "5f00::1", "100::1"),
        *("64:ff9b:1::7f00:1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:7f00:1"),
        *("64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::1", "2001:db8::1"),
    ],
)
def test_addresses_that_not_everybody_reaches_are_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "192.0.9.1", "93.184.216.34", "2606:4700::1111", "2606:4700::5efe:1.1.1.1"),
        *("64:ff9b::101:101", "::ffff:1.1.1.1"),
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address)) or address.startswith("::ffff:")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "http://localhost/a.png",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://user:secret@10.0.0.1/a.png",
    ],
)
async def test_nothing_is_fetched_from_a_private_address_however_it_is_written(url: str) -> None:
    with pytest.raises(ModelError, match=r"not in the public internet|not known") as caught:
        await MediaFetcher().fetch(url)
    assert caught.value.kind == "bad_request"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("found", [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["2606:4700::1111", "::1"]])
async def test_a_name_with_one_private_address_is_not_asked_at_any(found: list[str]) -> None:
    names = Names(images_example=found)
    trio.socket.set_custom_hostname_resolver(names)
    with pytest.raises(ModelError, match="not in the public internet"):
        await MediaFetcher().fetch("http://images.example/a.png")


@pytest.mark.parametrize(
    "url", ["ftp://images.example/a", "file:///etc/passwd", "http://", "http://[::1", "x"]
)
async def test_only_addresses_of_http_are_fetched(url: str) -> None:
    with pytest.raises(ModelError, match=r"only http and https|no address"):
        await MediaFetcher().fetch(url)


async def test_the_connection_goes_to_the_address_that_was_checked_under_the_name_of_the_host(
    nursery: trio.Nursery,
) -> None:
    server = await serve(nursery, fixed(200, [], PNG))
    port = server.url.rsplit(":", 1)[1]
    names = Names(images_example=["127.0.0.1"])
    trio.socket.set_custom_hostname_resolver(names)
    assert await fetcher().fetch(f"http://images.example:{port}/a.png?b=c#d") == PNG
    assert names.asked == ["images.example"]
    (request,) = server.requests
    assert (request.method, request.target) == ("GET", "/a.png?b=c")
    assert request.headers["host"] == f"images.example:{port}"
    assert "authorization" not in request.headers


def redirecting(*targets: str) -> Callable[[trio.SocketStream, Received], Awaitable[None]]:
    waiting = list(targets)

    async def answer(stream: trio.SocketStream, _: Received) -> None:
        if waiting:
            await stream.send_all(head(302, [("location", waiting.pop(0)), ("content-length", "0")]))
        else:
            await fixed(200, [], PNG)(stream, _)

    return answer


async def test_three_redirects_are_followed_and_no_more(nursery: trio.Nursery) -> None:
    server = await serve(nursery, redirecting("/b", "c", "/d"))
    assert await fetcher().fetch(f"{server.url}/a") == PNG
    assert [request.target for request in server.requests] == ["/a", "/b", "/c", "/d"]
    endless = await serve(nursery, redirecting(*["/again"] * 5))
    with pytest.raises(ModelError, match="more than 3 redirects"):
        await fetcher().fetch(endless.url)
    assert len(endless.requests) == 4


@pytest.mark.parametrize("target", ["http://10.0.0.1/", "http://169.254.169.254/", "file:///etc/passwd"])
async def test_each_redirect_is_checked(nursery: trio.Nursery, target: str) -> None:
    server = await serve(nursery, redirecting(target))
    with pytest.raises(ModelError, match=r"not in the public internet|only http and https"):
        await fetcher().fetch(server.url)


@pytest.mark.parametrize("chunked", [True, False])
async def test_what_is_too_large_is_not_read_to_its_end(nursery: trio.Nursery, *, chunked: bool) -> None:
    server = await serve(nursery, fixed(200, [], PNG * 10, chunked=chunked, piece=7))
    with pytest.raises(ModelError, match="more than"):
        await fetcher(largest=100).fetch(server.url)
    assert await fetcher(largest=240).fetch(server.url) == PNG * 10


async def test_compressed_answers_and_errors_are_refused(nursery: trio.Nursery) -> None:
    server = await serve(nursery, fixed(200, [("content-encoding", "gzip")], b"..."))
    with pytest.raises(ModelError, match="compressed"):
        await fetcher().fetch(server.url)
    missing = await serve(nursery, fixed(404, [], b""))
    with pytest.raises(ModelError, match="status 404"):
        await fetcher().fetch(f"{missing.url}/a.png?token=secret")


async def test_a_fetch_ends_when_its_time_is_over(autojump_clock: trio.testing.MockClock) -> None:
    class Silent(Names):
        async def getaddrinfo(self, *_: Any, **__: Any) -> Any:
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Silent())
    with pytest.raises(ModelError, match="within 30 s"):
        await MediaFetcher().fetch(IMAGE)
    assert trio.current_time() == pytest.approx(30)


async def test_a_host_that_cannot_be_reached_is_told(nursery: trio.Nursery) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))  # bound, and not listening
    with listener, pytest.raises(ModelError, match="cannot connect"):
        await fetcher().fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    trio.socket.set_custom_hostname_resolver(Names())
    with pytest.raises(ModelError, match="not known"):
        await MediaFetcher().fetch(IMAGE)


# --- clients ---------------------------------------------------------------------------------------


def asked(url: str, kind: type[ImagePart | FilePart] = ImagePart) -> ModelRequest:
    return ModelRequest(messages=(ChatMessage("user", (kind(url=url), TextPart("What is it?"))),))


async def call(client: HTTPClient, request: ModelRequest, *, stream: bool) -> None:
    if not stream:
        await client.respond(request)
        return
    async with client.stream_response(request) as pieces:
        async for _ in pieces:
            pass


async def ollama(nursery: trio.Nursery) -> Server:
    done = b'{"message":{"role":"assistant","content":"A cat."},"done":true,"done_reason":"stop"}\n'
    return await serve(nursery, fixed(200, [("content-type", "application/x-ndjson")], done))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_fetches_for_an_api_that_takes_only_bytes(
    nursery: trio.Nursery, *, stream: bool
) -> None:
    images, server = await serve(nursery, fixed(200, [], PNG)), await ollama(nursery)
    client = OllamaClient("m", provider="ollama", base_url=server.url, fetch_urls=fetcher())
    await call(client, asked(f"{images.url}/a"), stream=stream)
    assert server.requests[0].json["messages"][0]["images"] == ["iVBORw0KGgoAAAAAAAAAAAAAAAAAAAAA"]
    twice = asked(f"{images.url}/b").messages * 2
    await call(client, ModelRequest(messages=twice), stream=stream)
    assert [request.target for request in images.requests] == ["/a", "/b"], "each address once a call"
    await client.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_what_stands_there_must_be_an_image(nursery: trio.Nursery, *, stream: bool) -> None:
    page, server = (
        await serve(nursery, fixed(200, [("content-type", "image/png")], b"<html>")),
        await ollama(nursery),
    )
    client = OllamaClient("m", provider="ollama", base_url=server.url, fetch_urls=fetcher())
    with pytest.raises(ModelError, match="not PNG, JPEG, GIF or WebP") as caught:
        await call(client, asked(page.url), stream=stream)
    assert (caught.value.kind, caught.value.retryable) == ("bad_request", False)
    assert not server.requests


@pytest.mark.parametrize("stream", [False, True])
async def test_unless_it_is_allowed_nothing_is_fetched_and_the_error_says_how(
    nursery: trio.Nursery, *, stream: bool
) -> None:
    server = await ollama(nursery)
    client = OllamaClient("m", provider="ollama", base_url=server.url)
    with pytest.raises(ModelError, match=r"takes no address of an image.*fetch_urls=True") as caught:
        await call(client, asked(f"{IMAGE}?token=secret"), stream=stream)
    assert caught.value.kind == "bad_request"
    assert "secret" not in str(caught.value)
    assert not server.requests


@pytest.mark.parametrize(
    ("make", "path"), [(OpenAIClient, "openai"), (AnthropicClient, "anthropic"), (GeminiClient, "gemini")]
)
async def test_an_address_is_passed_on_where_the_api_takes_one(
    nursery: trio.Nursery, make: Any, path: str
) -> None:
    server = await serve(nursery, fixed(400, [], b"{}"))
    client = make("m", provider=path, base_url=server.url, fetch_urls=fetcher())
    with pytest.raises(ModelError):
        await client.respond(asked(IMAGE))
    assert IMAGE.encode() in server.requests[0].body
    await client.aclose()


async def test_endpoints_that_are_known_to_take_no_addresses_get_bytes(nursery: trio.Nursery) -> None:
    client = connect("openai:kimi-latest", api_key="k" * 9, base_url="https://api.moonshot.ai/v1")
    with pytest.raises(ModelError, match="takes no address of an image"):
        await client.respond(asked(IMAGE))
    told = connect("vllm:m", base_url="http://127.0.0.1:9/v1", quirks=Quirks(no_image_urls=True))
    with pytest.raises(ModelError, match="takes no address of an image"):
        await told.respond(asked(IMAGE))
    with pytest.raises(ModelError, match="takes no address of a document"):
        await connect("openai:gpt-4o", api_key="k" * 9).respond(asked("https://a.example/b.pdf", FilePart))


def test_fetching_is_allowed_by_connect_and_by_the_configuration(tmp_path: Path) -> None:
    assert connect("ollama:m")._fetcher is None
    assert connect("ollama:m", fetch_urls=True)._fetcher is not None
    with pytest.raises(BadCall, match="fetch_urls is 1; it must be True or False"):
        connect("ollama:m", fetch_urls=1)
    file = tmp_path / "ultra.toml"
    file.write_text('[models.a]\nmodel = "ollama:m"\nfetch_urls = true\n\n[models.b]\nmodel = "ollama:m"\n')
    models = load_configuration(file).models
    assert [models[name].connect()[0]._fetcher is not None for name in "ab"] == [True, False]  # type: ignore[attr-defined]
