"""Images and documents at an address, fetched for the APIs that take only bytes; only where that is allowed.

An address may come from somebody who must not reach what this machine reaches: see `public_hosts`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

import trio
from msgspec.structs import replace

from ultra.clients.http.public_hosts import HostRefused, OutgoingRequest, is_public, send_checked
from ultra.clients.wire.addresses import shown_url
from ultra.errors import ModelError
from ultra.messages.chat import FilePart, ImagePart
from ultra.messages.media import LARGEST_IMAGE, document_type, image_type

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ipaddress import IPv4Address, IPv6Address

    import httpx

    from ultra.messages.chat import ChatMessage, Part
    from ultra.messages.request import ModelRequest

__all__ = ["MediaFetcher", "addresses_in", "is_public", "with_bytes"]

_TAKEN_AT_ONCE: Final = 32
"""Pieces of a body after which others have their turn."""
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


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
        headers = {
            "accept": "*/*",
            "accept-encoding": "identity",  # so that few bytes never become many
            "connection": "close",
        }
        request = OutgoingRequest("GET", url, headers, self._timeout)
        try:
            async with send_checked(request, allows=self._allows) as response:
                return await self._read(url, response)
        except HostRefused as error:
            raise _refused(url, str(error)) from None

    def _allows(self, address: IPv4Address | IPv6Address) -> bool:
        return is_public(address) or (self._allow_loopback and address.is_loopback)

    async def _read(self, url: str, response: httpx.Response) -> bytes | str:
        import httpx  # noqa: PLC0415 - loaded already

        status, headers = response.status_code, response.headers
        if status in _REDIRECTS and "location" in headers:
            try:
                return str(httpx.URL(url).join(headers["location"]))
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
        taken = 0
        ended = True
        try:
            while len(content) <= self._largest:
                ended = True  # whatever leaves the next line has ended the pieces
                content += await anext(pieces)
                ended = False
                taken += 1
                if taken % _TAKEN_AT_ONCE == 0:
                    await trio.lowlevel.cancel_shielded_checkpoint()
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
