"""Hosts that may be reached for somebody who must not reach what this machine reaches.

That is its own services, the network behind it, the metadata of a cloud. So each host is resolved here, each
of its addresses is checked, and the connection goes to a checked address, not to the name, which could have
another address by then (DNS rebinding). Proxies of the environment are not used, since they would resolve
the name again.
"""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Mapping

    import httpx

__all__ = ["HostRefused", "OutgoingRequest", "is_public", "send_checked"]


class HostRefused(Exception):
    """The request was not sent, or not answered; the text says why, without the address."""


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


class OutgoingRequest(NamedTuple):
    """A request: `seconds` for each step of it. `headers` have no ``host``."""

    method: str
    url: str
    headers: Mapping[str, str]
    seconds: float
    content: bytes = b""


@asynccontextmanager
async def send_checked(
    request: OutgoingRequest, *, allows: Callable[[IPv4Address | IPv6Address], bool] = is_public
) -> AsyncIterator[httpx.Response]:
    """Send a request to an address that `allows`; yields the response, whose body was not read. On trio.

    No redirect is followed, and no proxy is used. Leaving the block closes the connection.

    Raises:
        HostRefused: it is no address of http or https, its host has an address that is not allowed or none at
            all, or cannot be reached.
    """
    import httpx  # noqa: PLC0415 - imported at the first call

    try:
        parsed = httpx.URL(request.url)
        host, port = parsed.raw_host.decode("ascii"), parsed.port
    except (httpx.InvalidURL, ValueError):
        raise HostRefused("it is no address") from None
    if parsed.scheme not in {"http", "https"} or not host:
        raise HostRefused("only http and https are allowed")
    addresses = await _resolved(host, port or (443 if parsed.scheme == "https" else 80), allows)
    context = await trio.to_thread.run_sync(_certificates, abandon_on_cancel=True)
    # A transport of its own: it honours no proxy, follows no redirect, and adds no credentials.
    async with httpx.AsyncHTTPTransport(verify=context, trust_env=False) as transport:
        response = await _first_response(transport, request, parsed, host, addresses)
        try:
            yield response
        finally:
            await response.aclose()


async def _resolved(host: str, port: int, allows: Callable[[IPv4Address | IPv6Address], bool]) -> list[str]:
    """Return the addresses of `host`, each of which may be asked."""
    try:
        found = await trio.socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise HostRefused(f"the host is not known: {error}") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not allows(ip_address(address.partition("%")[0])):
            raise HostRefused("its host is not in the public internet")
    return addresses


async def _first_response(
    transport: httpx.AsyncHTTPTransport,
    request: OutgoingRequest,
    url: httpx.URL,
    host: str,
    addresses: list[str],
) -> httpx.Response:
    """Return the response of the first address to which one can connect."""
    import httpx  # noqa: PLC0415 - loaded already

    failure = HostRefused("the host has no address")
    for address in addresses:
        try:
            return await transport.handle_async_request(_made(request, url, host, address))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = HostRefused(f"cannot connect: {str(error) or type(error).__name__}")
        except (httpx.HTTPError, OSError) as error:
            raise HostRefused(f"the connection broke: {error}") from None
    raise failure


def _made(request: OutgoingRequest, url: httpx.URL, host: str, address: str) -> httpx.Request:
    import httpx  # noqa: PLC0415 - loaded already

    return httpx.Request(
        request.method,
        url.copy_with(host=address, fragment=None, username="", password=""),
        headers={"host": url.netloc.decode("ascii"), "user-agent": "ultra-llm", **request.headers},
        content=request.content or None,
        # The certificate must be that of the name, though the connection goes to the address.
        extensions={
            "sni_hostname": host.strip("[]"),
            "timeout": dict.fromkeys(("connect", "read", "write", "pool"), request.seconds),
        },
    )


@cache
def _certificates() -> ssl.SSLContext:
    import httpx  # noqa: PLC0415 - in a thread: it takes tens of milliseconds

    return httpx.create_ssl_context()
