"""The server over HTTP, at ``/mcp``: who may ask is what the service says, and pages of others may not."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from ultra.errors import BadCall, MissingExtra
from ultra.mcp.server import WHO, make_server
from ultra.service.access import is_loopback
from ultra.service.app import HungUp, headers_of, read_body
from ultra.service.bodies import NOT_JSON, decode_object
from ultra.service.http import Request
from ultra.service.problems import Problem, problem_of

try:
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken
    from mcp.server.transport_security import TransportSecuritySettings
except ImportError:
    raise MissingExtra("the MCP server", "mcp") from None

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ultra.service.core import Service

__all__ = ["PATH", "make_mcp_app"]

PATH: Final = "/mcp"

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600


def make_mcp_app(service: Service, *, origins: Sequence[str] = ()) -> ASGIApp:
    """Return the ASGI application; its lifespan is that of the models' actors. It runs on trio and asyncio.

    Args:
        service: answers, and its `access` decides who may ask.
        origins: pages of which origins may ask, such as ``https://chat.example``, beside those of the
            service's own address.

    Raises:
        BadCall: an origin is none.
    """
    for origin in origins:
        parts = urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path or parts.query:
            raise BadCall(f"origin {origin!r} is none; give one such as https://chat.example")
    # Host and Origin are checked by the door, which knows the rules of the service.
    unchecked = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = make_server(service).streamable_http_app(
        streamable_http_path=PATH,
        transport_security=unchecked,
        max_request_body_size=service.settings.max_body,
    )
    return _Door(app, service, {origin.lower() for origin in origins})


class _Door:
    """Lets requests in whose sender may ask, and says who that is."""

    def __init__(self, app: ASGIApp, service: Service, origins: Collection[str]) -> None:
        self._app = app
        self._service = service
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
                return
            await self._app(scope, receive, send)
            return
        request = _request(scope)
        try:
            self._check_origin(request)
            who = await self._service.access.authenticate(request)
            if request.method == "POST":
                receive = await self._checked(request, receive)
        except HungUp:
            return
        except Exception as error:  # noqa: BLE001 - the client gets an answer, whatever it is
            await _refuse(problem_of(error), send)
            return
        # By this, the SDK gives nobody the session of another one.
        user = AuthenticatedUser(AccessToken(token="", client_id=who.name or "local", scopes=[]))
        await self._app({**scope, WHO: who, "user": user}, receive, send)

    async def _checked(self, request: Request, receive: Receive) -> Receive:
        """Return what gives the body to the SDK, once it is known that it costs little to decode.

        The SDK has a limit for the size alone, and a body of this size may have tens of millions of objects.
        """
        settings = self._service.settings
        body = await read_body(settings, request.headers, receive)
        decode_object(body, max_nesting=settings.max_nesting)
        return _Again(body, receive)

    def _check_origin(self, request: Request) -> None:
        """Refuse what a browser sends for a page of somebody else; programs send no origin."""
        origin = request.headers.get("origin", "").lower()
        if not origin or origin in self._origins:
            return
        try:
            found = urlsplit(origin)
            own = found.netloc == request.headers.get("host", "").lower()
        except ValueError:
            own, found = False, urlsplit("")
        if not own and not (self._service.access.needs_loopback and is_loopback(found.hostname or "?")):
            text = f"pages of {origin[:200]} may not ask; --allow-origin lets those of an origin do so"
            raise Problem(403, "permission_error", "origin_not_allowed", text)


class _Again:
    """Gives a body that was read already, and then what else comes, such as that the client is gone."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def _request(scope: Scope) -> Request:
    peer, _ = scope.get("client") or (None, 0)
    return Request(method=scope["method"], path=scope["path"], headers=headers_of(scope), peer=peer)


async def _refuse(problem: Problem, send: Send) -> None:
    """Answer as JSON-RPC does, with the status of HTTP that says the same."""
    code = _PARSE_ERROR if problem.message == NOT_JSON else _INVALID_REQUEST
    error: dict[str, Any] = {"code": code, "message": problem.message}
    body = msgspec.json.encode({"jsonrpc": "2.0", "id": None, "error": error})
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",  # what the client still sends is not read
        **problem.headers,
        **({"www-authenticate": "Bearer"} if problem.status == HTTPStatus.UNAUTHORIZED else {}),
    }
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
