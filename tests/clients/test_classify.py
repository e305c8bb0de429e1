from __future__ import annotations

import errno
import json
import socket
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from ultra.clients.classify import classify
from ultra.clients.wire.error_kinds import kind_of_status
from ultra.errors import BadCall, MissingExtra, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable


class ForeignError(Exception):
    """An exception of some provider's library: whatever attributes it is given."""

    def __init__(self, message: str = "no", **attributes: Any) -> None:
        super().__init__(message)
        vars(self).update(attributes)


def http_error(status: int, headers: dict[str, str] | None = None) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/v1?key=topsecretvalue")
    response = httpx.Response(status, headers=headers, request=request)
    return httpx.HTTPStatusError(f"'{status}' for url '{request.url}'", request=request, response=response)


def test_a_model_error_passes_unchanged() -> None:
    error = ModelError("no", kind="auth")

    assert classify(error) is error
    assert error.__cause__ is None


def test_the_original_is_the_cause() -> None:
    error = RuntimeError("boom")

    found = classify(error)

    assert found.__cause__ is error
    assert found.message == "RuntimeError: boom"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 520, 529])
def test_these_statuses_are_retried(status: int) -> None:
    assert classify(http_error(status)).retryable


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 405, 413, 415, 422, 451])
def test_these_statuses_are_not_retried(status: int) -> None:
    found = classify(http_error(status))

    assert not found.retryable
    assert found.status == status


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, "protocol"),
        (302, "bad_request"),
        (400, "bad_request"),
        (401, "auth"),
        (402, "quota"),
        (403, "auth"),
        (404, "bad_request"),
        (408, "timeout"),
        (409, "server"),
        (413, "bad_request"),
        (422, "bad_request"),
        (429, "rate_limit"),
        (500, "server"),
        (503, "overloaded"),
        (504, "timeout"),
        (529, "overloaded"),
    ],
)
def test_each_status_has_its_kind(status: int, kind: str) -> None:
    assert kind_of_status(status) == kind


@pytest.mark.parametrize(
    "attributes",
    [
        {"status_code": 503},
        {"status": 503},
        {"code": 503},
        {"response": SimpleNamespace(status_code=503)},
        {"response": SimpleNamespace(status=503)},
        {"status": "UNAVAILABLE", "code": 503},
        {"code": "overloaded", "status_code": 503},
    ],
)
def test_the_status_is_found_wherever_a_library_keeps_it(attributes: dict[str, Any]) -> None:
    assert classify(ForeignError(**attributes)).status == 503


@pytest.mark.parametrize("value", [True, 7, 99, 600, "500", None, 3.5])
def test_a_number_that_is_no_http_status_is_not_taken_for_one(value: object) -> None:
    found = classify(ForeignError(code=value))

    assert found.status is None
    assert found.retryable


def test_headers_give_the_wait_and_the_request_id() -> None:
    found = classify(http_error(429, {"Retry-After": "7", "X-Request-Id": "req_1"}))

    assert (found.retry_after, found.request_id) == (7.0, "req_1")


def test_an_errors_own_attributes_come_before_its_headers() -> None:
    error = ForeignError(status_code=429, retry_after=2, request_id="req_2", headers={"retry-after": "9"})

    found = classify(error)

    assert (found.retry_after, found.request_id) == (2.0, "req_2")


def test_a_server_that_forbids_a_retry_is_obeyed() -> None:
    assert not classify(http_error(500, {"x-should-retry": "false"})).retryable


def test_a_server_cannot_make_a_bad_request_worth_a_retry() -> None:
    assert not classify(http_error(400, {"x-should-retry": "true"})).retryable


@pytest.mark.parametrize(
    "error",
    [
        ForeignError(status_code=429, code="insufficient_quota"),
        ForeignError(status_code=429, body={"error": {"type": "insufficient_quota"}}),
        ForeignError(status_code=429, body={"code": "insufficient_quota"}),
        ForeignError("Error code: 429 - {'code': 'insufficient_quota'}", status_code=429),
    ],
)
def test_an_exhausted_quota_is_not_retried(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.retryable) == ("quota", False)


@pytest.mark.parametrize("message", ["API key not valid. Please pass one.", "Incorrect API key provided"])
def test_a_wrong_key_answered_with_400_is_a_fault_of_authentication(message: str) -> None:
    found = classify(ForeignError(message, status_code=400))

    assert (found.kind, found.retryable) == ("auth", False)


