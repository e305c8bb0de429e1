"""What is kept of the words of an error: little, without secrets, and in linear time."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from ultra.clients.classify import classify
from ultra.clients.wire.headers import retry_after
from ultra.clients.wire.rate_limits import rate_limits
from ultra.clients.wire.redaction import clipped, redact_keys, redact_secrets
from ultra.clients.wire.response_head import ResponseHead

KEY = "k3y-0123456789abcdef"
HEAD = ResponseHead("p", 500, {}, (KEY,))

# Texts that patterns with two open ends are slow at.
HOSTILE = [
    "<",
    "<title>",
    "<a ",
    "</",
    "[",
    '{"a":',
    '"',
    "9",
    " ",
    "\\",
    "sk-",
    "Bearer ",
    "api_key",
    "?key=",
    "Limit 1 ",
    "Requested 1 ",
    "insufficient ",
    "daily ",
    "\n",
]


def _shapes(text: str) -> list[bytes]:
    return [
        text.encode(),
        json.dumps({"error": {"message": text}}).encode(),
        json.dumps({"error": text}).encode(),
        json.dumps({"detail": [text]}).encode(),
    ]


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_no_error_body_takes_long_or_is_kept_whole(pattern: str, size: int) -> None:
    text = pattern * (size // len(pattern))
    began = time.perf_counter()

    for body in _shapes(text):
        for failure in (HEAD.failure(body), HEAD.failure_inside(body)):
            assert len(str(failure)) < 4_000
        HEAD.reports_failure(body)
    assert len(str(classify(ValueError(text)))) < 4_000

    assert time.perf_counter() - began < 1, "the bound is generous: it takes some milliseconds"


@pytest.mark.parametrize("digits", ["9" * 100_000, "0." + "9" * 100_000, "1e" + "9" * 100_000])
def test_endless_numbers_are_no_numbers(digits: str) -> None:
    headers = {"retry-after": digits, "x-ratelimit-limit-requests": digits, "date": digits}

    assert retry_after(headers) is None
    assert rate_limits(headers) is None
    assert HEAD.failure(json.dumps({"error": {"code": digits, "message": "m"}}).encode()).kind == "server"


@pytest.mark.parametrize("ahead", [0, 290, 1_990, 2_000, 10_000, 18_370, 65_530, 131_060])
@pytest.mark.parametrize("filler", ["x", " ", "<b>"])
def test_no_half_of_a_key_is_quoted(ahead: int, filler: str) -> None:
    text = filler * (ahead // len(filler)) + KEY * 3 + "y" * 200_000

    for body in (text, json.dumps({"error": text[:60_000]})):
        assert KEY[:6] not in str(HEAD.failure(body.encode()))


def test_what_is_near_a_cut_is_not_shown() -> None:
    text = f"sk-{'a' * 17_990} sk-{'b' * 100_000}"

    assert "bbb" not in clipped(text, 2_000, redact_keys)
    assert clipped("short", 2_000, redact_keys) == "short"
    assert clipped("x" * 30, 10, lambda part: redact_secrets(part, ("y",))) == "x" * 10 + "…"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"detail": "no such model"}, "no such model"),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"code": 1113, "msg": "account is in arrears"}, "account is in arrears"),
        ({"code": "500", "msg": "broken"}, "broken"),
        ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, "insufficient balance"),
        ({"error_code": 17, "error_msg": "Open api daily request limit reached"}, "limit reached"),
        ({"error": {"msg": "inner words"}}, "inner words"),
        ({"success": False, "message": "plainly refused"}, "plainly refused"),
        ({"errors": [{"message": "of Cloudflare"}]}, "of Cloudflare"),
    ],
)
def test_errors_of_every_shape_keep_their_words(body: Any, words: str) -> None:
    content = json.dumps(body).encode()

    assert HEAD.reports_failure(content)
    assert words in str(HEAD.failure(content))
    assert words in str(HEAD.failure_inside(content))


@pytest.mark.parametrize(
    "body",
    [
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"code": 0, "msg": "ok"},
        {"code": 200, "message": "success"},
        {"message": "hello"},
        {"type": "ping"},
        {},
        [],
    ],
)
def test_a_report_of_success_is_no_error(body: Any) -> None:
    assert not HEAD.reports_failure(json.dumps(body).encode())
