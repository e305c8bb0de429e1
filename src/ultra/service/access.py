"""Who may ask the service. Without keys, that is whoever is on this machine, and nobody else."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from ultra.service.problems import Problem

if TYPE_CHECKING:
    from ultra.service.http import Request

__all__ = ["Authenticator", "LocalOnly", "is_loopback"]

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")


class Authenticator(Protocol):
    """Decides who sends a request."""

    needs_loopback: bool
    """Whether the service may only listen on a loopback address."""

    async def authenticate(self, request: Request) -> str:
        """Return the name of the one who sends it; runs, answers and limits are apart for each name.

        Raises:
            Problem: nobody who may.
        """
        ...


class LocalOnly:
    """Lets all requests in that come from this machine.

    A page that a browser on this machine shows is none of them: it could make the browser send requests,
    under any name that leads here. So a request must also name a loopback host, and come from no other page.
    """

    needs_loopback = True

    async def authenticate(self, request: Request) -> str:
        """Return the empty name. Raises `Problem` for requests from elsewhere."""
        origin = request.headers.get("origin")
        places = [
            request.peer,
            _host_of(f"//{request.headers.get('host', 'localhost')}"),
            None if origin is None else _host_of(origin),
        ]
        if not all(place is None or is_loopback(place) for place in places):
            text = "without keys, the service answers requests from its own machine only"
            raise Problem(403, "permission_error", "loopback_only", text)
        return ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: a loopback address, or its usual names."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOCAL_NAMES:
        return True
    try:
        address = ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _host_of(url: str) -> str:
    """Return the host of an address; of none that can be read, a name that nobody has."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
