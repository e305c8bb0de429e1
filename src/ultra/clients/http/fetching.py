"""Images and documents at an address, fetched for the APIs that take only bytes; only where that is allowed.

An address may come from somebody who must not reach what this machine reaches: its own services, the network
behind it, the metadata of a cloud. So each host is resolved here, each of its addresses is checked, and the
connection goes to a checked address, not to the name, which could have another address by then (DNS
rebinding). Proxies of the environment are not used, since they would resolve the name again.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, cast

import trio
from msgspec.structs import replace

from ultra.clients.wire.addresses import shown_url
from ultra.errors import ModelError
from ultra.messages.chat import FilePart, ImagePart
from ultra.messages.media import LARGEST_IMAGE, document_type, image_type

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    import httpx

    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.request import ModelRequest

__all__ = ["MediaFetcher", "addresses_in", "is_public", "with_bytes"]

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

_OWN: Final = tuple(
    ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's service for its machines
        "192.0.0.0/24",  # protocols; Oracle's metadata
        "192.88.99.0/24",  # relays from IPv6, abolished
        "64:ff9b:1::/48",  # translation within a network
        "100::/64",  # nowhere
        "3fff::/20",  # examples
        "5f00::/16",  # segments of routes
        "fec0::/10",  # sites: private before fc00::/7 was
    )
)
"""What looks public to `ipaddress`, in all of its versions or in some, and is not."""

_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""What stands before an address of IPv4 in the last half of one that tunnels to it."""

