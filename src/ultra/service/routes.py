"""The addresses of the service: what each takes, who may ask for it, and what answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from ultra._support.checks import did_you_mean
from ultra.service.access import Caller
from ultra.service.batches.endpoint import accept_batch, cancel_batch, show_batch, show_results
from ultra.service.chat.endpoint import CHAT
from ultra.service.exchange import answered
from ultra.service.http import Reply, Request, json_reply
from ultra.service.messages.endpoint import MESSAGES
from ultra.service.messages.tokens import count_tokens
from ultra.service.model_list import list_models, show_model
from ultra.service.native.endpoint import answer_run
from ultra.service.native.kept import cancel_run, remove_run, show_events, show_run
from ultra.service.native.listing import list_runs
from ultra.service.openapi import document
from ultra.service.page.agreement import compare_answers
from ultra.service.page.files import is_page, show_page
from ultra.service.page.status import show_status
from ultra.service.problems import Problem
from ultra.service.readiness import readiness
from ultra.service.responses.endpoint import answer_response
from ultra.service.responses.kept import (
    cancel_response,
    list_input,
    remove_response,
    retrieve_response,
)
from ultra.strategies.catalog import strategy_names

if TYPE_CHECKING:
    from ultra.service.core import Service

__all__ = ["MODELS", "Route", "find_route", "route_name"]

MODELS: Final = "/v1/models/"

Answer: TypeAlias = Callable[[Any, Request, Caller, AsyncExitStack], Reply | Awaitable[Reply]]
"""Answers a request of the one who asks; what it needs is held until the reply has been sent."""

_GET: Final = ("GET", "HEAD")
_POST: Final = ("POST",)
_DELETE: Final = ("DELETE",)


class Route(NamedTuple):
    """What an address does by some methods.

    `access`: anyone may ask (``open``), or who is known; ``work`` is counted, and bounded.
    """

    methods: tuple[str, ...]
    access: Literal["open", "known", "work"]
    answer: Answer


def find_route(request: Request) -> Route:
    """Return what answers a request.

    Raises:
        Problem: there is no such address, or it takes other methods.
    """
    path = request.path
    routes = _ROUTES.get(route_name(path))
    if routes is None and is_page(path):
        routes = _PAGE
    if routes is None:
        text = f"there is no {path[:200]}{did_you_mean(path[:200], list(_ROUTES))}"
        raise Problem(404, "invalid_request_error", "unknown_url", text)
    for route in routes:
        if request.method in route.methods:
            return route
    methods = [method for route in routes for method in route.methods]
    text = f"{path} takes {' and '.join(methods)}, and not {request.method[:20]}"
    headers = {"allow": ", ".join(methods)}
    raise Problem(405, "invalid_request_error", "method_not_allowed", text, headers=headers)


def route_name(path: str) -> str:
    """Return the address that a path belongs to, one of a few, since what a client writes is no label."""
    if path in _ROUTES:
        return path
    if path.startswith(MODELS) and len(path) > len(MODELS):  # names of models have slashes
        return f"{MODELS}{{id}}"
    kept = _KEPT.fullmatch(path)
    if kept is not None and (name := f"{kept[1]}{{id}}{kept[3] or ''}") in _ROUTES:
        return name
    return "page" if is_page(path) else "other"


def _id_of(request: Request) -> str:
    """Return the id in an address such as ``/v1/runs/{id}/events``."""
    kept = _KEPT.fullmatch(request.path)
    return "" if kept is None else kept[2]


def _show_metrics(service: Service, request: Request, _caller: Caller, _held: AsyncExitStack) -> Reply:
    from ultra.service.metrics import show_metrics  # noqa: PLC0415 - so that a service needs no more

    return show_metrics(service, request)


def _show_model(service: Service, request: Request, _caller: Caller, _held: AsyncExitStack) -> Reply:
    return show_model(service, request, request.path.removeprefix(MODELS))


def _count(service: Service, request: Request, caller: Caller, _held: AsyncExitStack) -> Reply:
    return count_tokens(request, service.targets_for(caller), max_nesting=service.settings.max_nesting)


_KEPT: Final = re.compile(r"(/v1/runs/batch/|/v1/runs/|/v1/responses/)([^/]+)(/[a-z_]+)?")


def _of_run(answer: Callable[[Service, Caller, str], Awaitable[Reply]]) -> Answer:
    return lambda service, request, caller, _held: answer(service, caller, _id_of(request))


_PAGE: Final = (Route(_GET, "open", lambda _service, request, _caller, _held: show_page(request)),)
_ROUTES: Final[Mapping[str, tuple[Route, ...]]] = {
    "/healthz": (Route(_GET, "open", lambda *_: json_reply({"status": "ok"})),),
    "/readyz": (Route(_GET, "open", lambda service, *_: readiness(service)),),
    "/metrics": (Route(_GET, "known", _show_metrics),),
    "/openapi.json": (Route(_GET, "known", lambda *_: json_reply(document())),),
    "/v1/models": (Route(_GET, "known", lambda service, request, *_: list_models(service, request)),),
    "/v1/models/{id}": (Route(_GET, "known", _show_model),),
    "/v1/status": (Route(_GET, "known", lambda service, _request, caller, _: show_status(service, caller)),),
    "/v1/strategies": (Route(_GET, "known", lambda *_: json_reply({"strategies": strategy_names()})),),
    "/v1/agreement": (Route(_POST, "work", lambda service, request, *_: compare_answers(service, request)),),
    "/v1/chat/completions": (Route(_POST, "work", partial(answered, CHAT)),),
    "/v1/responses": (Route(_POST, "work", answer_response),),
    "/v1/responses/{id}": (
        Route(
            ("GET",),
            "known",
            lambda service, request, caller, _: retrieve_response(service, request, caller, _id_of(request)),
        ),
        Route(_DELETE, "known", _of_run(remove_response)),
    ),
    "/v1/responses/{id}/cancel": (Route(_POST, "known", _of_run(cancel_response)),),
    "/v1/responses/{id}/input_items": (
        Route(
            _GET,
            "known",
            lambda service, request, caller, _: list_input(service, request, caller, _id_of(request)),
        ),
    ),
    "/v1/messages": (Route(_POST, "work", partial(answered, MESSAGES)),),
    "/v1/messages/count_tokens": (Route(_POST, "known", _count),),
    "/v1/runs": (
        Route(_POST, "work", answer_run),
        Route(_GET, "known", lambda service, request, caller, _held: list_runs(service, request, caller)),
    ),
    "/v1/runs/batch": (
        Route(_POST, "work", lambda service, request, caller, _held: accept_batch(service, request, caller)),
    ),
    "/v1/runs/batch/{id}": (Route(_GET, "known", _of_run(show_batch)),),
    "/v1/runs/batch/{id}/results": (Route(("GET",), "known", _of_run(show_results)),),
    "/v1/runs/batch/{id}/cancel": (Route(_POST, "known", _of_run(cancel_batch)),),
    "/v1/runs/{id}": (
        Route(
            _GET,
            "known",
            lambda service, request, caller, _: show_run(service, request, caller, _id_of(request)),
        ),
        Route(_DELETE, "known", _of_run(remove_run)),
    ),
    "/v1/runs/{id}/events": (
        Route(
            ("GET",),
            "known",
            lambda service, request, caller, _: show_events(service, request, caller, _id_of(request)),
        ),
    ),
    "/v1/runs/{id}/cancel": (Route(_POST, "known", _of_run(cancel_run)),),
}
