"""Which proxy of the environment a request goes through.

httpx 0.28 takes networks and brackets of IPv6 in ``NO_PROXY``, as container tools write them, for ports, and
then fails every call. A client of ours talks to one endpoint, so its proxy is found here, once.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address

__all__ = ["proxy_for"]

_PORTS = {"http": 80, "https": 443}


def proxy_for(url: str, proxies: Mapping[str, str] | None = None) -> str | None:
    """Return the address of the proxy for requests to `url`; None: they go there directly.

    Requests to this machine (``localhost``, 127.0.0.0/8, ``::1``) never go through a proxy. An entry of
    ``NO_PROXY`` is a host (with those below it), an address, a network, or ``*``, and may have a port; one
    that makes no sense is passed over.

    Args:
        url: of the endpoint.
        proxies: by scheme, and ``no``; by default those of the environment, or of the operating system.
    """
    found = getproxies() if proxies is None else proxies
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    proxy = found.get(parts.scheme) or found.get("all")
    if not proxy or _is_this_machine(host):
        return None
    port = parts.port or _PORTS.get(parts.scheme, 0)
    entries = found.get("no", "").replace(",", " ").split()
    if any(_covers(entry.lower(), host, port) for entry in entries):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_this_machine(host: str) -> bool:
    address = _address(host)
    if address is None:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _covers(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY speaks of this host and port."""
    if entry == "*":
        return True
    _, _, entry = entry.rpartition("://")
    network, _, prefix = entry.partition("/")
    name, own_port = _host_and_port(network)
    if own_port not in {None, port}:
        return False
    address = _address(host)
    if address is None:
        # "*.example.com" and ".example.com" are written for "example.com", too.
        name = name.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
    try:
        return address in ip_network(f"{name}/{prefix}" if prefix else name, strict=False)
    except ValueError:
        return False


def _host_and_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:  # without a port; several colons are those of an address of IPv6
        host, port = text, ""
    return host, int(port) if port.isascii() and port.isdigit() else None
