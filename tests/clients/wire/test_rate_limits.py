from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ultra.clients.wire.rate_limits import RateLimits, rate_limits


def openai(what: str, limit: object, remaining: object, reset: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{what}": str(limit),
        f"x-ratelimit-remaining-{what}": str(remaining),
        f"x-ratelimit-reset-{what}": reset,
    }


def test_a_minute_s_allowance_is_told_by_the_time_that_its_use_takes_to_come_back() -> None:
    headers = openai("requests", 500, 499, "120ms") | openai("tokens", 30000, 29968, "64ms")
    assert rate_limits(headers) == RateLimits(
        requests_per_minute=500, requests_remaining=499, tokens_per_minute=30000, tokens_remaining=29968
    )


def test_a_day_s_allowance_is_not_taken_for_a_minute_s() -> None:
    headers = openai("requests", 14400, 14370, "2m59.56s") | openai("tokens", 15000, 3028, "47.888s")
    assert rate_limits(headers) == RateLimits(tokens_per_minute=15000, tokens_remaining=3028)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-limit-requests": "60"},
        openai("requests", 10, 9, "100ms"),  # ten a second
        openai("requests", 60, 60, "0s"),  # nothing used: no telling
        openai("tokens", 2_000_000, 1_999_993, "0s"),  # rounded away
        openai("requests", "many", "some", "soon"),
        openai("requests", "nan", "-1", "1s"),
        openai("requests", 0, 0, "60s"),
    ],
)
def test_what_is_unclear_is_left_alone(headers: dict[str, str]) -> None:
    assert rate_limits(headers) is None


def test_anthropic_and_mistral_name_the_minute() -> None:
    anthropic = {
        "Anthropic-RateLimit-Requests-Limit": "5",
        "Anthropic-RateLimit-Requests-Remaining": "0",
        "Anthropic-RateLimit-Requests-Reset": "2024-03-26T20:00:00Z",
        "Anthropic-RateLimit-Tokens-Limit": "25000",
        "Anthropic-RateLimit-Tokens-Remaining": "16000",
    }
    assert rate_limits(anthropic) == RateLimits(
        requests_per_minute=5, requests_remaining=0, tokens_per_minute=25000, tokens_remaining=16000
    )
    mistral = {"x-ratelimit-limit-req-minute": "100", "x-ratelimit-remaining-req-minute": "98"}
    assert rate_limits(mistral) == RateLimits(requests_per_minute=100, requests_remaining=98)


@pytest.mark.parametrize("reset", ["1m0s", "60s", "60000ms", "60", "0h1m", "0d0h0m60s", "59s1000ms"])
def test_resets_are_durations_or_seconds(reset: str) -> None:
    assert rate_limits(openai("requests", 60, 0, reset)) == RateLimits(
        requests_per_minute=60, requests_remaining=0
    )


@given(
    st.dictionaries(
        st.sampled_from([*openai("requests", 1, 1, ""), "anthropic-ratelimit-tokens-limit"]),
        st.one_of(st.text(max_size=8), st.from_regex(r"\A[0-9.]{1,400}(ms|s|m|h|d)?\Z")),
    )
)
def test_no_header_makes_it_raise(headers: dict[str, str]) -> None:
    told = rate_limits(headers)
    assert told is None or told.requests_per_minute or told.tokens_per_minute
