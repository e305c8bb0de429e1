from __future__ import annotations

import pytest

from ultra.clients.wire.redaction import redact_keys

SECRET = "s3cr3t-Value_0123456789"


@pytest.mark.parametrize(
    "text",
    [
        f"for url 'https://host/v1beta/models/m:generateContent?key={SECRET}'",
        f"GET /x?alt=sse&key={SECRET}&page=2",
        f"https://host/?access_token={SECRET}",
        f"https://host/?api_key={SECRET}",
        f"headers: {{'Authorization': 'Bearer {SECRET}'}}",
        f"{{'x-api-key': '{SECRET}', 'accept': '*/*'}}",
        f"x-goog-api-key: {SECRET}",
        f"api_key='{SECRET}'",
        f"Incorrect API key provided: sk-{SECRET}.",
        f"AIzaSy{SECRET}",
    ],
)
def test_keys_and_tokens_disappear(text: str) -> None:
    assert SECRET not in redact_keys(text)
    assert "[redacted]" in redact_keys(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Rate limit reached for gpt-4o-mini on tokens per min (TPM): Limit 100000",
        "Incorrect API key provided: invalid-*****2345.",
        "https://host/v1?alt=sse&page=2",
        "the key to this is a risk-averse, task-oriented approach",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert redact_keys(text) == text


def test_what_follows_a_key_in_a_url_stays() -> None:
    assert redact_keys(f"/x?key={SECRET}&alt=sse") == "/x?key=[redacted]&alt=sse"