_NAT64: Final = IPv6Network("64:ff9b::/96")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Return whether anybody in the internet reaches `address`.

    It is not private, loopback, link-local, multicast, reserved, or a service of a cloud for its machines. An
    address of IPv6 that stands for one of IPv4 counts as that, too.
    """
    own = any(address in network for network in _OWN)
    if not address.is_global or address.is_multicast or address.is_reserved or own:
        return isinstance(address, IPv6Address) and address in _NAT64 and is_public(_last_half(address))
    return not isinstance(address, IPv6Address) or all(map(is_public, _embedded(address)))


def _embedded(address: IPv6Address) -> list[IPv4Address]:
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64 or int(address) >> 32 == 0 or int(address) >> 32 & 0xFFFF_FFFF in _ISATAP:
        found.append(_last_half(address))
    return [each for each in found if each is not None]


def _last_half(address: IPv6Address) -> IPv4Address:
    return IPv4Address(int(address) & 0xFFFF_FFFF)


class MediaFetcher:
    """Fetches what stands at an address of http or https.

    Args:
        largest: bytes of one image or document.
        timeout: seconds for all of one fetch, redirects included.
        redirects: how many are followed; each is checked as the first address is.
        allow_loopback: whether this machine itself may be asked; for tests.
    """

    def __init__(
        self,
        *,
        largest: int = LARGEST_IMAGE,
        timeout: float = 30.0,
        redirects: int = 3,
        allow_loopback: bool = False,
    ) -> None:
        self._largest = largest
        self._timeout = timeout
        self._redirects = redirects
        self._allow_loopback = allow_loopback

    async def fetch(self, url: str) -> bytes:
        """Return what stands at `url`. Cancelled, this closes the connection.

        Raises:
            ModelError: the address is not allowed, nothing stands there, it is too large, or it takes too
                long (kind ``bad_request``).
        """
        with trio.move_on_after(self._timeout):
            for _ in range(self._redirects + 1):
                found = await self._step(url)
                if isinstance(found, bytes):
                    return found
                url = found
            raise _refused(url, f"there are more than {self._redirects} redirects")
        raise _refused(url, f"it was not read within {self._timeout:g} s")

    async def _step(self, url: str) -> bytes | str:
        """Return what stands at `url`, or the address to which it redirects."""
        import httpx  # noqa: PLC0415 - imported at the first call

        try:
            parsed = httpx.URL(url)
            host, port = parsed.raw_host.decode("ascii"), parsed.port
        except (httpx.InvalidURL, ValueError):
            raise _refused(url, "it is no address") from None
        if parsed.scheme not in {"http", "https"} or not host:
            raise _refused(url, "only http and https are allowed")
        addresses = await self._resolved(url, host, port or (443 if parsed.scheme == "https" else 80))
        context = await trio.to_thread.run_sync(_certificates, abandon_on_cancel=True)
        failure: ModelError | None = None
        # A transport of its own: it honours no proxy, follows no redirect, and adds no credentials.
        async with httpx.AsyncHTTPTransport(verify=context, trust_env=False) as transport:
            for address in addresses:
                try:
                    response = await transport.handle_async_request(self._request(parsed, host, address))
                except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                    failure = _refused(url, f"cannot connect: {str(error) or type(error).__name__}")
                    continue
                except (httpx.HTTPError, OSError) as error:
                    raise _refused(url, f"the connection broke: {error}") from None
                try:
                    return await self._read(url, parsed, response)
                finally:
                    await response.aclose()
        raise failure or _refused(url, "the host has no address")

    async def _resolved(self, url: str, host: str, port: int) -> list[str]:
        """Return the addresses of `host`, each of which may be asked."""
        try:
            found = await trio.socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise _refused(url, f"the host is not known: {error}") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            checked = ip_address(address.partition("%")[0])
            if not (is_public(checked) or (self._allow_loopback and checked.is_loopback)):
                raise _refused(url, "its host is not in the public internet")
        return addresses

    def _request(self, url: httpx.URL, host: str, address: str) -> httpx.Request:
        import httpx  # noqa: PLC0415 - loaded already

        seconds = self._timeout
        return httpx.Request(
            "GET",
            url.copy_with(host=address, fragment=None, username="", password=""),
            headers={
                "host": url.netloc.decode("ascii"),
                "accept": "*/*",
                "accept-encoding": "identity",  # so that few bytes never become many
                "user-agent": "ultra-llm",
                "connection": "close",
            },
            # The certificate must be that of the name, though the connection goes to the address.
            extensions={
                "sni_hostname": host.strip("[]"),
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds),
            },
        )

    async def _read(self, url: str, parsed: httpx.URL, response: httpx.Response) -> bytes | str:
        import httpx  # noqa: PLC0415 - loaded already

        status, headers = response.status_code, response.headers
        if status in _REDIRECTS and "location" in headers:
            try:
                return str(parsed.join(headers["location"]))
            except (httpx.InvalidURL, ValueError):
                raise _refused(url, "it redirects to what is no address") from None
        if status != httpx.codes.OK:
            raise _refused(url, f"the server answered with status {status}")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _refused(url, "the server sent it compressed, though it was asked not to")
        try:
            content = await self._content(response)
        except (httpx.HTTPError, OSError) as error:
            raise _refused(url, f"the connection broke: {error}") from None
        if len(content) > self._largest:
            raise _refused(url, f"it has more than {self._largest / 2**20:g} MiB")
        return content

    async def _content(self, response: httpx.Response) -> bytes:
        """Return the body, or its beginning, which is longer than is allowed."""
        import httpx  # noqa: PLC0415 - loaded already

        pieces = aiter(cast("httpx.AsyncByteStream", response.stream))
        content = bytearray()
        ended = True
        try:
            while len(content) <= self._largest:
                ended = True  # whatever leaves the next line has ended the pieces
                content += await anext(pieces)
                ended = False
        except StopAsyncIteration:
            pass
        if not ended:
            # Bodies are nested async generators, which trio wants run to their end. On a closed connection
            # they get there by an error.
            with trio.CancelScope(shield=True) as ending, suppress(httpx.HTTPError, httpx.StreamError):
                await response.aclose()
                ending.cancel()
                async for _ in pieces:
                    pass
        return bytes(content)


def addresses_in(
    messages: Sequence[ChatMessage], *, images: bool = True, files: bool = True
) -> list[ImagePart | FilePart]:
    """Return the images and the documents in `messages` that are given by their address."""
    return [
        part
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if ((images and isinstance(part, ImagePart)) or (files and isinstance(part, FilePart)))
        and part.data is None
    ]


async def with_bytes(
    request: ModelRequest, parts: Sequence[ImagePart | FilePart], fetcher: MediaFetcher | None, model: str
) -> ModelRequest:
    """Return `request` with the bytes of `parts`, which it has, in place of their addresses.

    Args:
        request: what is asked.
        parts: those that `model` does not take by address.
        fetcher: what fetches them; None: that is not allowed.
        model: named in errors.

    Raises:
        ModelError: it is not allowed, or fails, or what is there is no image or document of a known type
            (kind ``bad_request``).
    """
    if fetcher is None:
        kind = "an image" if isinstance(parts[0], ImagePart) else "a document"
        raise ModelError(
            f"{model} takes no address of {kind}, such as {shown_url(parts[0].url or '')[:200]!r}; give its "
            "bytes or its path (ImagePart.of, FilePart.of), or let Ultra fetch it: connect(..., "
            "fetch_urls=True), in ultra.toml fetch_urls = true",
            kind="bad_request",
        )
    fetched: dict[int, ImagePart | FilePart] = {}  # by the identity of the part
    known: dict[str, bytes] = {}
    for part in parts:
        url = part.url or ""
        data = known.get(url)
        if data is None:
            data = known[url] = await fetcher.fetch(url)
        media_type = image_type(data) if isinstance(part, ImagePart) else document_type(data)
        if not data or media_type is None:
            kinds = "PNG, JPEG, GIF or WebP" if isinstance(part, ImagePart) else "PDF or text in UTF-8"
            raise _refused(url, f"it is not {kinds}")
        fetched[id(part)] = replace(part, data=data, url=None, media_type=media_type)

    def own(part: Part) -> Part:
        return fetched.get(id(part), part)

    messages = tuple(
        message
        if isinstance(message.content, str)
        else replace(message, content=tuple(map(own, message.content)))
        for message in request.messages
    )
    return replace(request, messages=messages)


def _refused(url: str, reason: str) -> ModelError:
    return ModelError(
        f"{shown_url(url)[:200]!r} cannot be fetched: {reason}; give the bytes instead", kind="bad_request"
    )


@cache
def _certificates() -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - in a thread: it takes tens of milliseconds

    return httpx.create_ssl_context()
