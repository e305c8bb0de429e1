from __future__ import annotations

import errno
import os
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.clients.wire.headers import first_header, forbids_retry, retry_after


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "6"}, 6.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"retry-after": "10", "retry-after-ms": "9525"}, 9.525),
        ({"retry-after": "1", "retry-after-ms": "0"}, 1.0),
        ({"retry-after": "411480"}, 411480.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_the_wait_is_the_finest_positive_number_of_seconds(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds


def test_an_http_date_is_relative_to_the_servers_own_clock() -> None:
    headers = {"date": "Sun, 06 Nov 1994 08:49:37 GMT", "retry-after": "Sun, 06 Nov 1994 08:50:07 GMT"}

    assert retry_after(headers) == 30.0


def test_an_http_date_in_the_past_is_no_advice() -> None:
    assert retry_after({"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT"}) is None


def test_an_http_date_is_no_advice_where_no_file_can_be_opened_to_read_its_parser(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "email.utils":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.delitem(sys.modules, "email.utils", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Full(), *sys.meta_path])

    assert retry_after({"retry-after": "Sun, 06 Nov 2094 08:49:37 GMT"}) is None
    assert retry_after({"retry-after": "30"}) == 30.0


def test_an_http_date_without_the_servers_clock_is_relative_to_ours() -> None:
    then = datetime.now(UTC) + timedelta(hours=1)

    wait = retry_after({"retry-after": format_datetime(then, usegmt=True)})

    assert wait is not None
    assert 3500 < wait <= 3600


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text()))
def test_no_header_value_breaks_the_parser(headers: dict[str, str]) -> None:
    wait = retry_after(headers)

    assert wait is None or wait > 0


def test_the_first_header_that_is_present_wins_whatever_its_case() -> None:
    headers = {"X-Request-ID": "abc", "request-id": "def", "empty": " "}

    assert first_header(headers, "x-request-id", "request-id") == "abc"
    assert first_header(headers, "empty", "request-id") == "def"
    assert first_header(headers, "missing") is None


def test_only_an_explicit_false_forbids_a_retry() -> None:
    assert forbids_retry({"x-should-retry": "False"})
    assert not forbids_retry({"x-should-retry": "true"})
    assert not forbids_retry({})
