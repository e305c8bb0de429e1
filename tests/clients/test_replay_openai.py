from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from loopback import fixed, serve
from recordings import Recording, recordings
from replaying import FRAMINGS, check

from ultra.clients.openai import OpenAIClient

if TYPE_CHECKING:
    import trio


@pytest.mark.parametrize(("piece", "chunked"), FRAMINGS)
@pytest.mark.parametrize("recording", recordings("openai-chat"))
async def test_a_recorded_exchange_gives_what_was_expected_of_it(
    nursery: trio.Nursery, recording: Recording, *, piece: int | None, chunked: bool
) -> None:
    answer = fixed(recording.status, recording.headers, recording.body, piece=piece, chunked=chunked)
    server = await serve(nursery, answer)
    client = OpenAIClient(
        "m", provider=recording.provider, base_url=f"{server.url}/v1", api_key="sk-secret-key"
    )
    await check(client, recording)
    await client.aclose()
    assert [request.target for request in server.requests] == ["/v1/chat/completions"]
