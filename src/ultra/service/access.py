"""Who may ask the service: the clients that have keys, or without any, whoever is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from ultra.config.keys import hash_of
from ultra.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ultra.config.keys import KeyConfig
    from ultra.config.serving import ServeConfig
    from ultra.service.http import Request

__all__ = ["Authenticator", "Caller", "KeysOnly", "LocalOnly", "access_of", "is_loopback"]

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain", "ip6-localhost")


@dataclass(frozen=True)
class Caller:
    """Who sends a request. Runs, kept answers and limits are apart for each `name`; `key` has the limits."""

    name: str = ""
    key: KeyConfig | None = None

    def may_ask(self, name: str) -> bool:
        """Return whether an ensemble or a model of this name is allowed."""
        return self.key is None or self.key.models is None or name in self.key.models


class Authenticator(Protocol):
    """Decides who sends a request."""

    needs_loopback: bool
    """Whether the service may only listen on a loopback address."""

    async def authenticate(self, request: Request) -> Caller:
        """Return who sends it. The body of the request is not there yet.

        Raises:
            Problem: nobody who may.
        """
        ...


class KeysOnly:
    """Lets requests in that have one of these keys, as `Authorization: Bearer` or as `x-api-key`."""

    needs_loopback = False

    def __init__(self, keys: Sequence[KeyConfig]) -> None:
        self._keys = tuple(keys)

    async def authenticate(self, request: Request) -> Caller:
        """Return whose key it is. Raises `Problem`."""
        scheme, _, key = request.headers.get("authorization", "").strip().partition(" ")
        given = key.strip() if scheme.lower() == "bearer" else ""
        given = given or request.headers.get("x-api-key", "").strip()
        if not given:
            raise _unknown("there is no key; send it as 'Authorization: Bearer KEY', or as 'x-api-key'")
        hashed = hash_of(given)
        # Each is compared, so that the time says nothing of which one it is.
        found = [key for key in self._keys if key.is_key(hashed)]
        if not found:
            raise _unknown("this key is not known")
        return Caller(found[0].name, found[0])


def _unknown(text: str) -> Problem:
    headers = {"www-authenticate": "Bearer"}
    return Problem(401, "authentication_error", "invalid_api_key", text, headers=headers)


class LocalOnly:
    """Lets all requests in that come from this machine; `origins` are pages whose requests are let in, too.

    A page that a browser on this machine shows is none of them: it could make the browser send requests,
    under any name that leads here. So a request must also name a loopback host, and come from no other page.
    """

    needs_loopback = True

    def __init__(self, origins: Sequence[str] = ()) -> None:
        self._origins = frozenset(origins)

    async def authenticate(self, request: Request) -> Caller:
        """Return a caller without a name. Raises `Problem` for requests from elsewhere."""
        origin = request.headers.get("origin")
        if origin in self._origins or "*" in self._origins:
            origin = None
        places = [
            request.peer,
            _host_of(f"//{request.headers.get('host', 'localhost')}"),
            None if origin is None else _host_of(origin),
        ]
        if not all(place is None or is_loopback(place) for place in places):
            text = "without keys, the service answers requests from its own machine only"
            raise Problem(403, "permission_error", "loopback_only", text)
        return Caller()


@lru_cache(maxsize=256)
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


@lru_cache(maxsize=256)
def _host_of(url: str) -> str:
    """Return the host of an address; of none that can be read, a name that nobody has."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"


def access_of(settings: ServeConfig) -> Authenticator:
    """Return who may ask by these settings: who has one of the keys, or, without keys, this machine."""
    return KeysOnly(settings.keys) if settings.keys else LocalOnly(settings.cors_origins)
