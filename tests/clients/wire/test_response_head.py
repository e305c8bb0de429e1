from __future__ import annotations

import json
from typing import Any

import pytest

from ultra.clients.wire.response_head import ResponseHead
from ultra.errors import ModelError


def failure(status: int, body: Any, headers: dict[str, str] | None = None) -> ModelError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ResponseHead("p", status, headers or {}).failure(content)


def failure_inside(body: Any) -> ModelError:
    return ResponseHead("p", 200, {}).failure_inside(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (302, "bad_request", False),
        (400, "bad_request", False),
        (401, "auth", False),
        (402, "quota", False),
        (403, "auth", False),
        (404, "bad_request", False),
        (408, "timeout", True),
        (409, "server", True),
        (413, "bad_request", False),
        (422, "bad_request", False),
        (429, "rate_limit", True),
        (498, "overloaded", True),
        (500, "server", True),
        (502, "server", True),
        (503, "overloaded", True),
        (504, "timeout", True),
        (529, "overloaded", True),
    ],
)
def test_a_status_alone_tells_the_kind(status: int, kind: str, *, retryable: bool) -> None:
    error = failure(status, {"error": {"message": "no"}})
    assert (error.kind, error.retryable, error.status) == (kind, retryable, status)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"error": {"message": "m", "code": "insufficient_quota"}}, "quota"),
        (429, {"error": {"message": "m", "type": "insufficient_quota", "code": None}}, "quota"),
        (400, {"error": {"message": "Your credit balance is too low to access the API."}}, "quota"),
        (400, {"error": {"message": "m", "code": "content_filter"}}, "content"),
        (400, {"error": {"message": "m", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "content"),
        (400, {"error": {"message": "m", "details": [{"reason": "API_KEY_INVALID"}]}}, "auth"),
        (400, {"code": "invalid-argument", "error": "Incorrect API key provided."}, "auth"),
        (500, {"error": {"message": "Incorrect API key provided."}}, "server"),
    ],
)
def test_words_in_the_body_tell_more_than_the_status(status: int, body: Any, kind: str) -> None:
    error = failure(status, body)
    assert error.kind == kind
    assert error.retryable == (kind == "server")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "a"}}, "a"),
        ({"error": "b"}, "b"),
        ({"message": "c"}, "c"),
        ({"detail": "d"}, "d"),
        ({"detail": [{"loc": ["body"], "msg": "e"}]}, '[{"loc":["body"],"msg":"e"}]'),
        ([{"error": {"message": "f"}}], "f"),
        ("g", "g"),
        ({"error": '{"error": {"message": "h"}}'}, '{"error": {"message": "h"}}'),
        ({"error": {"code": 3}}, '{"error":{"code":3}}'),
        (b"<html><head><title>502 Bad\n Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        (b"<p>upstream <b>lost</b></p>", "upstream lost"),
        (b"", "HTTP status 500 with an empty body"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"x" * 1000, "x" * 300 + "…"),
        (b"[" * 100_000, "[" * 300 + "…"),
        (b'{"error": {"message": 7}}', '{"error":{"message":7}}'),
    ],
)
def test_the_message_is_the_providers_in_whatever_form_it_comes(body: Any, message: str) -> None:
    assert failure(500, body).message == message


@pytest.mark.parametrize(
    ("body", "kind", "retryable"),
    [
        ({"error": {"message": "m", "type": "overloaded_error"}}, "overloaded", True),
        ({"error": {"message": "m", "type": "rate_limit_error"}}, "rate_limit", True),
        ({"error": {"message": "m", "type": "invalid_request_error"}}, "bad_request", False),
        ({"error": {"message": "m", "code": 429}}, "rate_limit", True),
        ({"error": {"message": "m", "code": "503"}}, "overloaded", True),
        ({"error": {"message": "m", "code": 200}}, "server", True),
        ({"error": {"message": "m", "status_code": 400}}, "bad_request", False),
        ({"error": {"message": "m"}}, "server", True),
        ({"error": '{"error": {"code": 400, "message": "m"}}'}, "bad_request", False),
    ],
)
def test_an_error_inside_a_success_is_known_by_its_words(body: Any, kind: str, *, retryable: bool) -> None:
    error = failure_inside(body)
    assert (error.kind, error.retryable, error.status) == (kind, retryable, 200)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "6"}, 6.0),
        ({"retry-after": "10", "retry-after-ms": "9525"}, 9.525),
        ({"retry-after": "1", "retry-after-ms": "0"}, 1.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_what_the_headers_ask_for(headers: dict[str, str], seconds: float | None) -> None:
    assert failure(429, {"error": {"message": "m"}}, headers).retry_after == seconds


@pytest.mark.parametrize(
    ("delay", "seconds"), [("48s", 48.0), ("0.5s", 0.5), ("", None), (7, None), ("soon", None), (None, None)]
)
def test_the_wait_may_stand_in_the_body(delay: Any, seconds: float | None) -> None:
    details = ["x", {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}]
    assert failure(429, {"error": {"message": "m", "details": details}}).retry_after == seconds


def test_the_server_may_overrule_its_status() -> None:
    assert failure(400, {}, {"x-should-retry": "true"}).retryable
    assert not failure(500, {}, {"x-should-retry": "false"}).retryable
    assert not failure(429, {"error": {"code": "insufficient_quota"}}, {"x-should-retry": "true"}).retryable


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "mistral-correlation-id"])
def test_the_request_id_stands_in_a_header(name: str) -> None:
    assert failure(500, {}, {name: "r1"}).request_id == "r1"


def test_the_request_id_may_stand_in_the_body() -> None:
    assert failure(500, {"error": {"message": "m"}, "request_id": "r2"}).request_id == "r2"


def test_the_cause_behind_a_gateways_error_is_noted() -> None:
    error = failure(
        429, {"error": {"message": "Provider returned error", "metadata": {"raw": "busy upstream"}}}
    )
    assert error.message == "Provider returned error"
    assert error.__notes__ == ["busy upstream"]


def test_secrets_are_taken_out_of_message_and_notes() -> None:
    body = b'{"error": {"message": "key sk-secret", "metadata": {"raw": "sk-secret"}}}'
    error = ResponseHead("p", 401, {}, ("sk-secret",)).failure(body)
    assert error.message == "key ***"
    assert error.__notes__ == ["***"]


@pytest.mark.parametrize("status", [200, 502])
def test_no_part_of_a_secret_is_left_where_a_long_body_is_cut(status: int) -> None:
    reply = ResponseHead("p", status, {}, ("sk-a-long-secret",))
    content = b"x" * 290 + b" sk-a-long-secret and more"
    error = reply.failure(content) if status != 200 else reply.failure_inside(content)
    assert "sk-a" not in str(error)
    assert "***" in str(error)
