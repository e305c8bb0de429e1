"""The addresses of the service: what each takes, who may ask for it, and what answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from ultra.service.access import Caller
from ultra.service.chat.endpoint import CHAT
from ultra.service.exchange import answered
from ultra.service.http import Reply, Request, json_reply
from ultra.service.messages.endpoint import MESSAGES
from ultra.service.messages.tokens import count_tokens
from ultra.service.model_list import list_models, show_model
from ultra.service.native.endpoint import answer_run
from ultra.service.openapi import document
from ultra.service.page.agreement import compare_answers
from ultra.service.page.files import is_page, show_page
from ultra.service.page.status import show_status
from ultra.service.problems import Problem
from ultra.service.readiness import readiness
from ultra.service.responses.endpoint import RESPONSES
from ultra.strategies.catalog import strategy_names

if TYPE_CHECKING:
    from ultra.service.core import Service

__all__ = ["MODELS", "Route", "find_route", "route_name"]

MODELS: Final = "/v1/models/"

Answer: TypeAlias = Callable[[Any, Request, Caller, AsyncExitStack], Reply | Awaitable[Reply]]
"""Answers a request of the one who asks; what it needs is held until the reply has been sent."""

_GET: Final = ("GET", "HEAD")
_POST: Final = ("POST",)


class Route(NamedTuple):
    """One address. `access`: anyone may ask (``open``), or who is known; ``work`` is counted, and bounded."""

    methods: tuple[str, ...]
    access: Literal["open", "known", "work"]
    answer: Answer


def find_route(request: Request) -> Route:
    """Return what answers a request.

    Raises:
        Problem: there is no such address, or it takes other methods.
    """
    path = request.path
    route = _ROUTES.get(path)
    if route is None and is_page(path):
        route = _PAGE
    if route is None and path.startswith(MODELS) and len(path) > len(MODELS):
        route = _MODEL
    if route is None:
        raise Problem(404, "invalid_request_error", "unknown_url", f"there is no {path[:200]}")
    if request.method not in route.methods:
        text = f"{path} takes {' and '.join(route.methods)}, and not {request.method[:20]}"
        raise Problem(405, "invalid_request_error", "method_not_allowed", text)
    return route


def route_name(path: str) -> str:
    """Return the address that a path belongs to, one of a few, since what a client writes is no label."""
    if path in _ROUTES:
        return path
    return f"{MODELS}{{id}}" if path.startswith(MODELS) else "page" if is_page(path) else "other"


def _show_metrics(service: Service, request: Request, _caller: Caller, _held: AsyncExitStack) -> Reply:
    from ultra.service.metrics import show_metrics  # noqa: PLC0415 - so that a service needs no more

    return show_metrics(service, request)


def _show_model(service: Service, request: Request, _caller: Caller, _held: AsyncExitStack) -> Reply:
    return show_model(service, request, request.path.removeprefix(MODELS))


def _count(service: Service, request: Request, caller: Caller, _held: AsyncExitStack) -> Reply:
    return count_tokens(request, service.targets_for(caller), max_nesting=service.settings.max_nesting)


_MODEL: Final = Route(_GET, "known", _show_model)
_PAGE: Final = Route(_GET, "open", lambda _service, request, _caller, _held: show_page(request))
_ROUTES: Final[Mapping[str, Route]] = {
    "/healthz": Route(_GET, "open", lambda *_: json_reply({"status": "ok"})),
    "/readyz": Route(_GET, "open", lambda service, *_: readiness(service)),
    "/metrics": Route(_GET, "known", _show_metrics),
    "/openapi.json": Route(_GET, "known", lambda *_: json_reply(document())),
    "/v1/models": Route(_GET, "known", lambda service, request, *_: list_models(service, request)),
    "/v1/status": Route(_GET, "known", lambda service, _request, caller, _held: show_status(service, caller)),
    "/v1/strategies": Route(_GET, "known", lambda *_: json_reply({"strategies": strategy_names()})),
    "/v1/agreement": Route(_POST, "work", lambda service, request, *_: compare_answers(service, request)),
    "/v1/chat/completions": Route(_POST, "work", partial(answered, CHAT)),
    "/v1/responses": Route(_POST, "work", partial(answered, RESPONSES)),
    "/v1/messages": Route(_POST, "work", partial(answered, MESSAGES)),
    "/v1/messages/count_tokens": Route(_POST, "known", _count),
    "/v1/runs": Route(_POST, "work", answer_run),
}