def test_a_filtered_prompt_is_a_fault_of_its_content() -> None:
    found = classify(ForeignError(status_code=400, code="content_filter"))

    assert (found.kind, found.retryable) == ("content", False)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        trio.TooSlowError(),
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("slow"),
        type("APITimeoutError", (Exception,), {})(),
        type("ServerTimeoutError", (OSError,), {})(),
    ],
)
def test_timeouts_are_retried(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.retryable) == ("timeout", True)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        BrokenPipeError(),
        socket.gaierror(socket.EAI_NONAME, "no such host"),
        OSError(errno.ENETUNREACH, "unreachable"),
        ssl.SSLError("handshake"),
        httpx.ConnectError("refused"),
        httpx.RemoteProtocolError("closed early"),
        trio.BrokenResourceError(),
        type("ServerDisconnectedError", (Exception,), {})(),
        type("APIConnectionError", (Exception,), {})(),
    ],
)
def test_lost_connections_are_retried(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.retryable) == ("connection", True)


def test_a_certificate_that_does_not_verify_is_not_retried() -> None:
    found = classify(httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate"))

    assert (found.kind, found.retryable) == ("connection", False)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "no such file", "model.gguf"),
        httpx.UnsupportedProtocol("no scheme"),
        NotImplementedError(),
        NameError("x"),
        ImportError("openai"),
        AssertionError(),
        RecursionError(),
        BadCall("no"),
        MissingExtra("the local model", "local"),
    ],
)
def test_errors_that_no_reply_can_cause_are_not_retried(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.retryable) == ("bad_request", False)


@pytest.mark.parametrize(
    "error",
    [
        json.JSONDecodeError("no json", "<html>", 0),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        KeyError("choices"),
        IndexError(0),
        TypeError("'NoneType' object is not subscriptable"),
        AttributeError("'NoneType' object has no attribute 'content'"),
    ],
)
def test_errors_that_a_malformed_reply_causes_are_retried(error: Exception) -> None:
    found = classify(error)

    assert (found.kind, found.retryable) == ("protocol", True)


@pytest.mark.parametrize("make", [RuntimeError, ValueError, Exception, ForeignError])
def test_errors_that_nothing_is_known_about_are_retried(make: Callable[[str], Exception]) -> None:
    found = classify(make("boom"))

    assert (found.kind, found.retryable) == ("server", True)


def test_a_group_is_as_permanent_as_its_most_permanent_member() -> None:
    nested = ExceptionGroup("inner", [http_error(401)])
    group = ExceptionGroup("outer", [http_error(503), nested])

    found = classify(group)

    assert (found.kind, found.status, found.retryable) == ("auth", 401, False)
    assert found.__cause__ is group


def test_a_group_leaves_the_model_errors_in_it_as_they_were() -> None:
    inner = ModelError("slow down", kind="rate_limit", retry_after=3.0, provider="p", request_id="r")

    found = classify(ExceptionGroup("one", [inner]))

    assert found is not inner
    assert (found.message, found.retry_after, found.provider) == ("slow down", 3.0, "p")
    assert inner.__cause__ is None


def test_a_key_in_the_url_of_an_error_does_not_reach_the_message() -> None:
    assert "topsecretvalue" not in str(classify(http_error(500)))


def test_a_huge_error_page_is_cut() -> None:
    assert len(classify(RuntimeError("x" * 1_000_000)).message) < 3_000


def test_an_error_without_words_is_named_by_its_class() -> None:
    assert classify(RuntimeError()).message == "RuntimeError"


def test_an_error_whose_attributes_and_text_raise_is_still_classified() -> None:
    class HostileError(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

        def __str__(self) -> str:
            raise RuntimeError

    assert classify(HostileError()).message == "HostileError"


values = st.none() | st.integers() | st.text() | st.floats() | st.dictionaries(st.text(), st.text())


@given(
    st.text(),
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("status_code", "status", "code", "body", "headers", "retry_after", "request_id"), values
        ),
    ),
)
def test_whatever_an_error_carries_it_becomes_a_model_error(text: str, attributes: dict[str, Any]) -> None:
    error = ForeignError(text, **attributes)

    assert classify(error).__cause__ is error
