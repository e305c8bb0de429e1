"""What providers say when they refuse, in their own words, and what it means."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ultra.clients.classify import classify
from ultra.clients.wire.response_head import ResponseHead


def error(message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


def anthropic(message: str, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def google(message: str, status: str, *details: dict[str, Any]) -> dict[str, Any]:
    return error(message, status=status, details=list(details))


REFUSALS = [
    # the account is empty, or its allowance is used up: no retry cures that
    ("openai", 429, error(code="billing_not_active", type="billing_not_active"), "quota"),
    ("openai", 400, error(code="billing_hard_limit_reached", type="invalid_request_error"), "quota"),
    ("anthropic", 400, anthropic("Your credit balance is too low to access the Anthropic API."), "quota"),
    ("anthropic", 400, anthropic("You have reached your specified API usage limits."), "quota"),
    ("anthropic", 402, anthropic("m", "billing_error"), "quota"),
    ("openrouter", 402, error("Insufficient credits. Add more.", code=402), "quota"),
    ("openrouter", 403, error("Key limit exceeded (total limit).", code=403), "quota"),
    ("deepseek", 402, error("Insufficient Balance", type="unknown_error"), "quota"),
    ("moonshot", 429, error(type="exceeded_current_quota_error"), "quota"),
    ("together", 402, error("Credit limit exceeded, please visit", type="credit_limit"), "quota"),
    (
        "xai",
        403,
        {"code": "The caller does not have permission", "error": "Your team has used all available credits."},
        "quota",
    ),
    ("gemini", 429, google("Your prepayment credits are depleted.", "RESOURCE_EXHAUSTED"), "quota"),
    ("gemini", 403, google("m", "PERMISSION_DENIED", {"reason": "BILLING_DISABLED"}), "quota"),
    ("azure", 403, {"statusCode": 403, "message": "Out of call volume quota. Try in 5 days."}, "quota"),
    # the key
    ("openai", 401, error("Incorrect API key provided: x.", code="invalid_api_key"), "auth"),
    ("gemini", 400, google("API key expired.", "INVALID_ARGUMENT", {"reason": "API_KEY_INVALID"}), "auth"),
    ("gemini", 403, google("Generative Language API has not been used", "PERMISSION_DENIED"), "auth"),
    ("anthropic", 403, anthropic("m", "permission_error"), "auth"),
    ("mistral", 401, {"message": "Unauthorized", "request_id": "r"}, "auth"),
    ("azure", 401, error("Access denied due to invalid subscription key", code="401"), "auth"),
    ("xai", 400, {"code": "invalid-argument", "error": "Incorrect API key provided."}, "auth"),
    ("llamacpp", 401, error("Invalid API Key", type="authentication_error", code=401), "auth"),
    # too much at once
    ("gemini", 429, google("You exceeded your current quota.", "RESOURCE_EXHAUSTED"), "rate_limit"),
    ("anthropic", 429, anthropic("m", "rate_limit_error"), "rate_limit"),
    ("openai", 429, error(type="tokens", code="rate_limit_exceeded"), "rate_limit"),
    ("openrouter", 429, error("Rate limit exceeded: free-models-per-min.", code=429), "rate_limit"),
    ("xai", 429, {"code": "Some resource has been exhausted", "error": "Too many requests"}, "rate_limit"),
    # no capacity
    ("moonshot", 429, error(type="engine_overloaded_error"), "overloaded"),
    ("mistral", 429, {"object": "error", "type": "service_tier_capacity_exceeded"}, "overloaded"),
    ("groq", 498, error(code="capacity_exceeded"), "overloaded"),
    ("ollama", 503, {"error": "server busy, please try again."}, "overloaded"),
    ("together", 503, error("The server is overloaded or not ready yet."), "overloaded"),
    # the words themselves
    ("anthropic", 400, anthropic("Output blocked by content filtering policy"), "content"),
    ("openai", 400, error("Your prompt was flagged as violating", code="invalid_prompt"), "content"),
    ("openrouter", 403, error('Your input was flagged for "sexual"', code=403), "content"),
    ("deepseek", 400, error("Content Exists Risk", type="invalid_request_error"), "content"),
    ("xai", 403, {"code": "permission", "error": "Content violates usage guidelines."}, "content"),
    # the request
    ("openai", 404, error(code="model_not_found", type="invalid_request_error"), "bad_request"),
    ("openai", 400, error(code="context_length_exceeded"), "bad_request"),
    ("anthropic", 413, anthropic("m", "request_too_large"), "bad_request"),
    ("groq", 413, error("Request too large for model", code="rate_limit_exceeded"), "bad_request"),
    ("ollama", 404, {"error": "model 'x' not found"}, "bad_request"),
    ("azure", 404, error(code="DeploymentNotFound"), "bad_request"),
    # their own failures, whatever they say
    ("anthropic", 500, anthropic("m", "api_error"), "server"),
    ("cloudflare", 524, b"<html><title>x | 524: A timeout occurred</title></html>", "timeout"),
    ("openai", 500, error("Incorrect API key provided."), "server"),
]

RETRIED = {"rate_limit", "overloaded", "server", "timeout"}


@pytest.mark.parametrize(("provider", "status", "body", "kind"), REFUSALS)
def test_a_refusal_is_known_by_the_words_of_its_provider(
    provider: str, status: int, body: Any, kind: str
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    failure = ResponseHead(provider, status, {}).failure(content)
    assert (failure.kind, failure.retryable) == (kind, kind in RETRIED)


@pytest.mark.parametrize(("provider", "status", "body", "kind"), REFUSALS)
def test_an_official_clients_error_means_the_same(provider: str, status: int, body: Any, kind: str) -> None:
    message = f"{provider}: Error code: {status} - {body!r}"
    failure = classify(Foreign(message, status, body if isinstance(body, dict) else None))
    assert (failure.kind, failure.retryable) == (kind, kind in RETRIED)


def test_an_official_clients_error_tells_the_wait_that_google_asks_for() -> None:
    body = google("m", "RESOURCE_EXHAUSTED", {"@type": "x"}, {"retryDelay": "48.5s"})
    assert classify(Foreign("m", 429, body)).retry_after == 48.5


class Foreign(Exception):
    """The shape that the errors of the official clients share."""

    def __init__(self, message: str, status: int, body: object) -> None:
        super().__init__(message)
        self.status_code = status
        self.body = body
        self.response = SimpleNamespace(status_code=status, headers={})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (anthropic("Overloaded", "overloaded_error"), "overloaded"),
        (anthropic("m", "api_error"), "server"),
        (anthropic("Your credit balance is too low"), "quota"),
        (anthropic("Output blocked by content filtering policy"), "content"),
        (google("m", "UNAVAILABLE"), "overloaded"),
        (google("m", "RESOURCE_EXHAUSTED"), "rate_limit"),
        (google("m", "INTERNAL"), "server"),
        (error(type="BadRequestError", code=400), "bad_request"),
        (error(type="NotFoundError"), "bad_request"),
        (error(code=429), "rate_limit"),
        (error(code="too_many_requests"), "rate_limit"),
        ({"error": "an error was encountered while running the model"}, "server"),
    ],
)
def test_an_error_inside_a_stream_has_its_kind_without_a_status(body: dict[str, Any], kind: str) -> None:
    assert ResponseHead("p", 200, {}).failure_inside(body).kind == kind


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        # an empty account, under whatever status
        (500, anthropic("insufficient balance (1008)", "api_error"), "quota"),
        (503, error(code="insufficient_quota"), "quota"),
        # an allowance of the day
        (429, error("Rate limit exceeded: free-models-per-day"), "quota"),
        (429, error("Rate limit reached on tokens per day (TPD): Limit 100000, Used 99999"), "quota"),
        (
            429,
            google(
                "Please retry in 36s.",
                "RESOURCE_EXHAUSTED",
                {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},
                {"retryDelay": "36s"},
            ),
            "quota",
        ),
        # larger than what a minute allows
        (429, error("Request too large for m on tokens per min: Limit 6000, Requested 9000"), "bad_request"),
        (429, error("TPM: Limit 6000, Requested 9000.", code="rate_limit_exceeded"), "bad_request"),
        (500, error(code="context_length_exceeded"), "bad_request"),
        # these pass a minute later
        (429, error("TPM: Limit 6000, Used 5000, Requested 2000.", code="rate_limit_exceeded"), "rate_limit"),
    ],
)
def test_words_that_no_repetition_cures_come_before_the_status(status: int, body: Any, kind: str) -> None:
    told = ResponseHead("p", status, {}).failure(json.dumps(body).encode())
    foreign = classify(Foreign(f"Error code: {status} - {body!r}", status, body))

    assert (told.kind, told.retryable) == (kind, kind in RETRIED)
    assert (foreign.kind, foreign.retryable) == (kind, kind in RETRIED)
    assert told.retry_after is None
