"""Errors in the shape of the protocol that was asked by: OpenAI's, or Anthropic's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ultra._support.randomness import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ultra.service.problems import Problem

__all__ = ["anthropic_error", "error_body", "is_anthropic", "request_name"]

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BY_STATUS: Final[Mapping[int, str]] = {404: "not_found_error", 413: "request_too_large"}
_BY_TYPE: Final[Mapping[str, str]] = {
    "invalid_request_error": "invalid_request_error",
    "authentication_error": "authentication_error",
    "permission_error": "permission_error",
    "rate_limit_error": "rate_limit_error",
    "insufficient_quota": "billing_error",
    "overloaded_error": "overloaded_error",
    "timeout_error": "timeout_error",
}


def is_anthropic(path: str, headers: Mapping[str, str]) -> bool:
    """Return whether a request speaks Anthropic's protocol."""
    if path == "/v1/models" or path.startswith("/v1/models/"):
        return "anthropic-version" in headers
    return path == "/v1/messages" or path.startswith("/v1/messages/")


def request_name(headers: Mapping[str, str]) -> str:
    """Return the name of a request: the one that its client gave it, or a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{new_id()}"


def error_body(problem: Problem, path: str, headers: Mapping[str, str], name: str) -> dict[str, Any]:
    """Return the body of a reply that tells of a problem; `name` is that of the request."""
    if is_anthropic(path, headers):
        return {**anthropic_error(problem), "request_id": name}
    return problem.as_openai()


def anthropic_error(problem: Problem) -> dict[str, Any]:
    """Return what tells of a problem in Anthropic's protocol, in a body or in a stream.

    The protocol has no codes; where there is more to tell, the code is with it.
    """
    kind = _BY_TYPE.get(problem.type, "api_error")
    if kind == "invalid_request_error":
        kind = _BY_STATUS.get(problem.status, kind)
    error: dict[str, Any] = {"type": kind, "message": problem.message}
    if problem.details:
        error["ultra"] = {"code": problem.code, **problem.details}
    return {"type": "error", "error": error}
